"""``medaug nnunet-splits``: folds that keep synthetic cases out of validation."""

from pathlib import Path
from typing import Annotated

import typer

from medaug.cli.console import answer, app
from medaug.cli.options import AsJson, DryRun


@app.command("nnunet-splits")
def nnunet_splits(
    folder: Annotated[
        Path, typer.Argument(help="A folder in nnU-Net's raw layout.", metavar="DIR")
    ],
    folds: Annotated[int, typer.Option(help="How many folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the deal of patients to folds.")] = 0,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Write splits_final.json: folds over real patients, synthetic cases in training only."""
    from medaug.synthesis.nnunet_splits import nnunet_splits as split

    report = split(folder, folds, seed, dry_run=dry_run)
    answer(json, report, f"{'would write ' if dry_run else ''}{report}")
