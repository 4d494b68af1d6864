"""Written with one library, read back with another."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.ndimage import center_of_mass

from medaug.core.errors import DataError
from medaug.core.types import Sample
from medaug.synthesis.writers import ROLES, open_writer
from medaug.synthesis.writers.nifti import Nifti, read
from medaug.synthesis.writers.png import Png

AFFINE = np.array([[2.5, 0, 0, -187.5], [0, 3.125, 0, -231], [0, 0, 1.5, 42], [0, 0, 0, 1.0]])
LPS_TO_RAS = np.diag([-1, -1, 1])


def sample(dtype: Any = np.int16, k: int = 3) -> Sample:
    rng = np.random.default_rng(0)
    low, high = (-160, 240) if dtype == np.int16 else (0, 255)
    images = rng.integers(low, high, (k + 1, 10, 14)).astype(dtype)
    label = np.zeros((10, 14), np.uint8)
    label[2:4, 8:13] = 1
    return Sample(
        index=7,
        image=images[0],
        label=label,
        affine=AFFINE,
        alternatives=images[1:],
        alternative_labels=np.repeat(label[None], k, 0),
        std=images[1:].std(0).astype(np.float32) if k else np.zeros((10, 14), np.float32),
        entropy=rng.random((10, 14)).astype(np.float32),
    )


def written(folder: Path, form: str, case: Sample) -> dict[str, Path]:
    paths = {}
    for role, (name, content) in open_writer(form)[1].files(case, "syn_000007", 1).items():
        paths[role] = folder / name
        paths[role].parent.mkdir(exist_ok=True)
        paths[role].write_bytes(content)
    return paths


def row(folder: Path, paths: dict[str, Path], kind: str = "ct") -> dict[str, str]:
    names = {role: str(path.relative_to(folder)) for role, path in paths.items()}
    rest = {"index": "7", "kind": kind, "spacing_x_mm": "2.5", "spacing_y_mm": "3.125"}
    return dict.fromkeys(ROLES, "") | names | rest


def test_auto_follows_the_kind() -> None:
    assert open_writer("auto", "ct")[0] == "nifti"
    assert open_writer("auto", "image")[0] == "png"


def test_simpleitk_reads_what_was_written(tmp_path: Path) -> None:
    case = sample()
    paths = written(tmp_path, "nifti", case)
    wanted = {
        "image": (case.image, sitk.sitkInt16),
        "label": (case.label, sitk.sitkUInt8),
        "std": (case.std, sitk.sitkFloat32),
        "entropy": (case.entropy, sitk.sitkFloat32),
    }
    for role, (array, kind) in wanted.items():
        image = sitk.ReadImage(str(paths[role]))
        assert image.GetPixelID() == kind
        assert image.GetSize() == (14, 10, 1)
        assert np.array_equal(sitk.GetArrayFromImage(image)[0], array)
        assert image.GetSpacing() == pytest.approx((2.5, 3.125, 1.5))
        assert LPS_TO_RAS @ image.GetOrigin() == pytest.approx(AFFINE[:3, 3])
        assert image.GetMetaData("qform_code") == image.GetMetaData("sform_code") == "1"
        assert "synthetic" in image.GetMetaData("descrip")
    for role, stack in (("samples", case.alternatives), ("masks", case.alternative_labels)):
        image = sitk.ReadImage(str(paths[role]))
        assert image.GetSize() == (14, 10, 1, 3)
        assert np.array_equal(sitk.GetArrayFromImage(image)[:, 0], stack)


def test_image_and_mask_are_in_register_and_where_the_affine_says(tmp_path: Path) -> None:
    case = sample()
    case.image[:] = -100
    case.image[2:4, 8:13] = 120
    paths = written(tmp_path, "nifti", case)
    image, mask = sitk.ReadImage(str(paths["image"])), sitk.ReadImage(str(paths["label"]))
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(mask)
    bright = sitk.LabelShapeStatisticsImageFilter()
    bright.Execute(sitk.BinaryThreshold(image, 100, 200))
    assert shape.GetCentroid(1) == pytest.approx(bright.GetCentroid(1))
    assert case.label is not None
    y, x = center_of_mass(case.label)
    expected = (AFFINE @ [x, y, 0, 1])[:3]
    assert LPS_TO_RAS @ shape.GetCentroid(1) == pytest.approx(expected)
    assert shape.GetPhysicalSize(1) == pytest.approx(10 * 2.5 * 3.125 * 1.5)


def test_qform_and_sform_agree(tmp_path: Path) -> None:
    for path in written(tmp_path, "nifti", sample()).values():
        image = nib.load(path)
        assert np.allclose(image.get_qform(), AFFINE)
        assert np.allclose(image.get_sform(), AFFINE)
        assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("form", ["nifti", "png"])
def test_equal_samples_give_equal_bytes_that_hold_no_time(form: str) -> None:
    _, writer = open_writer(form)
    first, second = (writer.files(sample(), "syn_000007", 1) for _ in range(2))
    assert first == second
    if form == "nifti":
        assert all(content[3:8] == bytes(5) for _, content in first.values())


def test_levels_change_the_size_and_not_the_content() -> None:
    case = sample()
    contents = [Nifti().files(case, "a", level)["samples"][1] for level in (0, 9)]
    assert len(contents[0]) > len(contents[1])
    assert gzip.decompress(contents[0]) == gzip.decompress(contents[1])


def test_what_a_sample_lacks_is_left_out() -> None:
    case = sample(k=0)
    assert set(Nifti().files(case, "a", 1)) == {"image", "label"}
    assert set(Png().files(case, "a", 1)) == {"image", "label"}


def test_nifti_comes_back(tmp_path: Path) -> None:
    case = sample()
    back = Nifti().read(tmp_path, row(tmp_path, written(tmp_path, "nifti", case)))
    assert back.index == 7
    assert np.array_equal(back.image, case.image)
    assert np.array_equal(back.label, case.label)
    assert np.array_equal(back.std, case.std)
    assert np.allclose(back.affine, AFFINE)
    assert back.image.dtype == np.int16


def test_pictures_come_back_as_png(tmp_path: Path) -> None:
    case = sample(np.uint8)
    paths = written(tmp_path, "png", case)
    back = Png().read(tmp_path, row(tmp_path, paths, "image"))
    assert np.array_equal(back.image, case.image)
    assert np.array_equal(back.std, np.rint(case.std))
    with Image.open(paths["samples"]) as strip:
        assert strip.size == (3 * 14, 10)
        assert strip.info == {}


def test_ct_as_png_is_windowed_and_upright(tmp_path: Path) -> None:
    case = sample()
    case.image[:] = -160
    case.image[-1, 0] = 240  # the most anterior row, at the patient's left
    paths = written(tmp_path, "png", case)
    with Image.open(paths["image"]) as picture:
        shown = np.asarray(picture)
    assert shown[0, -1] == 255
    assert shown.sum() == 255
    back = Png().read(tmp_path, row(tmp_path, paths))
    assert np.array_equal(back.label, case.label)
    assert back.image[-1, 0] == 255


@pytest.mark.parametrize("content", [None, b"", b"not a file of any kind", b"\x1f\x8b\x08\x00cut"])
@pytest.mark.parametrize("form", ["nifti", "png"])
def test_damaged_files_are_named(tmp_path: Path, form: str, content: bytes | None) -> None:
    paths = written(tmp_path, form, sample())
    names = row(tmp_path, paths)
    if content is None:
        paths["image"].unlink()
    else:
        paths["image"].write_bytes(content)
    with pytest.raises(DataError) as error:
        open_writer(form)[1].read(tmp_path, names)
    reason = "no such file, though" if content is None else "not a readable"
    assert str(error.value).startswith(f"{paths['image']}: {reason}")


def test_a_truncated_nifti_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "nifti", sample())["image"]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a readable NIfTI file"):
        read(path)
