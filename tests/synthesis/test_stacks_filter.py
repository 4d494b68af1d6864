"""The filter judges stacks whole, and refused ones are drawn anew."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medaug import Generator
from medaug.core.config import DataConfig
from medaug.core.errors import RefusedError
from medaug.data.cache.prepare import SliceCache
from medaug.synthesis.filter import open_filter
from medaug.synthesis.filter.settings import FilterConfig
from medaug.synthesis.request import SMOOTH_MM
from medaug.synthesis.stacks import Stacks
from medaug.synthesis.synthesize import synthesize
from tests.support.stacked import rows


@pytest.fixture(scope="module")
def generator(tiny_run: Path) -> Generator:
    return Generator.from_pretrained(tiny_run, "cpu")


class Strict:
    """Refuses the first draws of a stack, and remembers what it was shown."""

    fingerprint = "f" * 64

    def __init__(self, refuse: int) -> None:
        self.refuse, self.seen = refuse, list[np.ndarray]()

    def judge(self, image: np.ndarray, label: np.ndarray | None) -> list[str]:
        assert image.ndim == 4
        assert label is not None
        assert label.shape == image.shape
        self.seen.append(image[0])
        return ["hu" if len(self.seen) <= self.refuse else ""]


def test_a_refused_stack_is_drawn_anew(generator: Generator, tmp_path: Path) -> None:
    strict = Strict(2)
    report = synthesize(generator, 1, tmp_path / "out", uncertainty=0, stack=5, filter=strict)
    assert report.refused == {"hu": 2}
    assert len(strict.seen) == 3
    (row,) = rows(tmp_path / "out")
    assert row["refused"] == "hu;hu"
    kept = np.asarray(nib.load(tmp_path / "out" / row["image"]).dataobj).T
    assert np.array_equal(kept, strict.seen[2])
    assert not np.array_equal(strict.seen[0], strict.seen[1])
    (plain,) = Stacks(generator, 5, SMOOTH_MM).block(0, uncertainty=0)
    assert np.array_equal(plain.image, strict.seen[0])
    with pytest.raises(RefusedError, match="sample 0 was refused 64 times, mostly for 'hu'"):
        Stacks(generator, 2, SMOOTH_MM).block(0, uncertainty=0, judge=Strict(99).judge)


def test_the_filter_judges_every_slice_of_a_stack(phantom_cache: Path, tmp_path: Path) -> None:
    cache, data = SliceCache.open(phantom_cache), DataConfig(size=32)
    quick = FilterConfig(segmenter_images=8, folds=2, copy_share=None, agreement_margin=None)
    place = tmp_path / "filter.safetensors"
    filter = open_filter(place, quick, cache=cache, data=data)
    case = cache.cases[cache.split["train"][0]]
    assert case.label is not None
    used = np.flatnonzero(case.label_pixels["pancreas"] >= data.min_label_pixels)
    good = [i for i in used if filter.judge(case.image[i : i + 1], case.label[i : i + 1]) == [""]]
    image, label = (np.repeat(np.asarray(a[good[:1]]), 10, 0) for a in (case.image, case.label))
    bad = label.copy()
    bad[:2] = 0
    worse = bad.copy()
    worse[2] = 0
    assert filter.judge(np.stack([image] * 3), np.stack([label, bad, worse])) == ["", "", "empty"]
    assert filter.judge(image, worse) == ["empty"] * 3 + [""] * 7
    none = open_filter(place, quick.model_copy(update={"stack_share": 0.0}))
    assert none.judge(image[None], bad[None]) == ["empty"]
    assert none.fingerprint != filter.fingerprint
    close = open_filter(place, quick.model_copy(update={"copy_share": 0.5, "stack_share": 1.0}))
    assert close.judge(image[None], worse[None]) == ["copy"]
