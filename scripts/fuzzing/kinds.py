"""The kinds of files that are damaged: how they are made and read, and what nothing protects."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import material
import reading
from reading import Seen

from tests.support import photographs
from tests.support.segmentations import idc


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: writes sound ones below a folder.
        read: the real reading path over that folder.
        files: patterns of the files that are damaged, one at a time.
        structured: how their values are changed, a name in `damage.STRUCTURED`; empty for none.
        bare: facets for which the format has no checksum, so that another sound value in them
            cannot be told from the right one.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Seen]
    files: tuple[str, ...]
    structured: str = ""
    bare: tuple[str, ...] = ()


def _dicom(make: Callable[[Path], None]) -> Kind:
    return Kind(make, reading.source, ("*.dcm",), "dicom", ("image",))


def _volume(suffix: str) -> Kind:
    make, bare = partial(material.labelled, suffix=suffix), ("image", "label", "counts")
    return Kind(make, reading.source, (f"*{suffix}",), "", bare)


def _pictures(make: Callable[[Path], None], files: tuple[str, ...], *bare: str) -> Kind:
    form = "csv" if files == ("*.csv",) else ""
    return Kind(make, partial(reading.source, size=16, seed=1, holdout=0.25), files, form, bare)


def _cache(read: Callable[[Path], Seen], about: str) -> Kind:
    files = ("cache/*.json", "cache/cases/*/*.npy", f"cache/cases/*/{about}.json")
    return Kind(material.cache, read, files, "json")


def _output(form: str, *files: str, read: Callable[[Path], Seen] | None = None) -> Kind:
    structured = "json" if "out/run.json" in files or "out/*.json" in files else "csv"
    read = read or partial(reading.output, form=form)
    return Kind(partial(material.output, form=form), read, files, structured, ("rows",))


_celeba = partial(partial, photographs.celeba, count=12)
_LFW = partial(photographs.lfw, people={f"Ada {name}": 1 for name in "BCDE"})
_PARTS = {"trnid": [1, 2, 3, 4], "valid": [5, 6], "tstid": [7, 8]}
_FLOWERS = partial(photographs.flowers, kinds=[1, 2, 1, 2, 1, 2, 1, 2], parts=_PARTS)
_LISTS = ("out/*.json", "out/*.csv")
_WEIGHTS = ("run/*.safetensors", "run/snapshots/*.safetensors")
_UNLABELED = ("image", "geometry")

KINDS: dict[str, Kind] = {
    "dicom": _dicom(material.pancreas),
    "dicom-rle": _dicom(material.rle),
    "dicom-jpeg-ls": _dicom(material.jpeg_ls),
    "dicom-jpeg-2000": _dicom(material.jpeg2000),
    "dicom-deflated": _dicom(material.deflated),
    "dicom-enhanced": _dicom(material.multiframe),
    "dicom-seg": Kind(idc, reading.source, ("SEG_*/*.dcm",), "dicom", ("label", "counts")),
    "dicom-unlabeled": Kind(
        material.bare_series, reading.unlabeled, ("*.dcm",), "dicom", _UNLABELED
    ),
    "nii": _volume(".nii"),
    "nii-gz": _volume(".nii.gz"),
    "nii-unlabeled": Kind(material.unlabelled, reading.unlabeled, ("*.nii",), "", _UNLABELED),
    "nrrd": _volume(".nrrd"),
    "mha": _volume(".mha"),
    "idx": _pictures(partial(material.idx, compressed=False), ("*-ubyte",), "image", "classes"),
    "idx-gz": _pictures(partial(material.idx, compressed=True), ("*.gz",), "image", "classes"),
    "json": Kind(material.nnunet, reading.source, ("dataset.json",), "json", ("names", "counts")),
    "csv": Kind(material.listed, reading.source, ("metadata.csv",), "csv"),
    "csv-celeba": _pictures(_celeba(suffix=".csv"), ("*.csv",), "attributes", "names", "image"),
    "txt-celeba": _pictures(_celeba(suffix=".txt"), ("*.txt",), "attributes", "names", "image"),
    "txt-lfw": _pictures(_LFW, ("*.txt",), "attributes", "names"),
    "zip": Kind(
        material.archive,
        partial(reading.source, place="pancreas.zip"),
        ("*.zip",),
        "zip",
        ("image",),
    ),
    "png": _pictures(partial(material.pictures, suffix=".png"), ("*.png",)),
    "jpeg": _pictures(partial(material.pictures, suffix=".jpg"), ("*.jpg",), "image"),
    "cifar": _pictures(photographs.cifar, ("*.bin", "*.txt"), "image", "classes", "names"),
    "mat": _pictures(_FLOWERS, ("*.mat",), "classes", "split", "image"),
    "cache": _cache(reading.cache, "case"),
    "cache-resumed": _cache(reading.resumed, "*"),
    "weights": Kind(material.run, reading.weights, _WEIGHTS),
    "checkpoint": Kind(material.run, reading.continued, ("run/checkpoints/*.safetensors",)),
    "run": Kind(
        material.run, reading.continued, ("run/run.json", "run/metrics.jsonl"), "json", ("curves",)
    ),
    "run-config": Kind(material.run, reading.continued, ("run/config.yaml",), "yaml"),
    "filter": Kind(material.filters, reading.filters, ("run/filter.safetensors",)),
    "output-nifti": _output("nifti", *_LISTS, "out/*/*.nii.gz"),
    "output-dicom": _output("dicom", *_LISTS, "out/**/*.dcm"),
    "output-png": _output("png", *_LISTS),
    "output-manifest": _output("nifti", "out/manifest.csv"),
    "output-resumed": _output(
        "nifti", "out/run.json", "out/dataset.json", "out/manifest.csv", read=reading.again
    ),
    "masks": Kind(material.masks, reading.masks, ("*.nii", "*.nii.gz"), "", ("masks",)),
    "foreign": Kind(material.foreign, reading.foreign, ("*.nii.gz",), "", ("images", "names")),
    "config": Kind(material.config, reading.config, ("config.yaml",), "yaml"),
    "torchscript": Kind(material.script, reading.script, ("features.pt",), "", ("features",)),
}
"""By name, in the order of the table."""
