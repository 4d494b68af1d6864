"""What copies are sought among: all that a generator has seen, as far as that is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.sources.unlabeled import Unlabeled
from medaug.evaluation.families.privacy import measure
from medaug.evaluation.slices.evidence import Evidence, SliceSet, real_slices
from medaug.evaluation.slices.seen import Seen, exposure
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.loop import fit
from tests.conftest import TINY
from tests.support.evaluated import settled

WINDOW = (-160.0, 240.0)
CUT = CacheSettings(size=32, holdout=0.0)


def strangers(root: Path, seed: int) -> SliceCache:
    """Two other phantom patients, cut alike, without their labels."""
    from medaug.data.sources.phantom import source

    source.write(root / "there", 2, seed, (64, 64, 20), (6.0, 6.0, 9.5))
    for masks in (root / "there").rglob("*.nii.gz"):
        masks.unlink()
    prepare(Unlabeled(root / "there"), root / "cache", CUT, 0)
    return SliceCache.open(root / "cache")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> SliceCache:
    return strangers(tmp_path_factory.mktemp("bare"), 99)


@pytest.fixture(scope="module")
def joined(phantom_cache: Path, bare: SliceCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that scans without labels have joined."""
    run = tmp_path_factory.mktemp("runs") / "joined"
    cache = SliceCache.open(phantom_cache)
    fit(resolve(TINY, {"train": {"images": 16}}), cache, run, device="cpu", unlabeled=bare)
    return run


def test_every_slice_of_every_training_scan_is_seen(phantom_cache: Path) -> None:
    cache = SliceCache.open(phantom_cache)
    seen = exposure(cache, None).slices(WINDOW)
    training = [cache.cases[name] for name in cache.split["train"]]
    assert len(seen) == sum(len(case.image) for case in training)
    assert len(seen) > len(real_slices(cache, "train", WINDOW))
    whole = np.concatenate([case.image for case in training]).clip(*WINDOW)
    assert np.array_equal(np.concatenate(list(seen.parts())), whole)
    for index in (0, len(training[0].image) - 1, len(training[0].image), len(seen) - 1):
        assert np.array_equal(seen.image(index), whole[index])
    first = training[1].id
    assert seen.cases[len(training[0].image)] == first
    assert seen.heights[len(training[0].image)] == 0


def copies_of(part: SliceSet, seen: Seen, cache: SliceCache) -> list[dict]:
    """The listed copies among five synthetic slices that are a scan's, beside others."""
    heldout = real_slices(cache, "heldout", WINDOW)
    images = heldout.images.copy()
    images[:5] = part.images[8:13]
    names = [f"syn_{i}" for i in range(len(images))]
    made = replace(heldout, images=images, labels=None, cases=names, names={})
    evidence = Evidence(made, real_slices(cache, "train", WINDOW), heldout, WINDOW)
    found = measure(evidence, seen=seen).details["copies"]["listed"]
    return [match for match in found if match["synthetic"] in names[:5]]


def test_copies_of_scans_without_a_label_are_listed(
    phantom_cache: Path, bare: SliceCache, joined: Path
) -> None:
    cache = SliceCache.open(phantom_cache)
    scan = next(iter(bare.cases.values()))
    images = scan.image.clip(*WINDOW).astype(np.int16)
    places = np.arange(len(images))
    part = SliceSet(images, None, [scan.id] * len(images), places, 1.0, 1.0, {})
    listed = copies_of(part, exposure(cache, joined).slices(WINDOW), cache)
    assert {(match["training"], match["training_slice"]) for match in listed} == {
        (scan.id, place) for place in range(8, 13)
    }
    assert len(copies_of(part, exposure(cache, None).slices(WINDOW), cache)) < 5


def test_what_is_gone_is_told(phantom_cache: Path, joined: Path, tmp_path: Path) -> None:
    cache, run = SliceCache.open(phantom_cache), tmp_path / "elsewhere" / "run"
    run.mkdir(parents=True)
    for file in ("run.json", "model.safetensors"):
        (run / file).write_bytes((joined / file).read_bytes())
    assert exposure(cache, run).unknown == [
        "The scans without labels that joined the training are not there any more: copies of "
        "them cannot be found."
    ]
    assert exposure(cache, joined).unknown == []
    assert exposure(cache, run / "model.safetensors").unknown[0].startswith("A weight file does")


def test_scans_that_the_run_was_trained_on_cannot_be_held_out(
    phantom_root: Path, tiny_run: Path, tmp_path: Path
) -> None:
    prepare(open_source(str(phantom_root)), tmp_path / "c", CacheSettings(size=32, holdout=0.5), 0)
    other = SliceCache.open(tmp_path / "c")
    with pytest.raises(ConfigError, match=r"holds out 1 scans that .* was trained on, such as"):
        exposure(other, tiny_run)
    with pytest.raises(ConfigError, match="so its figures would flatter"):
        settled(None, other.path, tiny_run)


def test_a_run_that_did_not_draw_the_folder_is_refused(
    phantom_cache: Path, tiny_run: Path, joined: Path, tmp_path: Path
) -> None:
    synthesize(Generator.from_pretrained(tiny_run, "cpu"), 2, tmp_path / "syn", format="nifti")
    assert settled(tmp_path / "syn", phantom_cache, tiny_run).run == tiny_run
    with pytest.raises(ConfigError, match=r"drawn by other weights than those .* holds now"):
        settled(tmp_path / "syn", phantom_cache, joined)
