"""Recorded turns on a CUDA GPU, and rounds that never wait for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.data.cache.prepare import SliceCache
from medaug.training.cuda_graphs import WARM_UP
from medaug.training.step import TermKeys
from tests.support.captured import IMAGES, MODELS, apart, trace, trainer, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


@pytest.mark.parametrize("model", ["phased", "wgan_gp", "gvae"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_follow_eager_float32_for_200_steps(
    cache: SliceCache, tmp_path: Path, model: str, precision: str
) -> None:
    plain, fast = (
        trace(cache, tmp_path / name, model, "cuda", 10**5, **how)
        for name, how in {
            "plain": {"capture": "off"},
            "fast": {"capture": "on", "precision": precision},
        }.items()
    )
    assert plain.keys() == fast.keys()
    apart = [(fast[term] - plain[term]).abs() / (plain[term].abs() + 0.1) for term in plain]
    assert torch.stack(apart).mean() < 0.1


def test_a_turn_that_waits_for_the_gpu_is_played(
    cache: SliceCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played, refused = (
        trainer(cache, tmp_path / capture, "wgan_gp", "cuda", capture=capture)
        for capture in ("off", "auto")
    )
    start, play = weights(played), refused.players.play

    def waiting(turn: Any, batch: Any, optim: Any) -> TermKeys:
        batch.x.sum().item()
        return play(turn, batch, optim)

    refused.players.play = waiting
    before = torch.cuda.current_stream()
    while refused.images < IMAGES["wgan_gp"]:
        assert played.round() == refused.round()
    assert refused.runner.failed
    assert "one by one" in capsys.readouterr().err
    assert torch.cuda.current_stream() == before
    assert apart(weights(refused), weights(played), start) < 0.1
    later = trainer(cache, tmp_path / "later", "wgan_gp", "cuda", capture="on")
    while later.images < IMAGES["wgan_gp"]:
        later.round()
    assert apart(weights(later), weights(played), start) < 0.1


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("capture", ["on", "off"])
def test_no_step_waits_for_the_gpu(
    cache: SliceCache, tmp_path: Path, model: str, capture: str
) -> None:
    made = trainer(cache, tmp_path / "run", model, "cuda", capture=capture, images=10**6)
    for _ in range(2 * WARM_UP):
        made.round()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(3):
            made.round()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made.players.loss_log.means()
