"""From what a user names to a source of layout maps that suits a run."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from medaug.core.codec import Codec, CTCodec
from medaug.core.config import DataConfig
from medaug.core.errors import ConfigError, DataError
from medaug.data.cache.store import INDEX, SliceCache
from medaug.data.feed.continuity import runs
from medaug.data.feed.feed import Feed
from medaug.synthesis.masks import Layouts
from medaug.synthesis.masks.deformed import Deformed
from medaug.synthesis.masks.folder import OwnMasks
from medaug.synthesis.masks.generated import Drawer, GeneratedMasks
from medaug.training.run import trained_on


def real_layouts(cache: SliceCache, data: DataConfig, codec: CTCodec) -> Tensor:
    """Layout maps (n, h, w) of the labelled training slices of a cache.

    Raises:
        ConfigError, DataError: it has not the labels, or no slice qualifies.
    """
    feed = Feed(cache, data, codec, seed=0, device=torch.device("cpu"))
    assert feed.layouts is not None
    return feed.layouts[feed.labeled]


def open_layouts(
    codec: Codec,
    data: DataConfig,
    size: int,
    run: Path,
    masks: str | Path | None,
    strength: float | None,
    open_run: Callable[[Path], Drawer],
) -> Layouts | None:
    """The layouts that ``masks`` names for a run that is given them.

    Args:
        codec: of the run.
        data: the run's data settings.
        size: pixels a side of what it draws.
        run: its folder or weight file.
        masks: a slice cache, whose training masks are deformed; a run of masks alone; a folder of
            label maps; or None for the cache the run was trained on.
        strength: of the deformation; by default 1 for real masks and 0 for others.
        open_run: opens another run, to draw masks.

    Returns:
        None where ``masks`` is None and the cache is not there.

    Raises:
        ConfigError: the run takes no masks, or those named do not suit it.
        DataError: nothing usable there.
    """
    if not isinstance(codec, CTCodec) or codec.masks != "layout":
        raise ConfigError(
            "masks: this run is given none; runs trained with data.masks layout take some"
        )
    cache = trained_on(run)
    if masks is None and cache is None:
        return None
    if masks is not None and (Path(masks) / INDEX).is_file():
        cache, masks = SliceCache.open(Path(masks)), None
    if masks is None:
        assert cache is not None
        _check_size(cache, size)
        real = real_layouts(cache, data, codec)
        on_each_other = [(run.stop - run.start, run.case.spacing_mm[2])
                         for run in runs(cache, data, codec.labels)]  # fmt: skip
        return Deformed(real, 1.0 if strength is None else strength, on_each_other)
    place = Path(masks)
    if (place / "model.safetensors").is_file() or place.suffix == ".safetensors":
        return GeneratedMasks(open_run(place), codec.layout_labels, size, strength or 0.0)
    if not place.is_dir():
        what = "a file" if place.exists() else "no such folder"
        raise DataError(
            f"{place}: {what}; masks are a slice cache, a run of masks alone, or a folder of label "
            "maps"
        )
    lent = None if cache is None else real_layouts(cache, data, codec)
    return OwnMasks(place, codec.labels, codec.tissues, size, data.fov_mm, lent, strength or 0.0)


def _check_size(cache: SliceCache, size: int) -> None:
    if cache.settings.size != size:
        raise ConfigError(
            f"{cache.path}: holds slices of {cache.settings.size} pixels, this run draws {size}"
        )
