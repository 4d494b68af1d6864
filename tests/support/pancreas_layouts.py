"""Pancreas-CT as people have it on disk, fabricated of one patient."""

import csv
import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from medaug.data.cache.prepare import CacheSettings
from tests.conftest import SHAPE, SPACING, miniature, write_label, write_series

ID = "PANCREAS_0007"
SETTINGS = CacheSettings(size=32, fov_mm=240, holdout=0.0)
HEADER = (
    "Series UID",
    "Collection",
    "3rd Party Analysis",
    "Data Description URI",
    "Subject ID",
    "Study UID",
    "Study Description",
    "Study Date",
    "Series Description",
    "Manufacturer",
    "Modality",
    "SOP Class Name",
    "SOP Class UID",
    "Number of Images",
    "File Size",
    "File Location",
    "Download Timestamp",
)
UID = "1.2.826.0.1.7.0.1"


def metadata(folder: Path, images: int, uid: str = UID) -> None:
    """Write ``metadata.csv`` as the Retriever does."""
    row = dict.fromkeys(HEADER, "") | {
        "Series UID": uid,
        "Subject ID": ID,
        "Number of Images": str(images),
        "File Location": rf".\Pancreas-CT\{ID}",
    }
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, HEADER)
        writer.writeheader()
        writer.writerow(row)


def scan(folder: Path, name: str = "1-{:03d}.dcm") -> list[Path]:
    """Write the scan of patient 7 as TCIA's tools leave it, with what they leave beside it."""
    files = write_series(folder, ID, miniature(7)[0], name=name)
    (folder / "LICENSE").write_text("CC BY 3.0")
    (folder / "._1-001.dcm").write_bytes(b"\0\5\26\7")
    return files


def label(path: Path) -> None:
    write_label(path, miniature(7)[1])


def zipped(folder: Path, archive: Path) -> None:
    """Pack ``folder`` as ``archive`` and remove it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
        packed.writestr("__MACOSX/._label0007.nii.gz", b"\0\5\26\7")
    shutil.rmtree(folder)


def retriever(root: Path) -> None:
    study = root / f"manifest-1599750808610/Pancreas-CT/{ID}/11-24-2015-PANCREAS0007-Pancreas-18957"
    scan(study / "Pancreas-99667")
    metadata(study.parents[2], SHAPE[2])
    (study.parents[2] / "LICENSE").write_text("CC BY 3.0")
    label(root / "TCIA_pancreas_labels-02-05-2017" / "label0007.nii.gz")


def older_names(root: Path) -> None:
    """File order is not slice order: 000000.dcm is slice 11."""
    files = scan(root / "Pancreas-CT" / ID / "study" / "series", "a{:06d}.dcm")
    for k, file in enumerate(files):
        file.rename(file.with_name(f"{(k * 3 + 2) % SHAPE[2]:06d}.dcm"))
    label(root / "labels" / "label0007.nii.gz")


def older_downloader(root: Path) -> None:
    scan(root / "DOI" / ID / "1.2.826.0.1.7.0.2" / UID)
    label(root / "Labels" / "label0007.nii.gz")


def quoted(root: Path) -> None:
    scan(root / '"Pancreas-CT"' / f'"{ID}"' / "'study'" / '"series"')
    label(root / '"TCIA_pancreas_labels-02-05-2017"' / "label0007.nii.gz")


def no_patient_folder(root: Path) -> None:
    scan(root / UID)
    label(root / "Pancreas-CT-Label" / "label0007.nii.gz")


def mirror(root: Path) -> None:
    """As repacked on Kaggle: plain NIfTI labels, and a label whose scan is not there."""
    scan(root / "images" / ID)
    label(root / "labels" / "label0007.nii")
    label(root / "labels" / "label0063.nii")


def one_folder(root: Path) -> None:
    """Slices of two patients and their labels side by side."""
    scan(root / "all", "a{:03d}.dcm")
    write_series(root / "other", "PANCREAS_0025", miniature(25)[0], name="b{:03d}.dcm")
    for file in (root / "other").iterdir():
        file.rename(root / "all" / file.name)
    (root / "other").rmdir()
    label(root / "all" / "label0007.nii.gz")


def nested_labels(root: Path) -> None:
    scan(root / ID)
    name = "TCIA_pancreas_labels-02-05-2017"
    label(root / name / name / "label0007.nii.gz")


def label_folders(root: Path) -> None:
    """Some unpackers make a folder of each file."""
    scan(root / ID)
    label(root / "label" / "label0007.nii" / "label0007.nii")


def both_forms(root: Path) -> None:
    """The label unpacked beside its packed self."""
    scan(root / ID)
    label(root / "labels" / "label0007.nii.gz")
    packed = (root / "labels" / "label0007.nii.gz").read_bytes()
    (root / "labels" / "label0007.nii").write_bytes(gzip.decompress(packed))


def zipped_labels(root: Path) -> None:
    scan(root / "Pancreas-CT" / ID)
    name = "TCIA_pancreas_labels-02-05-2017"
    label(root / "packed" / name / "label0007.nii.gz")
    zipped(root / "packed", root / f"{name}.zip")


def zipped_series(root: Path) -> None:
    """As the REST interface gives them: one archive for each series, no folder in it."""
    scan(root / "packed")
    zipped(root / "packed", root / f"{UID}.zip")
    label(root / "labels" / "label0007.nii.gz")


def zipped_patient(root: Path) -> None:
    scan(root / "packed" / "study" / "series")
    zipped(root / "packed", root / f"{ID}.zip")
    label(root / "labels" / "label0007.nii.gz")


def kept_archives(root: Path) -> None:
    """Unpacked by hand, and the archives kept."""
    zipped_series(root)
    scan(root / UID)
    label(root / "packed" / "label0007.nii.gz")
    zipped(root / "packed", root / "TCIA_pancreas_labels-02-05-2017.zip")


def one_archive(root: Path) -> None:
    retriever(root / "packed")
    zipped(root / "packed", root / "everything.zip")


def archives_in_an_archive(root: Path) -> None:
    zipped_series(root / "packed")
    label(root / "packed" / "l" / "label0007.nii.gz")
    zipped(root / "packed" / "l", root / "packed" / "TCIA_pancreas_labels-02-05-2017.zip")
    shutil.rmtree(root / "packed" / "labels")
    zipped(root / "packed", root / "everything.zip")


def volume(path: Path, order: str = "LAI") -> None:
    """The scan of patient 7 as a NIfTI file whose axes run as ``order`` says."""
    hu = miniature(7)[0]
    made = nibabel.Nifti1Image(hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    axes = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(made.affine), nibabel.orientations.axcodes2ornt(tuple(order))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(made.as_reoriented(axes), path)


def volumes(root: Path) -> None:
    volume(root / f"{ID}.nii.gz")
    label(root / "label0007.nii.gz")


def volumes_turned(root: Path) -> None:
    """As dcm2niix writes them: other axes than the label's, the same place."""
    volume(root / "nifti" / f"{ID}.nii", "LPS")
    label(root / "TCIA_pancreas_labels-02-05-2017" / "label0007.nii.gz")


def volumes_zipped(root: Path) -> None:
    volume(root / "packed" / "images" / f"{ID}.nii.gz", "RAS")
    label(root / "packed" / "labels" / "label0007.nii.gz")
    zipped(root / "packed", root / "all.zip")


LAYOUTS: list[Callable[[Path], None]] = [
    retriever,
    older_names,
    older_downloader,
    quoted,
    no_patient_folder,
    mirror,
    one_folder,
    nested_labels,
    label_folders,
    both_forms,
    zipped_labels,
    zipped_series,
    zipped_patient,
    kept_archives,
    one_archive,
    archives_in_an_archive,
    volumes,
    volumes_turned,
    volumes_zipped,
]
