"""Pictures on disk: data sets in the layout they are published in, and folders of PNG and JPEG."""

from pathlib import Path

from medaug.data.sources.pictures import celeba, cifar, flowers, folders, lfw
from medaug.data.sources.pictures.photos import Photos

__all__ = ["Photos", "folder", "published"]


def published(path: Path) -> Photos | cifar.Cifar | None:
    """The data set that ``path``, or a folder right in it, holds as published; None if none.

    Raises:
        DataError: one whose files contradict each other or are missing, or pictures beside scans.
    """
    folders.refuse_mixed(path)
    for place in (path, *folders.below(path)):
        for layout in (cifar, celeba, lfw, flowers):
            if layout.looks_like(place):
                return layout.open_folder(place)
    return None


def folder(path: Path) -> Photos | None:
    """The pictures in ``path``, flat or a folder for each class; None where there are none.

    Raises:
        DataError: an arrangement of which it cannot be told what is meant.
    """
    return folders.open_folder(path) if folders.looks_like(path) else None
