"""The loop: exact resumption, guards, settings that may not change, and what a run folder holds."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medaug.core.config import Config, resolve
from medaug.core.errors import ConfigError, DataError, OutputError, RunError, TrainingError
from medaug.data.cache.prepare import SliceCache
from medaug.models import spatial_vaegan
from medaug.runtime import files
from medaug.runtime.files import exclusive
from medaug.training.checkpoint import load_state, read_tensors, state_path
from medaug.training.loop import fit
from medaug.training.run import newest
from tests.conftest import TINY

MODELS: dict[str, dict[str, Any]] = {
    "spatial_vaegan-modern": TINY["model"],
    "vaegan-author": {"name": "vaegan", "latent_dim": 4},
    "wgan_gp-modern": {"name": "wgan_gp", "width": 8, "latent_dim": 8},
    "wgan_gp-author": {"name": "wgan_gp", "preset": "author", "width": 8, "latent_dim": 8},
}


def config(model: str = "spatial_vaegan-modern", **train: Any) -> Config:
    return resolve({**TINY, "model": MODELS[model]}, {"train": train})


def kept(run: Path) -> set[str]:
    """Pictures and generators of moments that are past."""
    return {path.name for folder in ("samples", "snapshots") for path in (run / folder).iterdir()}


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "model.safetensors")[0]


def equal(a: Path, b: Path) -> bool:
    (at_a, left), (at_b, right) = load_state(a), load_state(b)
    return (
        at_a == at_b
        and left.keys() == right.keys()
        and all(torch.equal(left[k], right[k]) for k in left)
        and all(torch.equal(weights(a)[k], weights(b)[k]) for k in weights(a))
    )


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_interrupted_and_resumed_equals_undisturbed(
    cache: SliceCache, tmp_path: Path, model: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model == "vaegan-author" and precision == "bfloat16":
        pytest.skip("its networks are large, and float32 shows the same")
    settings = config(model, precision=precision, images=64, snapshot_every=1000, keep_snapshots=2)
    fit(settings, cache, tmp_path / "whole", device="cpu")

    from medaug.training import loop as train

    played = train.play_round

    def interrupted(training: train.Training, data: Any) -> int:
        seen = played(training, data)
        if training.images > 24 and not training.resumed:
            os.kill(os.getpid(), signal.SIGTERM)
        return seen

    monkeypatch.setattr(train, "play_round", interrupted)
    first = fit(settings, cache, tmp_path / "parts", device="cpu")
    assert not first.finished
    assert 24 < first.images < 64
    second = fit(settings, cache, tmp_path / "parts", device="cpu")
    assert second.finished
    assert second.resumed == first.images
    assert equal(tmp_path / "whole", tmp_path / "parts")
    assert kept(tmp_path / "whole") == kept(tmp_path / "parts")


@pytest.mark.long
def test_killed_at_random_moments_equals_undisturbed(phantom_cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.training.test_train import config\n"
        "from medaug.data.cache.prepare import SliceCache; from medaug.training.loop import fit\n"
        "fit(config(images=320, snapshot_every=40), SliceCache.open(Path(sys.argv[1])),"
        " Path(sys.argv[2]), device='cpu')"
    )
    command = [sys.executable, "-c", code, str(phantom_cache)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    rng, kills = random.Random(5), 0
    run = tmp_path / "killed"
    for _ in range(3):
        process = subprocess.Popen([*command, str(run)], stderr=subprocess.PIPE)
        before = len(list(run.glob("checkpoints/*.safetensors")))
        while process.poll() is None and not (run / "checkpoints").exists() and before == 0:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.2) if before == 0 else rng.uniform(2.5, 4.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    subprocess.run([*command, str(run)], check=True, capture_output=True)
    assert equal(tmp_path / "whole", run)
    rows = [row["images"] for row in metrics(run)]
    assert rows == sorted(set(rows))
    assert not list(run.rglob("*.part"))


def test_a_finished_run_is_left_alone(cache: SliceCache, tiny_run: Path) -> None:
    before = (tiny_run / "model.safetensors").stat().st_mtime_ns
    report = fit(resolve(TINY), cache, tiny_run, device="cpu")
    assert report.finished
    assert report.resumed == report.images == 160
    assert (tiny_run / "model.safetensors").stat().st_mtime_ns == before


def test_what_a_kill_left_half_written_goes(
    cache: SliceCache, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for left in (run / ".model.safetensors.x1.part", run / "samples" / ".0000000080.png.y2.part"):
        left.write_bytes(b"half")
    fit(resolve(TINY), cache, run, device="cpu")
    assert not list(run.rglob("*.part"))


def test_a_run_holds_what_its_docstring_says(tiny_run: Path) -> None:
    names = {p.name for p in tiny_run.iterdir()}
    assert names >= {
        "config.yaml", "run.json", "metrics.jsonl", "samples", "checkpoints", "model.safetensors",
    }  # fmt: skip
    rows = metrics(tiny_run)
    assert rows[-1]["images"] == 160
    assert {"encoder/image", "decoder/mask", "encoder/kl"} <= rows[0].keys()
    assert "flow/velocity" in rows[-1]
    assert all(np.isfinite(list(row.values())).all() for row in rows)
    assert len(list((tiny_run / "checkpoints").glob("*.safetensors"))) == 2
    assert list((tiny_run / "samples").glob("*.png"))


def test_more_images_go_on_and_other_settings_are_refused(
    cache: SliceCache, tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    with pytest.raises(RunError) as caught:
        fit(config(batch=4), cache, run, device="cpu")
    assert str(caught.value) == (
        f"{run}: train.batch is 8 in this run and 4 was asked; "
        "ask for the same, or choose another --run"
    )
    report = fit(config(images=200), cache, run, device="cpu")
    assert report.finished
    assert (report.resumed, report.images) == (160, 208)


def test_a_run_on_another_cache_is_refused(
    tiny_run: Path, cache: SliceCache, tmp_path: Path
) -> None:
    other = SliceCache(**{**vars(cache), "fingerprint": "0" * 64})
    with pytest.raises(RunError) as caught:
        fit(resolve(TINY), other, tiny_run, device="cpu")
    assert str(caught.value) == (
        f"{tiny_run}: cache was {cache.fingerprint} when this run began and is {'0' * 64} now; "
        "choose another --run"
    )


def test_a_folder_that_is_no_run_is_refused(cache: SliceCache, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError) as caught:
        fit(resolve(TINY), cache, tmp_path, device="cpu")
    assert str(caught.value) == (
        f"{tmp_path}: holds thesis.tex but no run.json, so it is not a run; "
        "choose a new or empty folder for --run"
    )
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_corrupt_newest_checkpoint_falls_back_and_says_so(
    cache: SliceCache, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    newest_state = state_path(run, 160)
    content = bytearray(newest_state.read_bytes())
    content[len(content) // 2] ^= 1
    newest_state.write_bytes(content)
    report = fit(resolve(TINY), cache, run, device="cpu")
    assert report.resumed == 128
    assert capsys.readouterr().err.splitlines()[0] == (
        f"{newest_state}: damaged, its content does not match its checksum; "
        "going on from the checkpoint before it"
    )
    assert equal(run, tiny_run)


def test_no_sound_checkpoint_is_an_error(cache: SliceCache, tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    for state in (run / "checkpoints").iterdir():
        state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(RunError) as caught:
        fit(resolve(TINY), cache, run, device="cpu")
    assert str(caught.value) == f"{run}: none of its 2 checkpoints is sound; start a new --run"


def test_a_loss_that_is_no_number_names_player_and_term(
    cache: SliceCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        spatial_vaegan, "gaussian_kl", lambda mu, logvar: mu.flatten(1).mean(1) * torch.nan
    )
    with pytest.raises(TrainingError) as caught:
        fit(config(), cache, tmp_path / "run", device="cpu")
    assert re.match(r"(encoder|decoder)/(kl|gradient) stopped being a finite number at image 0; ",
                    str(caught.value))  # fmt: skip
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_one_process_at_a_time(
    cache: SliceCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.1)
    run = tmp_path / "run"
    with exclusive(run), pytest.raises(OutputError) as caught:
        fit(resolve(TINY), cache, run, device="cpu")
    assert str(caught.value) == f"{run}: another process is working in it; wait for it"


def test_the_newest_run_is_found_and_named(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert newest(tiny_run.parent) == tiny_run
    assert capsys.readouterr().err == f"run: {tiny_run}\n"
    with pytest.raises(RunError, match="no trained run there"):
        newest(tmp_path)


def test_training_starts_from_given_weights(
    cache: SliceCache, tiny_run: Path, tmp_path: Path
) -> None:
    frozen = {"model": {"lr": 0.0, "sharpen_lr": 0.0}, "train": {"images": 8}}
    run = tmp_path / "run"
    fit(resolve(TINY, frozen), cache, run, device="cpu", init=tiny_run)
    mine, theirs = weights(run), weights(tiny_run)
    assert all(torch.equal(mine[k], theirs[k]) for k in mine if "code_" not in k)


def test_weights_of_another_size_are_refused(
    cache: SliceCache, tiny_run: Path, tmp_path: Path
) -> None:
    wider = resolve(TINY, {"model": {"width": 16}})
    with pytest.raises(RunError, match="holds weights of another model or size"):
        fit(wider, cache, tmp_path / "run", device="cpu", init=tiny_run)


def test_the_seed_and_the_filter_change_the_run(cache: SliceCache, tmp_path: Path) -> None:
    fit(config(images=16), cache, tmp_path / "a", device="cpu")
    fit(config(images=16, seed=1), cache, tmp_path / "b", device="cpu")
    assert not equal(tmp_path / "a", tmp_path / "b")
    crowded = resolve(TINY, {"data": {"min_label_pixels": 999}})
    with pytest.raises(DataError, match="no train slice qualifies"):
        fit(crowded, cache, tmp_path / "c", device="cpu")


def test_precision_changes_the_numbers(cache: SliceCache, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        fit(config(images=16, precision=precision), cache, tmp_path / precision, device="cpu")
    assert not equal(tmp_path / "float32", tmp_path / "bfloat16")
    facts = json.loads((tmp_path / "bfloat16" / "run.json").read_text())
    assert facts["_precision"] == "bfloat16"


def test_masks_none_trains_without_a_mask(cache: SliceCache, tmp_path: Path) -> None:
    from medaug.synthesis.generator import Generator

    fit(resolve(TINY, {"data": {"masks": "none"}, "train": {"images": 16}}), cache, tmp_path / "r",
        device="cpu")  # fmt: skip
    sample = next(iter(Generator.from_pretrained(tmp_path / "r", "cpu").generate(1)))
    assert sample.label is None
    assert sample.entropy is None


def test_a_device_that_is_not_there_is_refused(cache: SliceCache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(config(), cache, tmp_path / "run", device="gpu")
    assert str(caught.value) == "device 'gpu' is not known (accepted: auto, cpu, cuda)"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_loses_nothing(cache: SliceCache, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(OutputError, match="no space left on the disk; free some and run the"):
            fit(config(), cache, disk / "run", device="cpu")
        assert not list(disk.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert fit(config(), cache, disk / "run", device="cpu").finished
    finally:
        subprocess.run(["umount", str(disk)], check=True)
