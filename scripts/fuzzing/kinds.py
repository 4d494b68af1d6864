"""The kinds of files that are damaged: how they are made and read, and what nothing protects."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import material
import reading
from reading import Seen


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: writes sound ones below a folder.
        read: the real reading path over that folder.
        files: patterns of the files that are damaged, one at a time.
        structured: how their values are changed, see `structured.STRUCTURED`; empty for none.
        bare: facets for which the format has no checksum, so that another sound value in them
            cannot be told from the right one.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Seen]
    files: tuple[str, ...]
    structured: str = ""
    bare: tuple[str, ...] = ()


_SLICES = ("*.dcm",)
_VOXELS = ("image", "label", "counts")
_scan = reading.source
_pictures = partial(reading.source, size=16, seed=1, holdout=0.25)

KINDS: dict[str, Kind] = {
    "dicom": Kind(material.pancreas, _scan, _SLICES, "dicom", ("image",)),
    "dicom-rle": Kind(material.packed(material.RLE), _scan, _SLICES, "dicom", ("image",)),
    "dicom-jpeg-ls": Kind(material.packed(material.JPEG_LS), _scan, _SLICES, "dicom", ("image",)),
    "dicom-jpeg-2000": Kind(material.jpeg2000, _scan, _SLICES, "dicom", ("image",)),
    "dicom-deflated": Kind(material.deflated, _scan, _SLICES, "dicom", ("image",)),
    "dicom-enhanced": Kind(material.multiframe, _scan, _SLICES, "dicom", ("image",)),
    "dicom-seg": Kind(material.segmentation, _scan, ("SEG_*/*.dcm",), "dicom", ("label", "counts")),
    "dicom-unlabeled": Kind(
        material.bare_series, reading.unlabeled, _SLICES, "dicom", ("image", "geometry")
    ),
    "nii": Kind(material.labelled(".nii"), _scan, ("*.nii",), "", _VOXELS),
    "nii-gz": Kind(material.labelled(".nii.gz"), _scan, ("*.nii.gz",), "", _VOXELS),
    "nii-unlabeled": Kind(
        material.unlabelled, reading.unlabeled, ("*.nii",), "", ("image", "geometry")
    ),
    "nrrd": Kind(material.labelled(".nrrd"), _scan, ("*.nrrd",), "", _VOXELS),
    "mha": Kind(material.labelled(".mha"), _scan, ("*.mha",), "", _VOXELS),
    "idx": Kind(material.idx(False), _pictures, ("*-ubyte",), "", ("image", "classes")),
    "idx-gz": Kind(material.idx(True), _pictures, ("*.gz",), "", ("image", "classes")),
    "json": Kind(material.nnunet, _scan, ("dataset.json",), "json", ("names", "counts")),
    "csv": Kind(material.listed, _scan, ("metadata.csv",), "csv"),
    "csv-celeba": Kind(
        material.celeba(".csv"), _pictures, ("*.csv",), "csv", ("attributes", "names", "image")
    ),
    "txt-celeba": Kind(
        material.celeba(".txt"), _pictures, ("*.txt",), "", ("attributes", "names", "image")
    ),
    "txt-lfw": Kind(material.lfw, _pictures, ("*.txt",), "", ("attributes", "names")),
    "zip": Kind(
        material.archive, partial(_scan, place="pancreas.zip"), ("*.zip",), "zip", ("image",)
    ),
    "png": Kind(material.pictures(".png"), _pictures, ("*.png",)),
    "jpeg": Kind(material.pictures(".jpg"), _pictures, ("*.jpg",), "", ("image",)),
    "cifar": Kind(material.cifar, _pictures, ("*.bin", "*.txt"), "", ("image", "classes", "names")),
    "mat": Kind(material.flowers, _pictures, ("*.mat",), "", ("classes", "split", "image")),
    "cache": Kind(
        material.cache,
        reading.cache,
        ("cache/*.json", "cache/cases/*/*.npy", "cache/cases/*/case.json"),
        "json",
    ),
    "cache-resumed": Kind(
        material.cache,
        reading.resumed,
        ("cache/*.json", "cache/cases/*/*.npy", "cache/cases/*/*.json"),
        "json",
    ),
    "weights": Kind(
        material.run, reading.weights, ("run/*.safetensors", "run/snapshots/*.safetensors")
    ),
    "checkpoint": Kind(material.run, reading.continued, ("run/checkpoints/*.safetensors",)),
    "run": Kind(
        material.run, reading.continued, ("run/run.json", "run/metrics.jsonl"), "json", ("curves",)
    ),
    "run-config": Kind(material.run, reading.continued, ("run/config.yaml",), "yaml"),
    "filter": Kind(material.filters, reading.filters, ("run/filter.safetensors",)),
    "output-nifti": Kind(
        material.output("nifti"),
        reading.output("nifti"),
        ("out/*.json", "out/*.csv", "out/*/*.nii.gz"),
        "json",
        ("rows",),
    ),
    "output-dicom": Kind(
        material.output("dicom"),
        reading.output("dicom"),
        ("out/*.json", "out/*.csv", "out/**/*.dcm"),
        "json",
        ("rows",),
    ),
    "output-png": Kind(
        material.output("png"),
        reading.output("png"),
        ("out/*.json", "out/*.csv"),
        "json",
        ("rows",),
    ),
    "output-manifest": Kind(
        material.output("nifti"), reading.output("nifti"), ("out/manifest.csv",), "csv", ("rows",)
    ),
    "output-resumed": Kind(
        material.output("nifti"),
        reading.again,
        ("out/run.json", "out/dataset.json", "out/manifest.csv"),
        "json",
        ("rows",),
    ),
    "masks": Kind(material.masks, reading.masks, ("*.nii", "*.nii.gz"), "", ("masks",)),
    "foreign": Kind(material.foreign, reading.foreign, ("*.nii.gz",), "", ("images", "names")),
    "config": Kind(material.config, reading.config, ("config.yaml",), "yaml"),
    "torchscript": Kind(material.script, reading.script, ("features.pt",), "", ("features",)),
}
"""By name, in the order of the table."""
