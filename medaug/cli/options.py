"""Options that several commands share, each documented once."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str, typer.Argument(help="pancreas, mnist, fashion-mnist, phantom, or a path.", metavar="DATA")
]
Config = Annotated[Path | None, typer.Option(help="A YAML file of settings; default none.")]
Root = Annotated[
    Path | None, typer.Option(help="Where the data is; default $MEDAUG_DATA/DATA, then data/DATA.")
]
Cache = Annotated[
    Path | None, typer.Option(help="The slice cache; default cache/DATA-SIZEpx-FOVmm.")
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Pixels along each side of a slice; default 128, of pictures their own size."
    ),
]
Fov = Annotated[float | None, typer.Option(help="Length of each side of a slice, mm; default 400.")]
Labels = Annotated[
    str | None,
    typer.Option(help="Labels to take: pancreas,liver; pancreas+cancer joins two; default all."),
]
Modality = Annotated[str | None, typer.Option(help="CT or MR; default what the files say.")]
Names = Annotated[
    str | None,
    typer.Option(help="Names for label maps that carry none: btcv, word, ..., or a JSON file."),
]
Run = Annotated[
    Path | None,
    typer.Option(help="A run folder or weight file; default the newest run below runs/."),
]
Device = Annotated[str, typer.Option(help="auto (CUDA when there), cpu, cuda or cuda:N.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; default one per core.")]
Shard = Annotated[
    str | None,
    typer.Option(help="i/k: part i of k, from 0; default what torchrun or srun says, else all."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]


def parse_shard(text: str | None) -> tuple[int, int]:
    """Read ``i/k`` as two numbers, part i of k; None takes those of torchrun or srun, else 0/1.

    Raises:
        ConfigError: not of that form.
    """
    from medaug.core.errors import ConfigError

    if text is None:
        from medaug.runtime.distributed import share

        part = share()
        if part.world > 1:
            print(f"shard: {part.rank}/{part.world}, by the environment", file=sys.stderr)
        return part.pair
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ConfigError(f"shard must be i/k, such as 0/8 for the first of eight, got {text!r}")
    return int(match[1]), int(match[2])


def scan_options(labels: str | None, modality: str | None, names: str | None) -> dict[str, Any]:
    """The options that say what to read of scans, as ``medaug.data.open_source`` takes them."""
    return {"labels": listed(labels), "modality": modality, "names": names}


def listed(text: str | None) -> list[str] | None:
    """Split ``a, b`` at its commas; None stays."""
    return None if text is None else [name.strip() for name in text.split(",")]


def read_settings(config: Path | None) -> dict[str, Any]:
    """Read a YAML file of settings; None holds none.

    Raises:
        ConfigError: it is not there, or not YAML.
    """
    from medaug.core.config import read_yaml

    return read_yaml(config) if config else {}


def sized(
    size: int | None, fov: float | None, center: str | None = None, colour: str | None = None
) -> dict[str, Any]:
    """The options that shape a slice as a config section; those that are None are left out."""
    given = {"size": size, "fov_mm": fov, "center": center, "colour": colour}
    return {"data": {key: value for key, value in given.items() if value is not None}}
