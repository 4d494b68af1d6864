"""What the speed rows count and drive: operations, bytes, convolutions, and the peers' loops."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from medaug.device import tune
from medaug.models import build
from medaug.tensors import Shape

CPU = torch.device("cpu")


def test_operations_bytes_and_convolutions_are_those_of_the_formula(row: Any) -> None:
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    x = torch.randn(2, 3, 16, 16)

    def round() -> int:
        torch.autograd.grad(conv(x).sum(), conv.weight)
        return 2

    counting = row("counting")
    told = counting.counted(round)
    forward = 2 * 3 * 8 * 9 * 16 * 16
    assert told["flops_per_image"] == 2 * forward  # forward, and the gradient of the weights
    assert told["images"] == 2
    assert sum(told["convolutions"].values()) == 2
    moved = 4 * (x.numel() + conv.weight.numel() + 2 * 8 * 16 * 16)
    assert 2 * told["bytes_per_image"] > 2 * moved
    assert counting.convolution_seconds(told["convolutions"], CPU) > 0
    assert counting.convolution_seconds(Counter(), CPU) == 0


def test_training_on_a_gpu_keeps_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = True
        tune(torch.device("cuda"))
        assert torch.backends.cudnn.benchmark
        assert not any(place.allow_tf32 for place in places)
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


def test_ceilings_are_rates(row: Any) -> None:
    counting = row("counting")
    assert counting.matrix_peak(CPU, 128) > 1e6
    assert counting.memory_rate(CPU, 2**20) > 1e6


@pytest.mark.parametrize(
    ("name", "rival", "needs"),
    [
        ("vaegan", "plain", "torch"),
        ("vaegan", "pythae", "pythae"),
        ("vaegan", "monai", "ignite"),
        ("wgan_gp", "plain", "torch"),
        ("gvae", "plain", "torch"),
    ],
)
def test_a_rival_trains_our_networks(row: Any, name: str, rival: str, needs: str) -> None:
    rivals = row("rivals")
    pytest.importorskip(needs)
    shape = Shape(2, 1, 32)
    arguments = {"preset": "author", "width": 4, "latent_dim": 4}
    arguments |= {"penalty": 10.0} if name == "wgan_gp" else {}
    arguments.pop("preset")
    model = build(name, arguments, shape)
    before = {k: v.clone() for k, v in model.named_parameters()}
    x = torch.rand(8, 2, 32, 32) * 2 - 1
    assert rivals.speed_of(rival, name, model, x, 4, "float32", 0.01) > 0
    stayed = [k for k, v in model.named_parameters() if torch.equal(v, before[k])]
    assert not [k for k in stayed if "weight" in k], stayed


def test_a_rival_that_is_not_installed_says_so(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rivals = row("rivals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pythae", None)
        patch.setitem(sys.modules, "pythae.data.datasets", None)
        model = build("vaegan", {"width": 4, "latent_dim": 4}, Shape(1, 1, 32))
        told = rivals.speed_of(
            "pythae", "vaegan", model, torch.zeros(4, 1, 32, 32), 2, "float32", 1
        )
    assert told.startswith("not installed: ")


def test_the_advantage_is_over_the_best_rival(row: Any) -> None:
    speeds = {"medaug": [30.0, 20.0, 40.0], "plain": [10.0, 10.0], "monai": [15.0], "pythae": "no"}
    assert row("cpu").advantage(speeds) == 2


def test_shares_are_of_what_was_measured(row: Any) -> None:
    gpu = row("gpu")
    told = {
        "images_per_s": 100.0,
        "flops_per_image": 2e9,
        "bytes_per_image": 5e8,
        "convolution_seconds_per_image": 0.004,
    }
    figures = {
        "ceilings": {"bf16_flops_per_s": 1e12, "bytes_per_s": 1e11},
        "vaegan-256": told,
        "vaegan-64-rivals": {"medaug": [60.0], "plain": [10.0]},
    }
    shares = gpu.shares(figures)["vaegan-256"]
    assert shares["of_matrix_peak"] == pytest.approx(0.2)
    assert shares["of_memory_bound"] == shares["of_bound"] == pytest.approx(0.5)
    claims = {claim.what: claim for claim in gpu.claims(figures)}
    assert claims["vaegan at 64 px over the best rival"].value == 6
    assert claims["256 px VAE/GAN, of its convolutions' rate"].value == pytest.approx(40)


def test_a_measurement_is_kept_whole_and_not_taken_twice(row: Any, tmp_path: Path) -> None:
    keeping, path = row("keeping"), tmp_path / "row" / "one.json"
    assert keeping.kept(path, lambda: {"a": 1}) == {"a": 1}
    assert keeping.kept(path, lambda: pytest.fail("measured again")) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 1}
