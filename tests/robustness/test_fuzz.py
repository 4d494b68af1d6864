"""Damaged files of the usual kinds: refused in one sentence, read alike, or told apart."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medaug.core.errors import DataError, MedaugError
from medaug.data import open_source
from medaug.data.formats.volumes import DAMAGE, nifti_header, voxels
from medaug.data.sources.collections.described import described
from medaug.data.sources.pancreas import image_counts
from medaug.runtime.files import write_json
from medaug.synthesis.masks.folder import OwnMasks
from tests.support.script_modules import SCRIPTS, modules_of

SHORT = {"dicom": 45, "nii": 40, "nii-gz": 40, "idx": 45, "idx-gz": 40, "json": 40, "csv": 20,
         "zip": 30}  # fmt: skip
"""Inputs of each kind; 300 in all."""


@pytest.fixture(scope="module")
def fuzzing() -> Iterator[dict[str, ModuleType]]:
    """The modules of the harness, which see each other as top-level ones."""
    names = ("damage", "material", "reading", "kinds", "fuzz")
    with modules_of("fuzzing") as module:
        yield {name: module(name) for name in names}


def test_300_damaged_inputs_are_refused_alike_or_told(
    fuzzing: dict[str, ModuleType], tmp_path: Path
) -> None:
    kinds, fuzz = fuzzing["kinds"].KINDS, fuzzing["fuzz"]
    tried = []
    with closing(fuzz.Worker(tmp_path / "work", limit_s=20.0)) as worker:
        for kind, count in SHORT.items():
            sound = tmp_path / "sound" / kind
            kinds[kind].make(sound)
            tried += list(fuzz.trials(worker, kind, 7, range(count), sound))
    words = Counter(one.outcome for one in tried)
    assert words.total() == 300
    good = ("refused", "alike", "said", "undetectable")
    assert [one for one in tried if one.outcome not in good] == []
    assert words["refused"] > 100
    assert words["alike"] > 20


def test_what_other_code_read_does_not_count(
    fuzzing: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with modules_of("fuzzing") as module:
        fuzz = module("fuzz")
        assert fuzz.sources(SCRIPTS / "fuzzing") != fuzz.sources()
        read = []

        def tried(worker: object, kind: str, seed: int, numbers: range, sound: Path) -> list[Any]:
            read.append((len(numbers), sound.relative_to(tmp_path).parts[0]))
            return [fuzz.Tried(kind, number, "", "alike", "") for number in numbers]

        monkeypatch.setattr(fuzz, "WORK", tmp_path)
        monkeypatch.setattr(fuzz, "trials", tried)
        for program in ("a", "a", "b"):
            monkeypatch.setattr(fuzz, "sources", lambda here, program=program: program)
            assert len(fuzz.counted(None, "json", 3, 0)) == 3
    assert read == [(3, "a"), (0, "a"), (3, "b")]


@pytest.mark.slow
def test_every_other_kind_is_made_and_read(fuzzing: dict[str, ModuleType], tmp_path: Path) -> None:
    kinds, fuzz = fuzzing["kinds"].KINDS, fuzzing["fuzz"]
    tried = []
    with closing(fuzz.Worker(tmp_path / "work", limit_s=20.0)) as worker:
        for kind in kinds.keys() - SHORT.keys():
            sound = tmp_path / "sound" / kind
            kinds[kind].make(sound)
            tried += list(fuzz.trials(worker, kind, 7, range(3), sound))
    good = ("refused", "alike", "said", "undetectable")
    assert [one for one in tried if one.outcome not in good] == []


def test_the_same_seed_damages_alike_and_another_differently(
    fuzzing: dict[str, ModuleType],
) -> None:
    raw = bytes(range(256)) * 8
    damage = fuzzing["damage"].damage
    made = [[damage(raw, Random(f"{seed} {n}")) for n in range(60)] for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert sum(content != raw for content, _ in made[0]) > 50


def test_a_hang_and_a_crash_are_told_from_each_other(
    fuzzing: dict[str, ModuleType], tmp_path: Path
) -> None:
    fuzz = fuzzing["fuzz"]
    (tmp_path / "kinds.py").write_text(
        "import os\nfrom dataclasses import dataclass\nfrom reading import Seen\n\n"
        "@dataclass\nclass Kind:\n    how: str\n    files = ('*.txt',)\n    structured = ''\n"
        "    bare = ()\n\n    def read(self, root):\n"
        "        if (root / 'a.txt').read_bytes() != b'sound':\n"
        "            while self.how == 'hang':\n                pass\n"
        "            if self.how == 'crash':\n                os.abort()\n"
        "            raise KeyError(self.how)\n        return Seen({})\n\n"
        "KINDS = {how: Kind(how) for how in ('hang', 'crash', 'traceback')}\n"
    )
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "a.txt").write_bytes(b"sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "ROOT", tmp_path)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with closing(fuzz.Worker(tmp_path / "work", limit_s=0.5)) as worker:
            for word in ("hang", "crash", "traceback", "crash"):
                assert worker.tried(word, 0, 3, tmp_path / "sound").outcome == word


def test_a_flipped_bit_in_packed_voxels_is_noticed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (24, 24, 8), np.uint8)
    sound = tmp_path / "sound.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), sound)
    np.testing.assert_array_equal(voxels(nibabel.load(sound)), values)
    raw, noticed, missed = sound.read_bytes(), 0, 0
    for place in range(200, len(raw) - 8):
        damaged = bytearray(raw)
        damaged[place] ^= 1
        file = tmp_path / "damaged.nii.gz"
        file.write_bytes(damaged)
        image = nibabel.load(file)
        with suppress(DAMAGE):
            missed += not np.array_equal(np.asanyarray(image.dataobj), values)
        try:
            np.testing.assert_array_equal(voxels(image), values)
        except DAMAGE:
            noticed += 1
    assert noticed >= missed > 0, "nibabel alone takes some of them"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(labels=JSON, channels=JSON, ending=JSON, order=JSON)
def test_any_dataset_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, labels: object, channels: object, ending: object,
    order: object,
) -> None:  # fmt: skip
    path = tmp_path_factory.getbasetemp() / "dataset.json"
    more = {"channel_names": channels, "file_ending": ending, "regions_class_order": order}
    write_json(path, {"labels": labels, **more})
    with suppress(DataError):
        assert all(0 < label.id < 256 for label in described(path).labels)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_list_of_image_counts_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "metadata.csv"
    path.write_bytes(b"Series UID,Number of Images\n1.2,3\n" + content)
    assert all(count >= 0 for count in image_counts(path).values())


def test_a_stray_value_makes_no_label(tmp_path: Path) -> None:
    hu = np.full((16, 16, 8), -100, np.int16)
    mask = np.zeros((16, 16, 8), np.uint8)
    mask[4:9, 4:9, 2:5] = 1
    mask[3, 3, 3] = 129
    for name, array in (("images", hu), ("labels", mask)):
        (tmp_path / name).mkdir()
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / name / "a.nii")
    with pytest.raises(MedaugError, match="hold the value 129 in 1 of all their voxels"):
        _ = open_source(str(tmp_path)).labels


@pytest.mark.parametrize("shape", [(0, 16, 8), (16, 0, 8), (16, 16, 0), (16,)])
def test_an_image_without_voxels_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = tmp_path / "empty.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), file)
    with pytest.raises(DataError, match=r"empty\.nii\.gz has shape"):
        nifti_header(file)
    with pytest.raises(DataError, match=r"not a readable NIfTI file .the shape"):
        OwnMasks(tmp_path, {"pancreas": 1}, {}, 16, 100.0, None)
