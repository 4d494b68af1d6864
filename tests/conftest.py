"""Miniature scans in the real on-disk layout, and the real files where they are at hand."""

import json
import os
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian

from tests.support import web as served
from tests.support.script_modules import modules_of

ROBUSTNESS = Path(__file__).parent / "robustness"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in ``tests/robustness``: CI runs it, ``scripts/test`` does not."""
    for item in items:
        if ROBUSTNESS in item.path.parents:
            item.add_marker("robustness")


torch.set_num_threads(1)  # the networks of the tests are too small to share
os.environ["OMP_NUM_THREADS"] = "1"

SHAPE = (48, 40, 16)
SPACING = (6.0, 6.0, 2.5)


@pytest.fixture(autouse=True)
def handlers_of_commands_end() -> Iterator[None]:
    """A command that a test runs here leaves this process as it found it."""
    hook, term, child = sys.unraisablehook, *map(signal.getsignal, (signal.SIGTERM, signal.SIGCHLD))
    yield
    sys.unraisablehook = hook
    signal.signal(signal.SIGTERM, term)
    if callable(child):  # torch sets its own once, at the first loader with workers
        signal.signal(signal.SIGCHLD, child)


def miniature(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """HU and pancreas mask [x, y, z] in DICOM order: x to Left, y to Anterior, z to Inferior.

    A body with a spine, a liver on one side and a pancreas in fat that no mirror image matches.
    """
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    hu = np.where(body, -90, -1000)
    hu[(x / 0.74) ** 2 + (y / 0.62) ** 2 < 1] = 20
    hu[((x + 0.42) / 0.28) ** 2 + ((y - 0.1) / 0.42) ** 2 < 1] = 70
    hu[(x / 0.14) ** 2 + ((y + 0.42) / 0.16) ** 2 < 1] = 500
    dx, dy = rng.uniform(-0.04, 0.04, 2)
    bend = 0.12 * z + dx
    fat = ((x - 0.22 - bend) / 0.36) ** 2 + ((y - 0.12 - dy) / 0.26) ** 2 + (z - 0.1) ** 2 / 0.9 < 1
    hu[fat] = -90
    mask = ((x - 0.22 - bend) / 0.28) ** 2 + ((y - 0.12 - dy) / 0.18) ** 2 + (
        z - 0.1
    ) ** 2 / 0.6 < 1
    hu[mask] = 105
    hu = hu + rng.normal(0, 12, shape)
    return np.rint(hu).astype(np.int16), mask.astype(np.uint8)


def write_series(
    folder: Path,
    patient: str,
    hu: np.ndarray,
    spacing: tuple[float, float, float] = SPACING,
    name: str = "1-{:03d}.dcm",
) -> list[Path]:
    """Write HU [x, y, z] as a DICOM series with the header peculiarities of Pancreas-CT."""
    folder.mkdir(parents=True)
    files = []
    for k in range(hu.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = (
            f"1.2.826.0.1.{patient[-4:].lstrip('0')}.{k + 1}"
        )
        data.SOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID = f"1.2.826.0.1.{patient[-4:].lstrip('0')}.0.1"
        data.StudyInstanceUID = f"1.2.826.0.1.{patient[-4:].lstrip('0')}.0.2"
        data.Modality, data.PatientID, data.PatientName = "CT", patient, patient
        data.StudyDate, data.SliceThickness, data.SeriesNumber = "20151124", None, None
        data.InstanceNumber = k + 1
        data.ImagePositionPatient = [0, 0, -k * spacing[2]]
        data.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
        data.PixelSpacing = [spacing[1], spacing[0]]
        data.Columns, data.Rows = hu.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleIntercept, data.RescaleSlope = 0, 1
        data.PixelData = np.ascontiguousarray(hu[:, :, k].T).tobytes()
        files.append(folder / name.format(k + 1))
        data.save_as(files[-1], enforce_file_format=True)
    return files


def write_label(
    path: Path, mask: np.ndarray, spacing: tuple[float, float, float] = SPACING
) -> Path:
    """Write a mask [x, y, z] as the NIfTI label of a series by `write_series`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-spacing[0], spacing[1], -spacing[2], 1.0])
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)
    return path


def write_patient(root: Path, number: int, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write one miniature patient below ``root`` as the NBIA Data Retriever lays it out."""
    patient = f"PANCREAS_{number:04d}"
    hu, mask = miniature(number, shape)
    study = f"11-24-2015-PANCREAS{number:04d}-Pancreas-18957"
    series = root / "Pancreas-CT" / patient / study / "Pancreas-99667"
    write_series(series, patient, hu)
    write_label(root / "TCIA_pancreas_labels-02-05-2017" / f"label{number:04d}.nii.gz", mask)
    return series


@pytest.fixture
def collection(tmp_path: Path) -> Callable[..., Path]:
    """Make a miniature Pancreas-CT of the given patients and return its folder."""

    def make(*numbers: int, root: Path = tmp_path / "pancreas") -> Path:
        for number in numbers:
            write_patient(root, number)
        return root

    return make


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """The folder of a whole series."""
    folder = tmp_path / "series"
    write_series(folder, "PANCREAS_0001", miniature(1)[0])
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files."""
    folder = os.environ.get("MEDAUG_TEST_DATA")
    if not folder:
        pytest.skip("MEDAUG_TEST_DATA does not name a folder of real files")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def real_pancreas(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two real Pancreas-CT scans with their labels, unpacked."""
    root = tmp_path_factory.mktemp("pancreas-ct")
    for archive in sorted((real_data / "pancreas-ct").glob("*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(root, filter="data")
    for archive in sorted((real_data / "pancreas-ct").glob("*.zip")):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(root)
    return root


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantom patients, coarse but whole."""
    from medaug.data.sources.phantom import source

    root = tmp_path_factory.mktemp("phantom")
    source.write(root, 4, 7, (64, 64, 20), (6.0, 6.0, 9.5))
    return root


@pytest.fixture(scope="session")
def phantom_cache(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their slices at 32 pixels, one patient held out."""
    from medaug.data import open_source
    from medaug.data.cache.prepare import CacheSettings, prepare

    cache = tmp_path_factory.mktemp("cache") / "phantom"
    prepare(open_source(str(phantom_root)), cache, CacheSettings(size=32, holdout=0.25), 0)
    return cache


TINY = {
    "data": {"size": 32},
    "model": {"width": 8, "prior": {"width": 16, "steps": 4}, "phases": [0.4, 0.7]},
    "train": {"images": 160, "batch": 8, "snapshot_every": 64, "precision": "float32"},
}


@pytest.fixture(scope="session")
def tiny_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model in small, trained for a moment: its samples are noise, its files real."""
    from medaug.core.config import resolve
    from medaug.data.cache.prepare import SliceCache
    from medaug.training.loop import fit

    run = tmp_path_factory.mktemp("runs") / "tiny"
    fit(resolve(TINY), SliceCache.open(phantom_cache), run, device="cpu")
    return run


@pytest.fixture(scope="session")
def layout_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model in small, given its masks, with two snapshots and dropout."""
    from medaug.core.config import resolve
    from medaug.data.cache.prepare import SliceCache
    from medaug.training.loop import fit

    run = tmp_path_factory.mktemp("runs") / "layout"
    more = {"data": {"masks": "layout"}, "train": {"keep_snapshots": 2}}
    fit(resolve(TINY, more), SliceCache.open(phantom_cache), run, device="cpu")
    return run


@pytest.fixture(scope="session")
def masks_run(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of masks alone, in small."""
    from medaug.core.config import resolve
    from medaug.data.cache.prepare import SliceCache
    from medaug.training.loop import fit

    run = tmp_path_factory.mktemp("runs") / "masks"
    more = {"data": {"masks": "alone"}}
    fit(resolve(TINY, more), SliceCache.open(phantom_cache), run, device="cpu")
    return run


@pytest.fixture
def two_caches(collection: Callable[..., Path], tmp_path: Path) -> list[Any]:
    """Patients 1 and 2 beside two different pairs of others."""
    from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
    from medaug.data.sources.pancreas import PancreasCT

    made = []
    for name, others in (("a", (3, 4)), ("b", (5, 6))):
        root = collection(1, 2, *others, root=tmp_path / name / "scans")
        settings = CacheSettings(size=32, fov_mm=300, holdout=0)
        prepare(PancreasCT(root), tmp_path / name / "cache", settings, 0)
        made.append(SliceCache.open(tmp_path / name / "cache"))
    return made


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Medaug = Callable[..., Result]


@pytest.fixture
def medaug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Medaug:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDAUG_DATA", raising=False)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["medaug", *map(str, arguments)])
        from medaug.cli import main

        code = 0
        capsys.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def row() -> Iterator[Callable[[str], Any]]:
    """Imports a benchmark row."""
    with modules_of("benchmarks") as module:
        yield module


@pytest.fixture
def results(row: Callable[[str], Any]) -> ModuleType:
    """The module by which benchmark rows report."""
    return row("results")


@pytest.fixture
def two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of an evaluation's parts as `tests.support.report_parts` has it."""
    from medaug.evaluation.families import FAMILIES
    from tests.support import report_parts

    for name in list(FAMILIES):
        monkeypatch.delitem(FAMILIES, name)
    for name in ("fidelity", "privacy"):
        monkeypatch.setitem(FAMILIES, name, getattr(report_parts, name))


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on the loopback is asked directly, whatever this machine is set to."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def nbia(phantom_root: Path) -> served.Nbia:
    """The phantom patients as NBIA serves them."""
    return served.nbia(phantom_root)


@pytest.fixture
def web(nbia: served.Nbia) -> Iterator[served.Web]:
    with served.serving(nbia.web()) as web:
        yield web


@pytest.fixture(scope="session")
def whole(nbia: served.Nbia, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a download without any trouble leaves."""
    from medaug.data.download import download
    from tests.support.downloading import settings
    from tests.support.trees import tree

    root = tmp_path_factory.mktemp("whole") / "pancreas"
    with served.serving(nbia.web()) as web:
        report = download("pancreas", root, True, settings(web, nbia))
    assert report.failed == {}
    return tree(root)
