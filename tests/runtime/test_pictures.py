"""Pictures: turned the right way, outlined, and the same bytes each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medaug.core.types import Sample
from medaug.runtime.pictures import GAP_PX, OUTLINE, grid, preview_png


def sample(kind: str = "ct") -> Sample:
    image = np.full((32, 32), -160, np.int16) if kind == "ct" else np.zeros((32, 32), np.uint8)
    image[24:, :8] = 240  # anterior, patient's left
    std = np.zeros((32, 32), np.float32)
    std[24:, :8] = 30
    label = np.zeros((32, 32), np.uint8)
    label[4:12, 20:28] = 1
    return Sample(
        index=0,
        image=image,
        label=label if kind == "ct" else None,
        affine=np.eye(4),
        alternatives=image[None],
        alternative_labels=None,
        std=std,
        entropy=None,
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.info == {}
        return np.asarray(picture).astype(int)


def test_ct_is_shown_anterior_up_and_patient_right_on_the_left(tmp_path: Path) -> None:
    (tmp_path / "preview.png").write_bytes(preview_png([sample()]))
    shown = pixels(tmp_path / "preview.png")
    cell = shown[GAP_PX : GAP_PX + 160, GAP_PX : GAP_PX + 160]
    assert (cell[10, 150] == 255).all()
    assert (cell[10, 10] == 0).all()
    spread = shown[GAP_PX : GAP_PX + 160, 2 * GAP_PX + 160 : 2 * GAP_PX + 320]
    assert spread[10, 150].sum() > spread[10, 10].sum()


def test_the_outline_surrounds_the_mask(tmp_path: Path) -> None:
    case = sample()
    assert case.label is not None
    grid(case.image[None], case.label[None], tmp_path / "grid.png")
    cell = pixels(tmp_path / "grid.png")[GAP_PX:, GAP_PX:][:160, :160]
    y, x = np.nonzero((cell == OUTLINE).all(-1))
    # rows 4 to 11 and columns 20 to 27 of 32, both reversed, five times as large
    assert (y.min(), y.max()) == pytest.approx((100, 139), abs=2)
    assert (x.min(), x.max()) == pytest.approx((20, 59), abs=2)
    assert not (cell[120, 40] == OUTLINE).all()


def test_pictures_stay_as_they_are(tmp_path: Path) -> None:
    grid(sample("image").image[None], None, tmp_path / "grid.png")
    cell = pixels(tmp_path / "grid.png")[GAP_PX:, GAP_PX:]
    assert (cell[150, 10] == 240).all()


def test_equal_input_gives_equal_bytes() -> None:
    assert preview_png([sample()] * 5) == preview_png([sample()] * 5)


def test_the_sheet_fits_its_cells(tmp_path: Path) -> None:
    images = np.zeros((10, 32, 32), np.uint8)
    grid(images, None, tmp_path / "grid.png", across=4)
    assert pixels(tmp_path / "grid.png").shape == (3 * 162 + 2, 4 * 162 + 2, 3)
