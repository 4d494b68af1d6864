"""Damage to what is read again is found by its checksum: caches, weights, manifests, parts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from medaug.core.errors import CacheError, RunError, WeightsError
from medaug.data import open_source
from medaug.data.cache.prepare import CacheSettings, SliceCache, prepare
from medaug.data.cache.store import sealed_case, unsealed_case
from medaug.runtime.files import read_checked, sealed, unsealed, write_checked
from medaug.runtime.resources import sentence
from medaug.synthesis import journal
from medaug.synthesis.generator import Generator
from medaug.synthesis.manifest import files_crc32
from medaug.synthesis.synthesize import synthesize
from medaug.training.checkpoint import load_state, read_tensors, save_state, sound, write_tensors
from medaug.training.run import read_facts
from tests.support.trees import tree


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_a_seal_is_over_all_of_the_content() -> None:
    whole = sealed({"b": [1, 2.5], "a": {"c": None}})
    assert unsealed(whole) == {"a": {"c": None}, "b": [1, 2.5]}
    assert unsealed({"a": 1}) == {"a": 1}
    for wrong in ({**whole, "b": [1, 2.25]}, {**whole, "d": 0}, [whole]):
        with pytest.raises(ValueError):
            unsealed(wrong)


def test_bytes_carry_their_checksum(tmp_path: Path) -> None:
    write_checked(tmp_path / "a", b"content")
    assert read_checked(tmp_path / "a") == b"content"
    for at in (0, -1):
        flip(tmp_path / "a", at)
        with pytest.raises(ValueError, match="does not match its checksum"):
            read_checked(tmp_path / "a")
        flip(tmp_path / "a", at)


def test_weight_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(5.0), "a": torch.ones(3, dtype=torch.int64)}
    seen = set()
    for _ in range(20):
        write_tensors(tmp_path / "w", tensors, {"name": "ü"})
        seen.add((tmp_path / "w").read_bytes())
    assert len(seen) == 1
    found, header, _ = read_tensors(tmp_path / "w")
    assert header["name"] == "ü"
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_every_byte_of_a_weight_file_is_guarded(tmp_path: Path) -> None:
    path = tmp_path / "w"
    write_tensors(path, {"a": torch.arange(9.0), "b": torch.ones(2).half()}, {"x": [1, 2]})
    whole = path.read_bytes()
    wanted = read_tensors(path)
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = read_tensors(path)
        except WeightsError:
            continue
        assert found[1:] == wanted[1:], place  # as where a blank of the header became a tab
        assert all(torch.equal(found[0][k], wanted[0][k]) for k in wanted[0])


def test_a_state_that_is_no_number_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_state(tmp_path, 10, {"a": torch.zeros(2)})
    save_state(tmp_path, 20, {"a": torch.tensor([0.0, torch.nan])})
    state = load_state(tmp_path)
    assert state is not None
    assert state[0] == 10
    assert "a holds values that are not finite numbers" in capsys.readouterr().err


def test_weights_that_are_no_numbers_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    tensors, header, _ = read_tensors(tiny_run / "model.safetensors")
    name = next(k for k, v in tensors.items() if v.is_floating_point())
    tensors[name] = torch.full_like(tensors[name], torch.inf)
    write_tensors(tmp_path / "bad", tensors, header)
    assert sound(tmp_path / "bad")
    with pytest.raises(WeightsError, match=f"{name} holds values that are not finite numbers"):
        Generator.from_pretrained(tmp_path / "bad", "cpu")


def test_a_damaged_run_json_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_run / "run.json", tmp_path)
    assert read_facts(tmp_path)["_precision"] == "float32"
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace("float32", "float22"))
    with pytest.raises(RunError, match=r"its run.json is damaged"):
        read_facts(tmp_path)


def both_arrays(cache: Path) -> list[np.ndarray | None]:
    case = SliceCache.open(cache).cases["PANCREAS_0002"]
    return [case.image, case.label]


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "case.json"])
def test_a_damaged_case_is_refused_and_cut_anew(
    name: str, phantom_root: Path, phantom_cache: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(phantom_cache, cache)
    file = cache / "cases" / "PANCREAS_0002" / name
    flip(file, -9)
    with pytest.raises(CacheError, match=f"PANCREAS_0002.*{name}.*damaged"):
        both_arrays(cache)
    settings = CacheSettings(size=32, holdout=0.25)
    report = prepare(open_source(str(phantom_root)), cache, settings, 0)
    assert list(report.changed) == ["PANCREAS_0002"]
    assert name in report.changed["PANCREAS_0002"]
    assert tree(cache, ".lock") == tree(phantom_cache, ".lock")


def test_a_damaged_index_is_refused(phantom_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(phantom_cache, cache)
    text = (cache / "cache.json").read_text()
    (cache / "cache.json").write_text(text.replace('"complete": true', '"complete": 1'))
    with pytest.raises(CacheError, match=r"cache.json is damaged"):
        SliceCache.open(cache)


def test_notes_of_a_case_are_sealed_and_older_cases_are_read() -> None:
    whole = sealed_case({"affine": [1], "sha256": {}, "doubts": {"grid": "a"}})
    assert unsealed_case(whole)["doubts"] == {"grid": "a"}
    with pytest.raises(ValueError):
        unsealed_case({**whole, "doubts": {"grid": "b"}})
    older = {key: value for key, value in whole.items() if key != "check"}
    assert unsealed_case({**older, "doubts": {"grid": "b"}})["doubts"] == {"grid": "b"}
    with pytest.raises(ValueError):
        unsealed_case({**older, "affine": [2]})
    with pytest.raises(ValueError):
        unsealed_case({key: value for key, value in whole.items() if key != "digest"})


@pytest.mark.parametrize("victim", ["manifest.csv", "imagesTr", "uncertainty", "row"])
def test_damaged_samples_and_rows_are_written_anew(
    victim: str, tiny_run: Path, tmp_path: Path
) -> None:
    generator = Generator.from_pretrained(tiny_run, "cpu")
    out = tmp_path / "out"
    options = {"uncertainty": 2, "format": "nifti"}
    synthesize(generator, 4, out, **options)
    whole = tree(out)
    path = out / victim if victim in ("manifest.csv", "imagesTr", "uncertainty") else out
    if path.is_dir() and victim != "row":
        path = sorted(path.iterdir())[1]
    if victim == "row":
        path = out / "manifest.csv"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:2] + lines[3:]))
    else:
        flip(path, -30 if path.name == "manifest.csv" else -5)
    report = synthesize(generator, 4, out, **options)
    assert report.written == 1
    assert tree(out) == whole


def test_a_row_says_what_its_files_hold(tiny_run: Path, tmp_path: Path) -> None:
    generator = Generator.from_pretrained(tiny_run, "cpu")
    synthesize(generator, 2, tmp_path, uncertainty=2, format="nifti")
    row = journal.read(tmp_path)[1]
    roles = ("image", "label", "std", "entropy", "samples", "masks")
    contents = [(tmp_path / row[role]).read_bytes() for role in roles if row[role]]
    assert row["files_crc32"] == files_crc32(contents)
    assert json.loads((tmp_path / "run.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(24, "Too many open files", "a.npy"), "too many open files"),
        (OSError(28, "No space", "a.npy"), "a.npy: no space left on the disk"),
        (RuntimeError("can't start new thread"), "no more processes or threads"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (RuntimeError("could not create a primitive"), "not enough memory"),
        (RuntimeError("could not create a primitive descriptor for a convolution"), ""),
        (OSError("could not get source code"), "not enough memory"),
        (KeyError("x"), ""),
        (OSError("odd"), ""),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error: Exception, words: str) -> None:
    assert sentence(error).startswith(words)
    assert bool(sentence(error)) == bool(words)
