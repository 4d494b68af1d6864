"""``medaug explore``: what a model's codes hold, as pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from medaug.cli.app import answer, app
from medaug.cli.options import AsJson, Device, DryRun

if TYPE_CHECKING:
    from medaug.data.cache import SliceCache
    from medaug.generator import Generator


@app.command()
def explore(
    run: Annotated[Path, typer.Argument(help="The run folder or a weight file.")],
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Walk from one real slice to another.")
    ] = False,
    attribute: Annotated[
        str | None, typer.Option(help="Add what a label, a class or an attribute adds.")
    ] = None,
    reconstruct: Annotated[
        bool, typer.Option("--reconstruct", help="Real slices, encoded and decoded.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="The slice cache; default that of the run.")
    ] = None,
    rows: Annotated[int, typer.Option(help="How many slices or pairs.")] = 8,
    steps: Annotated[int, typer.Option(help="How many pictures on the way.")] = 9,
    out: Annotated[Path | None, typer.Option(help="The PNG; default RUN/explore-WHAT.png.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of slices.")] = 0,
    device: Device = "auto",
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Draw reconstructions, walks between slices, or an attribute's effect as one picture."""
    from medaug.errors import ConfigError

    asked = {"interpolate": interpolate, "attribute": attribute, "reconstruct": reconstruct}
    given = [name for name, value in asked.items() if value not in (False, None)]
    if len(given) != 1:
        raise ConfigError(
            "explore draws one thing at a time: give one of --interpolate, --attribute NAME, "
            f"--reconstruct (given: {', '.join('--' + name for name in given) or 'none'})"
        )
    (what,) = given

    from medaug.explore import default_out, plan
    from medaug.explore import explore as draw
    from medaug.generator import Generator

    generator = Generator.from_pretrained(run, device)
    place = out or default_out(run, what, attribute or "")
    slices = find_cache(generator, what, cache, run)
    options: dict[str, Any] = {"attribute": attribute or "", "rows": rows, "steps": steps}
    if dry_run:
        planned = plan(generator, what, place, slices, **options)
        answer(json, planned, f"would draw {planned}")
        return
    drawn = draw(generator, what, place, slices, **options, seed=seed)
    answer(json, drawn, str(drawn))


def find_cache(
    generator: "Generator", what: str, given: Path | None, run: Path
) -> "SliceCache | None":
    """The cache asked for, else that of the run, else where training keeps it unless told.

    None where none is needed.

    Raises:
        ConfigError: the model needs slices, has no encoder for them, or the cache is not there.
        CacheError: what was given is not a finished cache.
    """
    if what == "interpolate" and not hasattr(generator.model, "encode"):
        return None
    generator.need_encoder()
    from medaug.data import Source
    from medaug.data.cache import SliceCache
    from medaug.errors import ConfigError
    from medaug.run import trained_on
    from medaug.workflow import default_cache

    if given is not None:
        return SliceCache.open(given)
    if (own := trained_on(run)) is not None:
        return own
    path = default_cache(cast(Source, generator), generator.settings)
    if not path.is_dir():
        raise ConfigError(
            f"{path}: the cache of this run is not there; name it with --cache, or make it with "
            "medaug prepare"
        )
    return SliceCache.open(path)
