"""Sound files of every kind that medaug reads, small, to be damaged."""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from medaug.core.config import DataConfig, resolve
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom import source as phantom
from medaug.synthesis.filter.filter import open_filter
from medaug.synthesis.filter.settings import FilterConfig
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit
from tests.conftest import TINY, miniature, write_label, write_patient, write_series
from tests.support import enhanced as frames
from tests.support import photographs

SPACING = (6.0, 6.0, 2.5)
LPS = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])


def pancreas(root: Path) -> None:
    """A patient of Pancreas-CT: a series of 16 slices, and a NIfTI label."""
    write_patient(root, 1)


def repacked(root: Path, change: Callable[[Path, Any], None], **how: Any) -> None:
    """The same, each file with its data set changed and written with the options ``how``."""
    pancreas(root)
    for file in root.rglob("*.dcm"):
        data = pydicom.dcmread(file)
        change(file, data)
        data.save_as(file, enforce_file_format=True, **how)


def _compress(file: Path, data: Any, syntax: str) -> None:
    data.compress(syntax, generate_instance_uid=False)


def _by_gdcm(file: Path, data: Any) -> None:
    writer, other = sitk.ImageFileWriter(), file.with_name("packed.dcm")
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    writer.SetFileName(str(other))
    writer.Execute(sitk.ReadImage(str(file)))
    made = pydicom.dcmread(other)
    other.unlink()
    data.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
    data["PixelData"] = made["PixelData"]


def _deflate(file: Path, data: Any) -> None:
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


rle, jpeg_ls = (
    partial(repacked, change=partial(_compress, syntax=syntax))
    for syntax in (RLELossless, JPEGLSLossless)
)
jpeg2000 = partial(repacked, change=_by_gdcm)
deflated = partial(repacked, change=_deflate, implicit_vr=False, little_endian=True)


def multiframe(root: Path) -> None:
    """A scan of Pancreas-CT in one enhanced file."""
    hu, mask = miniature(1)
    frames.save(frames.enhanced(hu), root / "PANCREAS_0001" / "many.dcm")
    write_label(root / "label0001.nii.gz", mask)


def _nifti(path: Path, array: Any, affine: Any = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def bare_series(root: Path) -> None:
    """A DICOM series that has no label."""
    write_series(root / "scans" / "one", "SOMEBODY_0001", miniature(1)[0])


def labelled(root: Path, suffix: str) -> None:
    """An image and its label map as volume files."""
    hu, mask = miniature(1)
    for folder, array in (("images", hu), ("labels", mask)):
        path = root / folder / f"one{suffix}"
        path.parent.mkdir(parents=True)
        if ".nii" in suffix:
            _nifti(path, array)
        else:
            image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
            image.SetSpacing(SPACING)
            image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
            sitk.WriteImage(image, str(path), useCompression=suffix == ".nrrd")


def unlabelled(root: Path) -> None:
    """One NIfTI image and nothing beside it that could contradict its header."""
    labelled(root, ".nii")
    shutil.rmtree(root / "labels")


def nnunet(root: Path) -> None:
    """A data set in nnU-Net's layout, with its dataset.json."""
    hu, mask = miniature(1)
    for name, array in (("imagesTr/one_0000", hu), ("labelsTr/one", mask)):
        _nifti(root / f"{name}.nii.gz", array)
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "pancreas": 1, "tumour": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))


def archive(root: Path) -> None:
    """A zip archive with a patient of Pancreas-CT."""
    pancreas(root / "in")
    with zipfile.ZipFile(root / "pancreas.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for file in sorted(p for p in (root / "in").rglob("*") if p.is_file()):
            made.write(file, file.relative_to(root / "in"))
    shutil.rmtree(root / "in")


def listed(root: Path) -> None:
    """A patient of Pancreas-CT with the list of the tool that downloaded it."""
    pancreas(root)
    series = pydicom.dcmread(next(root.rglob("*.dcm"))).SeriesInstanceUID
    (root / "metadata.csv").write_text(
        "Series UID,Collection,Subject ID,Number of Images,File Size\n"
        f"{series},Pancreas-CT,PANCREAS_0001,16,0.1 MB\n"
        "1.2.3,Pancreas-CT,PANCREAS_0002,20,0.1 MB\n"
    )


def idx(root: Path, compressed: bool) -> None:
    """Pictures of digits in the four files of MNIST."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        pictures = rng.integers(0, 256, (count, 28, 28), np.uint8)
        for what, array in (("images", pictures), ("labels", np.arange(count) % 10)):
            head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            raw = head + array.astype(np.uint8).tobytes()
            name = f"{part}-{what}-idx{array.ndim}-ubyte"
            raw = gzip.compress(raw, mtime=0) if compressed else raw
            (root / (f"{name}.gz" if compressed else name)).write_bytes(raw)


def pictures(root: Path, suffix: str) -> None:
    """Pictures in two classes."""
    for number in range(8):
        name = f"{'ab'[number % 2]}/{number}{suffix}"
        photographs.save(root / name, photographs.scene(number))


def cache(root: Path) -> None:
    """A cache of four phantoms, and what it was made of."""
    phantom.write(root / "data", 4, 7, (64, 64, 20), (6.0, 6.0, 9.5))
    prepare(open_source(str(root / "data")), root / "cache", CacheSettings(32, holdout=0.25), 0)


def run(root: Path) -> None:
    """A trained run beside its cache."""
    cache(root)
    more = {"train": {"keep_snapshots": 1}}
    fit(resolve(TINY, more), SliceCache.open(root / "cache"), root / "run", device="cpu")


def filters(root: Path) -> None:
    """A run with the filter that was built for it."""
    run(root)
    open_filter(
        root / "run" / "filter.safetensors",
        FilterConfig(segmenter_images=32, folds=2),
        cache=SliceCache.open(root / "cache"),
        data=DataConfig(size=32),
    )


def output(root: Path, form: str) -> None:
    """Synthesised slices with masks and uncertainty."""
    run(root)
    source = Generator.from_pretrained(root / "run", "cpu")
    synthesize(source, 3, root / "out", format=form, uncertainty=2)


def masks(root: Path) -> None:
    """A user's own masks."""
    affine = np.diag([6.0, 6.0, 3.0, 1.0])
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[10:20, 12:30] = 1
    _nifti(root / "one.nii.gz", mask, affine)
    _nifti(root / "two.nii", mask[::-1], affine)


def foreign(root: Path) -> None:
    """Slices of some other tool, with masks."""
    hu, mask = miniature(1, (40, 40, 16))
    for folder, array in (("images", hu), ("labels", mask)):
        _nifti(root / folder / "one.nii.gz", array, np.diag([*SPACING, 1.0]))


def config(root: Path) -> None:
    """A config file."""
    root.mkdir(parents=True)
    (root / "config.yaml").write_text(
        "data: {name: pancreas, size: 64, window_hu: [-160, 240], labels: [pancreas]}\n"
        "model: {name: spatial_vaegan, preset: modern, width: 16, phases: [0.4, 0.7]}\n"
        "train: {images: 2Mi, batch: 64, seed: 0, precision: auto}\n"
    )


def script(root: Path) -> None:
    """A feature extractor as TorchScript."""
    root.mkdir(parents=True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 16, 16)), root / "features.pt")
