"""Options that several commands share, each documented once."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    str, typer.Argument(help="pancreas, mnist, fashion-mnist, phantom, or a path", metavar="DATA")
]
Root = Annotated[
    Path | None, typer.Option(help="Where the data is; default $MEDAUG_DATA/DATA, then data/DATA.")
]
Cache = Annotated[
    Path | None, typer.Option(help="The slice cache; default cache/DATA-SIZEpx-FOVmm.")
]
Size = Annotated[int | None, typer.Option(help="Pixels along each side of a slice.")]
Fov = Annotated[float | None, typer.Option(help="Length of each side of a slice, mm.")]
Run = Annotated[Path | None, typer.Option(help="The run folder or a weight file.")]
Device = Annotated[str, typer.Option(help="auto (CUDA when there), cpu, cuda or cuda:N.")]
Workers = Annotated[int | None, typer.Option(help="Processes; default one per core.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
