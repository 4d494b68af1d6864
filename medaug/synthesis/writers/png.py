"""PNG for eyes and for pictures: 8 bits, one file for what a glance needs.

    images/syn_000000.png                  grey levels or RGB; CT through the window, which loses HU
    labels/syn_000000.png                  label ids
    uncertainty/syn_000000_std.png         in the image's unit, at most 255
    uncertainty/syn_000000_entropy.png     0 to 255 for 0 to 1 bit and more
    uncertainty/syn_000000_samples.png     the K alternatives side by side
    uncertainty/syn_000000_masks.png       their label maps side by side

CT is turned so that anterior is up and the patient's right on the left; pictures stay as they are.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from medaug.core.errors import DataError, reason
from medaug.core.types import Sample
from medaug.runtime.pictures import WINDOW_HU, Levels, encode, grey, rounded, strip, upright
from medaug.synthesis.writers import inside

_BOMB = (Image.DecompressionBombWarning, Image.DecompressionBombError)


class Png:
    """8-bit PNG files.

    Args:
        window: what becomes 0 and 255, of scans.
    """

    def __init__(self, window: tuple[float, float] = WINDOW_HU) -> None:
        self.window = window

    def files(self, sample: Sample, case: str, level: int) -> dict[str, tuple[str, bytes]]:
        """See ``Writer.files``."""
        ct = sample.image.dtype != np.uint8
        arrays: dict[str, tuple[str, Levels]] = {
            "image": (f"images/{case}", grey(sample.image, self.window))
        }
        if sample.label is not None:
            arrays["label"] = (f"labels/{case}", sample.label)
        if len(sample.alternatives):
            arrays["std"] = (f"uncertainty/{case}_std", rounded(sample.std))
            if sample.entropy is not None:
                bits = rounded(sample.entropy * 255)
                arrays["entropy"] = (f"uncertainty/{case}_entropy", bits)
            arrays["samples"] = (
                f"uncertainty/{case}_samples",
                grey(sample.alternatives, self.window),
            )
            if sample.alternative_labels is not None:
                arrays["masks"] = (f"uncertainty/{case}_masks", sample.alternative_labels)
        return {
            role: (f"{name}.png", encode(strip(upright(array) if ct else array), level))
            for role, (name, array) in arrays.items()
        }

    def read(self, folder: Path, row: Mapping[str, str]) -> Sample:
        """See ``Writer.read``; CT comes back as the grey levels that were written."""
        turn = np.asarray if row["kind"] == "image" else upright
        image = turn(_decode(inside(folder, row["image"])))
        label = turn(_decode(inside(folder, row["label"]))) if row["label"] else None
        std = turn(_decode(inside(folder, row["std"]))) if row["std"] else np.zeros_like(image)
        spacing = float(row["spacing_x_mm"]), float(row["spacing_y_mm"])
        return Sample(
            index=int(row["index"]),
            image=image,
            label=label,
            affine=np.diag([*spacing, 1.0, 1.0]),
            alternatives=image[None][:0],
            alternative_labels=None,
            std=std.astype(np.float32),
            entropy=None,
        )

    def about(self, kind: str, labels: Mapping[str, int], count: int) -> dict[str, bytes]:
        """Nothing: the manifest says it all."""
        return {}


def _decode(path: Path) -> Levels:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG",)) as picture:
                return np.asarray(picture)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file, though the manifest lists it") from error
    except (*_BOMB, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG file ({reason(error)})") from error
