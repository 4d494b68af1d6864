"""Drawing by torch.compile: what goes through it, what stays as it is, and what the folder says."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medaug import Generator
from medaug.core.errors import ConfigError
from medaug.synthesis import compile as compiling
from medaug.synthesis.stacks import Stacks
from tests.conftest import TINY, Medaug
from tests.support.small_models import SHAPES, SMALL, make

Written = Callable[..., Any]


@pytest.fixture
def rows_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How many rows each compiled call had; nothing is compiled."""
    seen: list[int] = []

    def compile(written: Written, **_: Any) -> Written:
        def called(x: torch.Tensor, *others: Any) -> Any:
            seen.append(len(x))
            return written(x, *others)

        return called

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setenv(compiling.CACHE, str(tmp_path))
    return seen


def generator(run: Path, stacks: Sequence[int] = (0,)) -> Generator:
    made = Generator.from_pretrained(run, "cpu")
    for stack in stacks:
        made.compile(stack)
    return made


def test_whole_blocks_are_compiled_and_nothing_else_is(
    tiny_run: Path, rows_compiled: list[int]
) -> None:
    plain, fast = generator(tiny_run, []), generator(tiny_run)
    rows_compiled.clear()
    (wanted,), (found,) = (g.generate(1, uncertainty=1) for g in (plain, fast))
    steps = 2 * TINY["model"]["prior"]["steps"]  # type: ignore[index]
    heun = range(steps - 1, 3 * steps + 1)  # to the code, half of the way back, and there again
    assert set(rows_compiled) == {fast.block_size}
    assert len(rows_compiled) - 2 in heun, "each of the flow's steps, and the decoder twice"
    assert np.array_equal(wanted.image, found.image)
    rows_compiled.clear()
    assert found.label is not None
    fast.vary(np.stack([found.image] * 3), np.stack([found.label] * 3))
    assert not rows_compiled


@pytest.mark.parametrize(("name", "preset"), SMALL)
def test_every_model_draws_through_it(name: str, preset: str, rows_compiled: list[int]) -> None:
    model = make(name, preset, SHAPES[0]).eval()
    model.drop_discriminators()
    noise = torch.randn(4, *model.noise_shape)
    with torch.inference_mode():
        wanted = model.decode(model.prior(noise, None), None)
        compiling.compile_networks(model, 4)
        rows_compiled.clear()
        found = model.decode(model.prior(noise, None), None)
    assert torch.equal(found, wanted)
    assert set(rows_compiled) == {4}


def test_samples_drawn_anew_go_through_the_networks_as_they_are(
    tiny_run: Path, rows_compiled: list[int]
) -> None:
    fast = generator(tiny_run)
    rows_compiled.clear()
    asked = []

    def judge(images: np.ndarray, labels: np.ndarray | None) -> list[str]:
        asked.append(len(images))
        return ["odd" if len(asked) == 1 and i < 3 else "" for i in range(len(images))]

    fast.block(0, uncertainty=0, judge=judge)
    assert asked == [fast.block_size, 3]
    assert set(rows_compiled) == {fast.block_size}


@pytest.mark.parametrize(("slices", "rows"), [(5, {5}), (16, {16}), (21, {16})])
def test_a_stack_is_compiled_for_the_slices_that_are_drawn_at_once(
    tiny_run: Path, rows_compiled: list[int], slices: int, rows: set[int]
) -> None:
    fast = generator(tiny_run, [slices])
    rows_compiled.clear()
    Stacks(fast, slices, 0).block(0, uncertainty=0)
    assert set(rows_compiled) == rows


def test_blocks_and_stacks_may_both_be_compiled(tiny_run: Path, rows_compiled: list[int]) -> None:
    fast = generator(tiny_run, [0, 5, 0, 5])
    for n in (fast.block_size, 5, 4):
        rows_compiled.clear()
        fast.decode(torch.zeros(n, *fast.model.noise_shape))
        assert rows_compiled == ([n] if n != 4 else [])


def test_the_folder_says_compiled_of_what_is(tiny_run: Path, rows_compiled: list[int]) -> None:
    single, stacked = generator(tiny_run), generator(tiny_run, [5])
    said = [
        (g.depends_on("latent", 0)["compiled"], Stacks(g, 5, 0).depends_on("latent", 0)["compiled"])
        for g in (single, stacked)
    ]
    assert said == [(True, None), (None, True)]


def test_what_is_compiled_is_kept_where_nobody_else_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path, rows_compiled: list[int]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for given in (None, str(Path(tempfile.gettempdir()) / "torchinductor_somebody")):
        if given is None:
            monkeypatch.delenv(compiling.CACHE)
        else:
            monkeypatch.setenv(compiling.CACHE, given)
        generator(tiny_run)
        assert os.environ[compiling.CACHE] == str(tmp_path / "medaug" / "compiled")
    monkeypatch.setenv(compiling.CACHE, str(tmp_path / "own"))
    generator(tiny_run)
    assert os.environ[compiling.CACHE] == str(tmp_path / "own")


def test_a_machine_that_cannot_compile_is_told_so_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Path
) -> None:
    def compile(written: Written, **_: Any) -> Written:
        def called(*_: Any) -> Any:
            raise RuntimeError("No working C++ compiler found\nand much more")

        return called

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setenv(compiling.CACHE, str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^compile: .*\(No working C\+\+ compiler found\); leave"
    ):
        generator(tiny_run)


def test_a_compiled_folder_says_so_and_is_not_mixed(
    medaug: Medaug, tiny_run: Path, rows_compiled: list[int]
) -> None:
    words = ["synthesize", "--out", "out", "--run", tiny_run, "--uncertainty", 0, "--no-filter"]
    assert medaug(*words, "-n", 1, "--compile").code == 0
    assert json.loads(Path("out/run.json").read_text())["settings"]["compiled"] is True
    assert rows_compiled.count(16) > 1
    mixed = medaug(*words, "-n", 2)
    assert mixed.code == 2
    assert "holds samples made with compiled True, asked for compiled none" in mixed.err


@pytest.mark.slow
def test_samples_by_torch_compile_are_those_of_the_networks_but_for_rounding(
    tiny_run: Path, tmp_path: Path
) -> None:
    kept = {"XDG_CACHE_HOME": str(tmp_path / "kept"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != compiling.CACHE}
    words = ["synthesize", "-n", "4", "--run", str(tiny_run), "--uncertainty", "1", "--no-filter"]
    for name, more in (("plain", []), ("compiled", ["--compile"]), ("again", ["--compile"])):
        subprocess.run(
            [sys.executable, "-m", "medaug", *words, "--out", str(tmp_path / name), *more],
            check=True,
            env=environment | kept,
            capture_output=True,
        )
    assert any((tmp_path / "kept" / "medaug" / "compiled").iterdir())
    plain, compiled, again = (
        {
            str(path.relative_to(tmp_path / name)): path
            for path in sorted((tmp_path / name).rglob("*_0000.nii.gz"))
        }
        for name in ("plain", "compiled", "again")
    )
    assert len(plain) == 4
    for name, path in plain.items():
        first, second = (nib.load(p).get_fdata() for p in (path, compiled[name]))
        assert np.abs(first - second).max() <= 2
        assert compiled[name].read_bytes() == again[name].read_bytes()


@pytest.mark.long
def test_a_missing_compiler_is_told_by_the_command(tiny_run: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": str(tmp_path / "none"), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop(compiling.CACHE, None)
    words = ["synthesize", "-n", "1", "--run", str(tiny_run), "--no-filter", "--compile"]
    done = subprocess.run(
        [sys.executable, "-m", "medaug", *words, "--out", str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("medaug: compile: torch.compile does not work on this machine (")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
