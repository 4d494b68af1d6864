"""What the torchio transforms share: which images of a subject, their arrays, their likes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchio as tio

from medaug.errors import ConfigError
from medaug.transforms import names
from medaug.transforms.donors import Donor
from medaug.types import Affine


def pick(
    subject: Any,
    image: str | None,
    label: str | None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
) -> tuple[str, str | None]:
    """The names of the scalar image to change and of its label map, if there is one.

    Raises:
        ConfigError: the subject's images do not say which.
    """
    images = subject.get_images_dict(intensity_only=False, include=include, exclude=exclude)
    scalars = [name for name, image in images.items() if isinstance(image, tio.ScalarImage)]
    maps = [name for name, image in images.items() if isinstance(image, tio.LabelMap)]
    return names.pick(scalars, maps, image, label)


def arrays(subject: Any, image: str, label: str | None) -> Donor:
    """A subject's image and label map with the image's affine, not copied.

    Raises:
        ConfigError: the label map has several channels or another shape than the image.
    """
    values = subject[image].data.numpy()
    affine = np.asarray(subject[image].affine, np.float64)
    if label is None:
        return Donor(values, None, affine)
    ids = subject[label].data.numpy()
    expected = (1, *values.shape[1:])
    if ids.shape != expected:
        raise ConfigError(
            f"label map {label!r}: the image needs the shape {expected}, got {ids.shape}"
        )
    return Donor(values, ids[0], affine)


def like(old: Any, array: npt.NDArray[Any], affine: Affine) -> Any:
    """An image of the class, type and extra keys of ``old`` holding ``array`` (c, x, y, z).

    The type is the array's own where that of ``old`` cannot hold the values.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    kept = tensor.to(old.data.dtype)
    if torch.equal(kept.to(tensor.dtype), tensor):
        tensor = kept
    known = {"data", "affine", "type", "path", "stem"}
    extra = {key: value for key, value in old.items() if key not in known}
    kind = tio.LabelMap if isinstance(old, tio.LabelMap) else tio.ScalarImage
    return kind(tensor=tensor, affine=affine, **extra)
