"""Sound files of every kind that medaug reads, small, to be damaged."""

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.uid import JPEGLSLossless, RLELossless

from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.phantom import source as phantom
from tests.conftest import TINY, miniature, write_label, write_patient, write_series
from tests.support import enhanced as frames
from tests.support import photographs

SPACING = (6.0, 6.0, 2.5)
CACHE = CacheSettings(size=32, holdout=0.0)


def pancreas(root: Path) -> None:
    """A patient of Pancreas-CT: a series of 16 slices, and a NIfTI label."""
    write_patient(root, 1)


def packed(syntax: str) -> Callable[[Path], None]:
    """The same, compressed."""

    def make(root: Path) -> None:
        pancreas(root)
        for file in root.rglob("*.dcm"):
            data = pydicom.dcmread(file)
            data.compress(syntax, generate_instance_uid=False)
            data.save_as(file, enforce_file_format=True)

    return make


def jpeg2000(root: Path) -> None:
    """The same in JPEG 2000, packed by GDCM."""
    pancreas(root)
    for file in root.rglob("*.dcm"):
        data = pydicom.dcmread(file)
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG2000")
        other = file.with_name("packed.dcm")
        writer.SetFileName(str(other))
        writer.Execute(sitk.ReadImage(str(file)))
        made = pydicom.dcmread(other)
        other.unlink()
        data.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
        data["PixelData"] = made["PixelData"]
        data.save_as(file, enforce_file_format=True)


def deflated(root: Path) -> None:
    """The same, with the deflated transfer syntax."""
    pancreas(root)
    for file in root.rglob("*.dcm"):
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        data.save_as(file, implicit_vr=False, little_endian=True, enforce_file_format=True)


def multiframe(root: Path) -> None:
    """A scan of Pancreas-CT in one enhanced file."""
    hu, mask = miniature(1)
    frames.save(frames.enhanced(hu), root / "PANCREAS_0001" / "many.dcm")
    write_label(root / "label0001.nii.gz", mask)


def segmentation(root: Path) -> None:
    """A scan of Pancreas-CT with its label as DICOM SEG."""
    from tests.support.segmentations import idc

    idc(root)


def bare_series(root: Path) -> None:
    """A DICOM series that has no label."""
    write_series(root / "scans" / "one", "SOMEBODY_0001", miniature(1)[0])


def labelled(suffix: str) -> Callable[[Path], None]:
    """An image and its label map as volume files."""

    def make(root: Path) -> None:
        hu, mask = miniature(1)
        for folder, array in (("images", hu), ("labels", mask)):
            path = root / folder / f"one{suffix}"
            path.parent.mkdir(parents=True)
            if ".nii" in suffix:
                affine = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])
                nibabel.save(nibabel.Nifti1Image(array, affine), path)
            else:
                image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
                image.SetSpacing(SPACING)
                image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
                sitk.WriteImage(image, str(path), useCompression=suffix == ".nrrd")

    return make


def unlabelled(root: Path) -> None:
    """One NIfTI image and nothing beside it that could contradict its header."""
    labelled(".nii")(root)
    shutil.rmtree(root / "labels")


def nnunet(root: Path) -> None:
    """A data set in nnU-Net's layout, with its dataset.json."""
    hu, mask = miniature(1)
    affine = np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0])
    for name, array in (("imagesTr/one_0000", hu), ("labelsTr/one", mask)):
        path = root / f"{name}.nii.gz"
        path.parent.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
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


def idx(compressed: bool) -> Callable[[Path], None]:
    """Pictures of digits in the four files of MNIST."""

    def make(root: Path) -> None:
        root.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for part, count in (("train", 60), ("t10k", 20)):
            pictures = rng.integers(0, 256, (count, 28, 28), np.uint8)
            for what, array in (("images", pictures), ("labels", np.arange(count) % 10)):
                head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
                raw = head + array.astype(np.uint8).tobytes()
                name = f"{part}-{what}-idx{array.ndim}-ubyte"
                if compressed:
                    (root / f"{name}.gz").write_bytes(gzip.compress(raw, mtime=0))
                else:
                    (root / name).write_bytes(raw)

    return make


def pictures(suffix: str) -> Callable[[Path], None]:
    """Pictures in two classes."""

    def make(root: Path) -> None:
        for number in range(8):
            name = f"{'ab'[number % 2]}/{number}{suffix}"
            photographs.save(root / name, photographs.scene(number))

    return make


def cifar(root: Path) -> None:
    """CIFAR-10, binary version."""
    photographs.cifar(root)


def celeba(suffix: str) -> Callable[[Path], None]:
    """CelebA with its two lists."""
    return lambda root: (photographs.celeba(root, 12, suffix=suffix), None)[1]


def lfw(root: Path) -> None:
    """LFW with its attributes."""
    people = {f"Ada {name}": 1 for name in ("B", "C", "D", "E")}
    photographs.lfw(root, people)


def flowers(root: Path) -> None:
    """Oxford-102 with its two MATLAB files."""
    parts = {"trnid": [1, 2, 3, 4], "valid": [5, 6], "tstid": [7, 8]}
    photographs.flowers(root, [1, 2, 1, 2, 1, 2, 1, 2], parts)


def cache(root: Path) -> None:
    """A cache of four phantoms, and what it was made of."""
    phantom.write(root / "data", 4, 7, (64, 64, 20), (6.0, 6.0, 9.5))
    prepare(open_source(str(root / "data")), root / "cache", CacheSettings(32, holdout=0.25), 0)


def run(root: Path) -> None:
    """A trained run beside its cache."""
    from medaug.core.config import resolve
    from medaug.training.loop import fit

    cache(root)
    more = {"train": {"keep_snapshots": 1}}
    fit(resolve(TINY, more), SliceCache.open(root / "cache"), root / "run", device="cpu")


def filters(root: Path) -> None:
    """A run with the filter that was built for it."""
    from medaug.core.config import DataConfig
    from medaug.synthesis.filter.filter import open_filter
    from medaug.synthesis.filter.settings import FilterConfig

    run(root)
    open_filter(
        root / "run" / "filter.safetensors",
        FilterConfig(segmenter_images=32, folds=2),
        cache=SliceCache.open(root / "cache"),
        data=DataConfig(size=32),
    )


def output(form: str) -> Callable[[Path], None]:
    """Synthesised slices with masks and uncertainty."""

    def make(root: Path) -> None:
        from medaug.synthesis.generator import Generator
        from medaug.synthesis.synthesize import synthesize

        run(root)
        source = Generator.from_pretrained(root / "run", "cpu")
        synthesize(source, 3, root / "out", format=form, uncertainty=2)

    return make


def masks(root: Path) -> None:
    """A user's own masks."""
    affine = np.diag([6.0, 6.0, 3.0, 1.0])
    mask = np.zeros((48, 48, 3), np.uint8)
    mask[10:20, 12:30] = 1
    root.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(mask, affine), root / "one.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask[::-1], affine), root / "two.nii")


def foreign(root: Path) -> None:
    """Slices of some other tool, with masks."""
    hu, mask = miniature(1, (40, 40, 16))
    affine = np.diag([SPACING[0], SPACING[1], SPACING[2], 1.0])
    for folder, array in (("images", hu), ("labels", mask)):
        (root / folder).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), root / folder / "one.nii.gz")


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
    import torch

    root.mkdir(parents=True)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 3, 16, 16)), root / "features.pt")


RLE, JPEG_LS = RLELossless, JPEGLSLossless
