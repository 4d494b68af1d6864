"""Several processes: the same weights everywhere, and the same as one process has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.core.config import resolve
from medaug.core.errors import ConfigError, TrainingError
from medaug.runtime import collectives
from medaug.runtime.distributed import Ranks, Share, share
from medaug.training.checkpoint import load_state, read_tensors
from medaug.training.loop import check_shared
from tests.support.ranks_play import TRACES, TURNS

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith("SLURM")},
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="module")
def played(phantom_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes, and one alone, have left what they found."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.support.ranks_play", str(out), str(phantom_cache)]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (out / "stderr.txt").write_text(done.stderr)
    return out


def found(played: Path, what: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What one process alone found, and each of two."""
    names = ("0-of-1", "0-of-2", "1-of-2")
    alone, first, second = (torch.load(played / f"{what}-{name}") for name in names)
    return alone, first, second


KEPT = {"gvae-author": 1e-2}
"""Batch norm after batch norm magnifies rounding, by how much depends on the processor."""


@pytest.mark.parametrize("case", TURNS)
def test_a_turn_of_two_is_the_turn_of_one(played: Path, case: str) -> None:
    """Float32 keeps 7 digits; batch norm of 8 rows and small sums take two of them."""
    alone, first, second = found(played, "turns")
    keys = [key for key in alone if f"/{case}/" in key]
    assert any(key.startswith("gradient") for key in keys)
    for key in keys:
        assert torch.equal(first[key], second[key]), key
        apart = (first[key] - alone[key]).norm()
        assert apart <= KEPT.get(case, 1e-4) * alone[key].norm() + 1e-7, key
    assert bool(first[f"same/{case}"])


@pytest.mark.parametrize("case", TRACES)
def test_two_hundred_updates_of_two_are_those_of_one(played: Path, case: str) -> None:
    alone, first, second = found(played, "trace")
    same, updates = first[f"same/{case}"].tolist()
    assert same == updates >= 200
    key = f"trace/{case}"
    assert torch.equal(first[key], second[key])
    assert torch.equal(alone[key].isnan(), first[key].isnan())
    apart = (first[key] - alone[key]).abs() / (alone[key].abs() + 1e-2)
    assert float(apart.nan_to_num().max()) < 1e-4


def states(played: Path, name: str) -> dict[str, torch.Tensor]:
    state = load_state(played / name)
    assert state is not None
    return state[1]


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_of_two_is_the_run_of_one(played: Path) -> None:
    told = json.loads((played / "statuses.json").read_text())
    assert told["whole-1"] == [0]
    assert told["whole-2"] == [0, 0]
    one, two = (metrics(played / f"whole-{world}") for world in (1, 2))
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for mine, theirs in zip(one, two, strict=True):
        for key in mine.keys() - {"images_per_s"}:
            assert mine[key] == pytest.approx(theirs[key], rel=0.05, abs=1e-3), key
    names = [sorted(p.name for p in (played / f"whole-{world}").rglob("*")) for world in (1, 2)]
    assert names[0] == names[1]
    keys = [read_tensors(played / f"whole-{w}" / "model.safetensors")[0].keys() for w in (1, 2)]
    assert keys[0] == keys[1]


def test_sigterm_on_one_stops_both_with_75_and_the_same_command_goes_on(played: Path) -> None:
    told = json.loads((played / "statuses.json").read_text())
    assert told["stopped"] == [75, 75]
    assert told["resumed"] == [0, 0]
    errors = (played / "stderr.txt").read_text()
    assert "stopped: interrupted; the same command goes on" in errors
    whole, resumed = states(played, "whole-2"), states(played, "stopped")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_killed_process_is_started_again_by_torchrun(played: Path, phantom_cache: Path) -> None:
    run = played / "killed"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "--max-restarts=1", "-m", "tests.support.ranks_fit", str(phantom_cache), str(run), "killed",
    ]  # fmt: skip
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{run}: going on from image 64" in done.stderr
    whole, restarted = states(played, "whole-2"), states(played, "killed")
    assert all(torch.equal(whole[key], restarted[key]) for key in whole)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Share()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
         Share(3, 8, 1, 2)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}, Share(1, 4, 1)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"},
         Share(1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, Share()),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, Share(0, 2)),
    ],
)  # fmt: skip
def test_the_share_is_what_the_environment_says(
    environment: dict[str, str], expected: Share
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("SLURM") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        assert share() == expected


@pytest.mark.parametrize(
    ("rank", "world", "message"),
    [
        ("2", "2", "RANK is 2 and WORLD_SIZE 2; ranks count from 0 to WORLD_SIZE - 1"),
        ("one", "2", "RANK is 'one', and a number from 0 is wanted"),
    ],
)
def test_a_share_that_makes_no_sense_is_refused(rank: str, world: str, message: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", rank)
        patch.setenv("WORLD_SIZE", world)
        with pytest.raises(ConfigError) as caught:
            share()
    assert str(caught.value) == message


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch: 8 is of all processes together, and 3"):
        check_shared(resolve({"train": {"batch": 8}}), 3)
    private = resolve({"model": {"name": "vae"}, "train": {"privacy": {"noise": 1.0}}})
    with pytest.raises(ConfigError, match=r"train\.privacy: 2 processes cannot share"):
        check_shared(private, 2)
    check_shared(private, 1)


def test_draws_are_rows_of_one_draw() -> None:
    def drawn(ranks: Ranks | None, rows: int) -> list[torch.Tensor]:
        like = torch.zeros(rows, 3, 4, 4)
        torch.manual_seed(3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(collectives, "current_ranks", lambda: ranks)
            with collectives.shared_draws(rows):
                return [
                    torch.randn(rows, 5), torch.randn_like(like), torch.rand((rows, 1, 2)),
                    torch.randint(-3, 4, (rows,)), torch.randint(9, (rows, 1)),
                    torch.nn.functional.dropout(like + 1, 0.4),
                    torch.nn.functional.dropout2d(like + 1, 0.4),
                    torch.nn.Dropout2d(0.3)(like.to(memory_format=torch.channels_last) + 1),
                ]  # fmt: skip

    whole = drawn(None, 6)
    for rank in range(3):
        mine = drawn(Ranks(rank, 3, torch.device("cpu")), 2)
        for all_rows, rows in zip(whole, mine, strict=True):
            assert torch.equal(all_rows[2 * rank : 2 * rank + 2], rows)


def test_a_draw_that_cannot_be_shared_is_refused() -> None:
    ranks = Ranks(0, 2, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "current_ranks", lambda: ranks)
        with (
            collectives.shared_draws(4),
            pytest.raises(TrainingError, match="a draw of 3 rows in a turn on"),
        ):
            torch.randn(3, 2)
        with (
            collectives.shared_draws(4),
            pytest.raises(TrainingError, match="draws by normal_, which 2"),
        ):
            torch.zeros(4, 2).normal_()


def test_shared_norm_alone_is_batch_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 5, 5) * 3 + 40
    theirs = torch.nn.Sequential(torch.nn.BatchNorm2d(3, eps=1e-6))
    mine = torch.nn.Sequential(torch.nn.BatchNorm2d(3, eps=1e-6))
    torch.nn.init.normal_(theirs[0].weight)
    mine.load_state_dict(theirs.state_dict())
    collectives.share_norms(mine)
    assert isinstance(mine[0], collectives.SharedNorm)
    for mode in (True, False):
        ours, wanted = (each.train(mode)(x) for each in (mine, theirs))
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], value)


def test_gradients_travel_in_pieces() -> None:
    sizes = [3, 5, 2]
    tensors = [torch.zeros(size * 2**20) for size in sizes]
    assert [[len(t) // 2**20 for t in piece] for piece in collectives.buckets(tensors)] == [
        [3, 5],
        [2],
    ]
