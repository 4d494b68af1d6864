"""``medaug explore``: show a model's latent codes as pictures, or measure likelihoods."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from medaug.cli.console import answer, app
from medaug.cli.options import AsJson, Device, DryRun

if TYPE_CHECKING:
    from medaug.data.cache.prepare import SliceCache
    from medaug.evaluation.latent.report import Likelihoods
    from medaug.synthesis.generator import Generator


@app.command()
def explore(
    run: Annotated[Path, typer.Argument(help="The run folder or a weight file.")],
    interpolate: Annotated[
        bool, typer.Option("--interpolate", help="Interpolate from one real slice to another.")
    ] = False,
    attribute: Annotated[
        str | None, typer.Option(help="Add the direction of a label, class or attribute, by name.")
    ] = None,
    reconstruct: Annotated[
        bool, typer.Option("--reconstruct", help="Encode and decode real slices.")
    ] = False,
    likelihood: Annotated[
        bool,
        typer.Option("--likelihood", help="ELBO, IWAE and AIS of held-out slices, on the CPU."),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="The slice cache; default that of the run.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Slices or pairs, one a row.")] = 8,
    steps: Annotated[int, typer.Option(help="Pictures along each interpolation or direction.")] = 9,
    anneal: Annotated[int, typer.Option(help="Intermediate distributions of AIS.")] = 200,
    out: Annotated[Path | None, typer.Option(help="The PNG; default RUN/explore-WHAT.png.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the choice of slices.")] = 0,
    device: Device = "auto",
    json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Draw reconstructions, walks or an attribute as one picture, or measure likelihoods."""
    from medaug.core.errors import ConfigError

    options_given = {
        "interpolate": interpolate,
        "attribute": attribute is not None,
        "reconstruct": reconstruct,
        "likelihood": likelihood,
    }
    given = [name for name, chosen in options_given.items() if chosen]
    if len(given) != 1:
        raise ConfigError(
            "explore does one thing at a time: give one of --interpolate, --attribute NAME, "
            "--reconstruct, --likelihood (given: "
            f"{', '.join('--' + name for name in given) or 'none'})"
        )
    (what,) = given

    from medaug.evaluation.latent import default_out, plan
    from medaug.evaluation.latent import explore as draw
    from medaug.synthesis.generator import Generator

    generator = Generator.from_pretrained(run, "cpu" if likelihood else device)
    if likelihood:
        slices = find_cache(generator, what, cache, run)
        if dry_run:
            words = f"would measure log p(x) of {rows} held-out slices, nothing is written"
            answer(json, {"what": what, "rows": rows, "anneal": anneal}, words)
            return
        found = probable(generator, slices, rows, anneal, seed)
        answer(json, found, str(found))
        return
    place = out or default_out(run, what, attribute or "")
    slices = find_cache(generator, what, cache, run)
    options: dict[str, Any] = {"attribute": attribute or "", "rows": rows, "steps": steps}
    if dry_run:
        planned = plan(generator, what, place, slices, **options)
        answer(json, planned, f"would draw {planned}")
        return
    drawn = draw(generator, what, place, slices, **options, seed=seed)
    answer(json, drawn, str(drawn))


def probable(
    generator: "Generator", cache: "SliceCache | None", n: int, anneal: int, seed: int
) -> "Likelihoods":
    """Measure the likelihoods of ``n`` held-out slices.

    Raises:
        ConfigError: no patient is held out, or the cache does not fit the model.
    """
    from medaug.core.errors import ConfigError
    from medaug.evaluation.latent.real_slices import open_feed, show
    from medaug.evaluation.latent.report import SIGMA_FROM, likelihoods

    assert cache is not None
    if not cache.split["heldout"]:
        raise ConfigError(
            f"{cache.path}: no patient is held out, and likelihoods are of unseen slices"
        )
    feeds = open_feed(generator, cache), open_feed(generator, cache, "train")
    held, fitting = (
        show(feed, min(count, len(feed)), seed)
        for feed, count in zip(feeds, (n, SIGMA_FROM), strict=True)
    )
    encoded = [(generator.encoded(part.images, part.labels), part.cond) for part in (held, fitting)]
    return likelihoods(generator.model, *encoded, steps=anneal, seed=seed)


def find_cache(
    generator: "Generator", what: str, given: Path | None, run: Path
) -> "SliceCache | None":
    """Open the cache given, else that of the run, else the default one; None if none is needed.

    Raises:
        ConfigError: the model needs slices, has no encoder for them, or the cache is not there.
        CacheError: what was given is not a finished cache.
    """
    if what == "interpolate" and not hasattr(generator.model, "encode"):
        return None
    generator.need_encoder()
    from medaug.core.errors import ConfigError
    from medaug.data.cache.prepare import SliceCache
    from medaug.data.source import Source
    from medaug.training.run import trained_on
    from medaug.training.workflow import default_cache

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
