"""Names, dates and numbers of patients never leave the user's files: searched for byte by byte."""

import gzip
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from medaug.data.sources.phantom.source import draw
from tests.conftest import TINY, Medaug, write_series

SECRETS = (b"KRAUSE", b"QUILLFEATHER", b"19530917", b"1953-09-17", b"MRN7719", b"2.25.7719")
TEXT = {
    "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "PatientAddress", "PatientComments", "PatientTelephoneNumbers", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy", "InstitutionName",
    "InstitutionAddress", "StationName", "InstitutionalDepartmentName", "StudyDescription",
    "SeriesDescription", "ImageComments", "AdditionalPatientHistory", "Occupation",
    "ProtocolName", "Manufacturer", "ManufacturerModelName", "RequestingPhysician",
}  # fmt: skip
NUMBERS = {
    "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyID", "DeviceSerialNumber",
    "IssuerOfPatientID", "AdmissionID", "MedicalRecordLocator",
    "FillerOrderNumberImagingServiceRequest",
}  # fmt: skip
DATES = {
    "PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate",
    "InstanceCreationDate", "DateOfLastCalibration",
}  # fmt: skip
SHAPE, SPACING = (64, 64, 20), (6.0, 6.0, 9.5)


def plant(file: Path) -> None:
    """Fill every field that could identify somebody, also in a sequence and a private block."""
    data = pydicom.dcmread(file)
    for names, value in ((TEXT, "KRAUSE^QUILLFEATHER"), (NUMBERS, "MRN7719"), (DATES, "19530917")):
        for name in names:
            tag = tag_for_keyword(name)
            if tag is not None:
                data.add_new(tag, dictionary_VR(tag), value[:16])
    item = Dataset()
    item.PatientName, item.PatientID = "KRAUSE^QUILLFEATHER", "MRN7719"
    data.ReferencedPatientSequence = [item]
    data.private_block(0x0011, "KRAUSE", create=True).add_new(1, "LO", "MRN7719")
    data.SeriesInstanceUID = data.SeriesInstanceUID.replace("1.2.826", "2.25.7719")
    data.StudyInstanceUID = "2.25.7719.1"
    data.save_as(file, enforce_file_format=True)


def scans(root: Path) -> None:
    """Labelled NIfTI scans, and a DICOM series without labels, named and filled with secrets."""
    for number in range(4):
        hu, labels, _ = draw(number, SHAPE, SPACING)
        for folder, array in (("images", hu), ("labels", labels)):
            (root / "KRAUSE_MRN7719" / folder).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(np.ascontiguousarray(array), np.diag([*SPACING, 1.0]))
            image.header["descrip"] = b"KRAUSE QUILLFEATHER 1953-09-17"
            image.header["aux_file"] = b"MRN7719"
            image.header["db_name"] = b"KRAUSE"
            image.header["intent_name"] = b"QUILLFEATHER"
            extension = nibabel.nifti1.Nifti1Extension("comment", b"KRAUSE MRN7719 19530917")
            image.header.extensions.append(extension)
            nibabel.save(image, root / "KRAUSE_MRN7719" / folder / f"case{number}.nii.gz")
    beside = root / "unlabeled" / "KRAUSE_MRN7719" / "QUILLFEATHER 19530917.nii.gz"
    beside.parent.mkdir(parents=True)
    hu, _, _ = draw(5, SHAPE, SPACING)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(hu), np.diag([*SPACING, 1.0])), beside)
    damaged = root / "KRAUSE_MRN7719" / "images" / "case9.nii.gz"
    shutil.copy(root / "KRAUSE_MRN7719" / "images" / "case0.nii.gz", damaged)
    shutil.copy(root / "KRAUSE_MRN7719" / "labels" / "case0.nii.gz",
                root / "KRAUSE_MRN7719" / "labels" / "case9.nii.gz")  # fmt: skip
    damaged.write_bytes(damaged.read_bytes()[:-4000])
    hu, _, _ = draw(7, SHAPE, SPACING)
    series = root / "unlabeled" / "KRAUSE_QUILLFEATHER" / "19530917"
    for file in write_series(
        series, "MRN7719_0001", hu[::-1, :, ::-1], SPACING, "KRAUSE-{:03d}.dcm"
    ):
        plant(file)


def products(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            content = file.read_bytes()
            yield file, content
            if file.name.endswith(".gz"):
                yield file, gzip.decompress(content)


@pytest.mark.long
@pytest.mark.parametrize("form", ["nifti", "dicom"])
def test_nothing_that_names_a_patient_is_in_any_product(
    medaug: Medaug, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, made = tmp_path / "given", tmp_path / "made"
    scans(given)
    made.mkdir()
    monkeypatch.chdir(made)
    data = given / "KRAUSE_MRN7719"
    small = [f"--set={section}.{key}={value}" for section, part in TINY.items()
             for key, value in part.items()]  # fmt: skip
    small = [word.replace(" ", "") for word in small]
    inspected = medaug("inspect", data)
    assert inspected.code == 1
    assert "case9.nii.gz is truncated" in inspected.out
    assert medaug("prepare", data, "--size", 32).code == 1
    unlabeled = ["--unlabeled", given / "unlabeled"]
    trained = medaug("train", "--data", data, *unlabeled, "--device", "cpu", "--json", *small)
    assert trained.code == 0, trained.err
    run = Path(trained.json["run"])
    words = ["--run", run, "--device", "cpu", "--no-filter", "--format", form]
    looked = medaug("inspect", given / "unlabeled", "--out", made / "page.html")
    assert looked.code == 0, looked.err
    assert "KRAUSE_QUILLFEATHER" in looked.out
    drawn = medaug("synthesize", "-n", 2, "--out", "drawn", *words)
    assert drawn.code == 0, drawn.err
    if form == "nifti":
        cache = next(
            p.parent for p in (made / "cache").glob("*/cache.json") if "unlab" not in str(p)
        )
        sides = {"--synthetic": "QUILLFEATHER_drawn", "--against": "KRAUSE_cache"}
        for place, name in zip((made / "drawn", cache), sides.values(), strict=True):
            shutil.copytree(place, given / name)
        asked = [word for flag, name in sides.items() for word in (flag, given / name)]
        told = medaug("evaluate", "--out", "report", *asked, "--families", "fidelity")
        assert told.code == 0, told.err
    found = list(products(made))
    names = {file.name for file, _ in found}
    assert {"cache.json", "run.json", "model.safetensors", "medaug-quality.html"} <= names
    for file, content in found:
        for secret in SECRETS:
            assert secret not in content, (file, secret)
            assert secret.decode() not in str(file.relative_to(made)), file
    (data / "images" / "case9.nii.gz").unlink()
    planted = b"".join(content for _, content in products(given))
    assert all(secret in planted for secret in SECRETS), "the search would find them"


def test_a_series_is_called_by_a_hash_and_its_patient_is_not_kept(tmp_path: Path) -> None:
    from medaug.data.cache.prepare import CacheSettings, prepare
    from medaug.data.sources.unlabeled import Unlabeled

    scans(tmp_path / "given")
    source = Unlabeled(tmp_path / "given" / "unlabeled")
    prepare(source, tmp_path / "cache", CacheSettings(size=32, holdout=0.0), 0)
    for file, content in products(tmp_path / "cache"):
        for secret in SECRETS:
            assert secret not in content + str(file.relative_to(tmp_path)).encode()
