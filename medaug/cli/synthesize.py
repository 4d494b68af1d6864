"""``medaug synthesize`` writes samples; ``medaug nnunet-splits`` keeps them out of validation."""

from pathlib import Path
from typing import Annotated

import typer

from medaug.cli.console import answer, app
from medaug.cli.options import AsJson, Device, DryRun, Run, Shard, parse_shard


@app.command()
def synthesize(
    n: Annotated[str, typer.Option("-n", help="Samples that the folder holds in the end.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    run: Run = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    uncertainty: Annotated[int, typer.Option(help="Alternatives drawn for each sample.")] = 8,
    source: Annotated[
        str,
        typer.Option("--uncertainty-source", help="What they show: latent, network or mask."),
    ] = "latent",
    masks: Annotated[
        Path | None,
        typer.Option(help="Masks for a run that is given some: a cache, a run, or a folder."),
    ] = None,
    mask_strength: Annotated[
        float | None, typer.Option(help="How far those masks are deformed, 0 to 4.")
    ] = None,
    filter: Annotated[
        bool | None,
        typer.Option(help="Draw again what is unlike real slices, or a copy; default for scans."),
    ] = None,
    set: Annotated[
        list[str] | None, typer.Option(help="A threshold of the filter: filter.hu_margin=20.")
    ] = None,
    class_: Annotated[
        str | None, typer.Option("--class", help="One class for all, by name or number.")
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option(help="Condition shared by all samples, e.g. height=0.2; repeatable."),
    ] = None,
    format: Annotated[str, typer.Option(help="nifti, dicom, png, or auto.")] = "auto",
    with_real: Annotated[
        Path | None,
        typer.Option(help="A slice cache whose labelled training slices join the folder."),
    ] = None,
    ignore_above: Annotated[
        str | None,
        typer.Option(help="nnU-Net's ignore label above this entropy: q95, or bits as 0.5."),
    ] = None,
    stack: Annotated[
        int, typer.Option(help="Slices of each case, drawn along a smooth path; 0: single slices.")
    ] = 0,
    smooth_mm: Annotated[
        float, typer.Option(help="Over which length along z the slices of a stack are alike.")
    ] = 10.0,
    compile: Annotated[
        bool, typer.Option("--compile", help="Draw by torch.compile: a slow start, then faster.")
    ] = False,
    shard: Shard = None,
    device: Device = "auto",
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Write image, mask and uncertainty of n samples; the same command resumes."""
    from medaug.core.config import parse_count, parse_set

    count, part = parse_count(n, "n"), parse_shard(shard)
    of_class = [] if class_ is None else [f"class={class_}"]
    shared = parse_condition([*(condition or []), *of_class])

    from medaug.synthesis.filter.choose import filter_config, filter_for_run
    from medaug.synthesis.filter.filter import FILE
    from medaug.synthesis.generator import Generator
    from medaug.synthesis.request import Options
    from medaug.synthesis.synthesize import plan
    from medaug.synthesis.synthesize import synthesize as write
    from medaug.training.run import newest

    thresholds = filter_config(parse_set(set or []))
    run = run or newest(Path("runs"))
    generator = Generator.from_pretrained(run, device, masks, mask_strength)
    if compile:
        generator.compile(stack)
    judging = None
    if filter is not False and not (dry_run and not (run / FILE).exists()):
        data = generator.settings.data
        judging = filter_for_run(
            run,
            generator.kind,
            generator.masks,
            data,
            thresholds,
            required=bool(filter),
            device=device,
        )
    options: Options = {
        "seed": seed,
        "uncertainty": uncertainty,
        "source": source,
        "filter": judging,
        "condition": shared,
        "shard": part,
        "format": format,
        "with_real": with_real,
        "ignore_above": ignore_above,
        "stack": stack,
        "smooth_mm": smooth_mm,
    }
    if dry_run:
        planned = plan(generator, count, out, **options)
        beside = f" beside {planned.real} real slices" if planned.real else ""
        text = f"would write {planned.missing} of {planned.total} samples to {out}{beside}"
        answer(json, planned, text)
        return
    report = write(generator, count, out, **options)
    answer(json, report, str(report))


@app.command("nnunet-splits")
def nnunet_splits(
    folder: Annotated[
        Path, typer.Argument(help="A folder in nnU-Net's raw layout.", metavar="DIR")
    ],
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Random seed of the deal of patients to folds.")] = 0,
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Write splits_final.json: folds over real patients, synthetic cases in training only."""
    from medaug.synthesis.nnunet_splits import nnunet_splits as split

    report = split(folder, folds, seed, dry_run=dry_run)
    answer(json, report, f"{'would write ' if dry_run else ''}{report}")


def parse_condition(assignments: list[str]) -> dict[str, str]:
    """``["height=0.2"]`` as name to value.

    Raises:
        ConfigError: one without a name or ``=``, or a name given twice.
    """
    from medaug.core.errors import ConfigError

    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigError(
                f"condition must be name=value, such as height=0.2, got {assignment!r}"
            )
        if name in found:
            raise ConfigError(f"condition {name} is given twice, {found[name]} and {value}")
        found[name] = value
    return found
