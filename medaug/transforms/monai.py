"""MONAI dictionary transform that puts a synthetic pair in the place of a scan and its label map.

All draws come from the transform's own ``R``, so ``set_random_state`` and MONAI's data loader
decide them.  It is not lazy: ``Compose`` resamples what is pending before it.
"""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medaug.errors import ConfigError
from medaug.transforms.calm import calm
from medaug.transforms.items import like, present, read, two_keys
from medaug.transforms.pairs import POOL, open_pairs
from medaug.transforms.synthesis import SMOOTH_MM, STRENGTH, Mode, Recipe, synthetic

SEEDS = 2**31 - 1


class RandSynthesisd(RandomizableTransform, MapTransform):
    """Now and then, a synthetic pair in the place of an item's image and label map.

    Entries are channel-first arrays, tensors or ``MetaTensor``s of CT in HU, of two or three
    spatial axes; class, device and, where it can hold the values, data type stay.

    In mode ``replace`` the pair is another case of the shape and spacing of its source, one slice
    thick; a ``MetaTensor`` gets its affine, new metadata and an empty trace of operations.  In the
    modes ``vary`` and ``redraw`` it is this case, slice by slice, on its own voxels, and metadata
    and trace stay.

    Args:
        keys: of the image, and of the label map where there is one, in this order.
        source: a run folder, a ``.safetensors`` file, or, to replace, a folder written by
            ``medaug synthesize``.
        prob: probability of replacing.
        mode: ``replace``, ``vary`` (the run needs an encoder) or ``redraw`` (a run in layout mode).
        strength: how far ``vary`` goes, above 0, little, to 1, all that the prior allows.
        smooth_mm: over which length along the body the slices' draws resemble each other.
        seed: which family of samples a run draws from; without meaning for a folder.
        pool: how many samples of a run take part.
        device: where a run's model is computed; with worker processes, ``cpu``.
        allow_missing_keys: whether items may lack the label map, whose image is then replaced
            alone, or the image, and then stay as they are.

    Raises:
        ConfigError: an argument is out of range, the mode needs a run, or an item does not fit.
        DataError: ``source`` is neither a run nor a synthesised folder.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source: str | Path,
        prob: float = 0.3,
        *,
        mode: Mode = "replace",
        strength: float = STRENGTH,
        smooth_mm: float = SMOOTH_MM,
        seed: int = 0,
        pool: int = POOL,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        check_probability(prob)
        RandomizableTransform.__init__(self, prob)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        self.pair = two_keys(self.keys)
        self.pool = pool
        self.recipe = Recipe(str(source), mode, seed, device, strength, smooth_mm)
        self.recipe.check()
        self.index = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to replace, and by which sample."""
        super().randomize(None)
        if not self._do_transform:
            return
        if self.recipe.mode == "replace":
            with calm():
                indices = open_pairs(self.recipe.source, self.recipe.device).indices(self.pool)
            self.index = int(indices[self.R.randint(len(indices))])
        else:
            self.index = int(self.R.randint(SEEDS))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with other entries at ``keys``; ``data`` is left as it is."""
        result = dict(data)
        keys = present(data, self.pair, self.allow_missing_keys)
        self.randomize()
        if keys is None or not self._do_transform:
            return result
        image, label = keys
        with calm():
            mine = read(data, (image, None if self.recipe.mode == "replace" else label))
            drawn = synthetic(mine, self.recipe, self.index, None)
        if label is not None and drawn.label is None:
            raise ConfigError(
                f"{self.recipe.source}: draws no label maps, and {label!r} would no longer match "
                f"its image; keys=[{image!r}] leaves it as it is"
            )
        moved = drawn.affine if self.recipe.mode == "replace" else None
        name = f"syn_{self.index:06d}"
        result[image] = like(data[image], drawn.image, moved, name)
        if label is not None and drawn.label is not None:
            result[label] = like(data[label], drawn.label[None], moved, name)
        return result


def check_probability(prob: float) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigError: below 0 or above 1.
    """
    if not 0 <= prob <= 1:
        raise ConfigError(f"prob must be from 0 to 1, got {prob}")
