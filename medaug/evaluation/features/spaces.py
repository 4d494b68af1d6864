"""Set up the feature spaces of one report, and take each slice's features once.

As many training slices as synthetic ones are taken, so that a figure and its real value are of the
same n.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from medaug.core.errors import ConfigError, WeightsError
from medaug.core.seeds import derive
from medaug.evaluation.features.encoder import IMAGES, encoder_of
from medaug.evaluation.features.extractor import Extractor, called, sha
from medaug.evaluation.features.pixels import COARSE, Pixels, RandomConvolutions
from medaug.evaluation.features.script import Script
from medaug.evaluation.features.texture import Texture
from medaug.evaluation.slices.evidence import Evidence, SliceSet
from medaug.training.checkpoint import read_tensors, write_tensors

Role = Literal["synthetic", "train", "heldout"]
MOST = 5000


@dataclass
class Spaces:
    """Slices in their three roles, and their features in each feature space.

    Attributes:
        synthetic: n of the synthetic slices.
        train: as many training slices.
        heldout: held-out slices.
        pixels: the pictures, for the metrics on pixels.
        coarse: anatomy without appearance, for diversity.
        learned: the other feature spaces: random, encoder, texture, and the user's.
        folder: where features are kept between calls, or None.
        seed: of all random draws.
    """

    synthetic: SliceSet
    train: SliceSet
    heldout: SliceSet
    pixels: Extractor
    coarse: Extractor
    learned: Sequence[Extractor]
    folder: Path | None = None
    seed: int = 0
    _known: dict[tuple[str, str], Tensor] = field(default_factory=dict, repr=False)
    _shas: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def n(self) -> int:
        """Synthetic slices, and training slices in their place."""
        return len(self.synthetic)

    @property
    def n_real(self) -> int:
        """Held-out slices."""
        return len(self.heldout)

    def features(self, extractor: Extractor, role: Role) -> Tensor:
        """Features float32 (n, d), from memory, from the folder, or computed."""
        key = called(extractor), role
        if key not in self._known:
            self._known[key] = self._features(extractor, role)
        return self._known[key]

    def _features(self, extractor: Extractor, role: Role) -> Tensor:
        images = getattr(self, role).images
        if self.folder is None:
            return extractor(images)
        if role not in self._shas:
            self._shas[role] = sha(images)
        name = f"{called(extractor)}-{self._shas[role][:24]}.safetensors"
        path = self.folder / name
        if path.exists():
            try:
                return read_tensors(path)[0]["features"]
            except (WeightsError, KeyError):
                path.unlink()
        found = extractor(images)
        write_tensors(path, {"features": found}, {"extractor": called(extractor)})
        return found


def spaces_of(
    evidence: Evidence,
    folder: Path | None = None,
    scripts: Sequence[Path] = (),
    *,
    most: int = MOST,
    encoder_images: int = IMAGES,
) -> Spaces:
    """Set up the feature spaces of a report; the encoder is trained here, on the training slices.

    Args:
        evidence: the slices.
        folder: where the encoder and the features are kept, or None.
        scripts: TorchScript files of the user's own feature spaces.
        most: slices of each kind that are measured, drawn with the evidence's seed.
        encoder_images: slices that the encoder sees while it trains.

    Raises:
        ConfigError: slices of different sizes, or two spaces of one name.
        WeightsError: a script that cannot be read.
        OutputError: the folder cannot be written to.
    """
    sides = {part.images.shape[1:] for part in (evidence.train, evidence.heldout)}
    if sides != {evidence.synthetic.images.shape[1:]}:
        raise ConfigError(
            f"synthetic slices of {evidence.synthetic.images.shape[1:]} pixels cannot be compared "
            f"with real ones of {' and '.join(str(side) for side in sorted(sides))}"
        )
    window, seed = evidence.window_hu, evidence.seed
    brought = [Script(path, window) for path in scripts]
    taken = ["random", "encoder", "texture", "pixels", "coarse", *(s.name for s in brought)]
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        raise ConfigError(f"two feature spaces are called {twice[0]!r}; rename the file")
    n = min(len(evidence.synthetic), len(evidence.train), most)
    train = evidence.train
    encoder = encoder_of(train.images, window, folder, count=encoder_images, seed=seed)
    return Spaces(
        evidence.synthetic.some(n, derive(seed, "synthetic")),
        train.some(n, derive(seed, "train")),
        evidence.heldout.some(min(len(evidence.heldout), most), derive(seed, "heldout")),
        Pixels("pixels", window),
        Pixels("coarse", window, COARSE),
        [
            RandomConvolutions(window),
            encoder,
            Texture.fit(train.images, window, evidence.modality),
            *brought,
        ],
        None if folder is None else Path(folder),
        seed,
    )
