"""What the speed rows count and drive: operations, bytes, convolutions, and the peers' loops."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medaug.core.batch import Shape
from medaug.data.cache.prepare import SliceCache
from medaug.models import build
from medaug.runtime.device import tune

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
        ("vaegan", "monai, pixels", "ignite"),
        ("wgan_gp", "plain", "torch"),
        ("gvae", "plain", "torch"),
    ],
)
def test_a_rival_trains_our_networks(row: Any, name: str, rival: str, needs: str) -> None:
    peers = row("peers")
    pytest.importorskip(needs)
    shape = Shape(2, 1, 32)
    arguments = {"preset": "author", "width": 4, "latent_dim": 4}
    arguments |= {"penalty": 10.0} if name == "wgan_gp" else {}
    arguments.pop("preset")
    model = build(name, arguments, shape)
    before = {k: v.clone() for k, v in model.named_parameters()}
    x = torch.rand(8, 2, 32, 32) * 2 - 1
    assert peers.speed_of(rival, name, model, x, 4, "float32", 0.01) > 0
    stayed = [k for k, v in model.named_parameters() if torch.equal(v, before[k])]
    assert not [k for k in stayed if "weight" in k], stayed


def test_a_rival_sees_every_slice_in_an_epoch_of_thousands_of_batches(row: Any) -> None:
    loops = row("loops")
    x = torch.arange(7.0).view(7, 1, 1, 1)
    assert len(loops.loader(x, 4, CPU)) == loops.EPOCH >= 2000
    drawn = loops.endless(x, 4, CPU)
    assert {float(v) for _ in range(40) for v in next(drawn)} == set(range(7))


def test_a_rival_that_is_not_installed_says_so(row: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = row("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pythae", None)
        patch.setitem(sys.modules, "pythae.data.datasets", None)
        model = build("vaegan", {"width": 4, "latent_dim": 4}, Shape(1, 1, 32))
        told = peers.speed_of("pythae", "vaegan", model, torch.zeros(4, 1, 32, 32), 2, "float32", 1)
    assert told.startswith("not installed: ")


def test_the_advantage_is_over_the_best_rival(row: Any) -> None:
    speeds = {"medaug": [30.0, 20.0, 40.0], "plain": [10.0, 10.0], "monai": [15.0], "pythae": "no"}
    assert row("peers").advantage(speeds) == 2
    assert row("peers").advantage({**speeds, "monai, pixels": [60.0]}) == 2
    claims = row("peers").cpu_claims({**speeds, "monai, pixels": [60.0]})
    assert [(claim.what.split()[-1], claim.value, claim.reached) for claim in claims] == [
        ("rival", 2, True),
        ("plain", 3, True),
        ("monai", 2, True),
    ]


def test_operations_are_counted_for_both_sides(
    row: Any, phantom_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = row("peers")
    monkeypatch.setattr(cpu, "cached", lambda work, size: SliceCache.open(phantom_cache))
    game = {"name": "vaegan", "preset": "author", "width": 4, "latent_dim": 4}
    medaug, plain = (
        cpu.operations(str(tmp_path), side, 32, 4, game) for side in ("medaug", "plain")
    )
    assert 0 < medaug < plain


def test_shares_are_of_what_was_measured(row: Any) -> None:
    gpu = row("peers")
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
    claims = {claim.what: claim for claim in gpu.gpu_claims(figures)}
    assert claims["vaegan at 64 px over the best rival"].value == 6
    assert claims["256 px VAE/GAN, of its convolutions' rate"].value == pytest.approx(40)


def test_a_measurement_that_fails_costs_only_itself(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, asked = row("peers"), []

    def fresh(module: str, function: str, *given: Any) -> dict[str, float]:
        asked.append((function, *given[1:3]))
        if given[1:3] == ("gvae", 64):
            raise gpu.NotMeasured("OutOfMemoryError: CUDA out of memory")
        if function == "ceilings":
            return {"bf16_flops_per_s": 1e12, "bytes_per_s": 1e11}
        return {
            "images_per_s": 100.0,
            "flops_per_image": 2e9,
            "bytes_per_image": 5e8,
            "convolution_seconds_per_image": 0.004,
        }

    def compared(how: Any, size: int, batch: int, game: dict[str, Any], *more: Any) -> Any:
        asked.append(("rivals", game["name"], size))
        if game["name"] == "wgan_gp":
            raise gpu.NotMeasured("ended with -9")
        missing = "not installed: pythae" if (game["name"], size) == ("vaegan", 64) else [9.0]
        return {"medaug": [60.0], "plain": [10.0], "pythae": missing}

    monkeypatch.setattr(gpu, "fresh", fresh)
    monkeypatch.setattr(gpu, "compared", compared)
    how: Any = SimpleNamespace(work=tmp_path)
    figures = gpu.gathered(how, tmp_path / "kept", (64, 256), 8, 1.0)
    assert gpu.missing(figures) == {
        "gvae-64": "OutOfMemoryError: CUDA out of memory",
        "wgan_gp-64-rivals": "ended with -9",
        "wgan_gp-256-rivals": "ended with -9",
    }
    assert gpu.shares(figures).keys() == {"vaegan-64", "wgan_gp-64", "vaegan-256", "wgan_gp-256"}
    assert [claim.value for claim in gpu.gpu_claims(figures)] == [6, pytest.approx(40)]
    assert ("hardware", "gvae", 256) not in asked
    asked.clear()
    assert gpu.gathered(how, tmp_path / "kept", (64, 256), 8, 1.0) == figures
    assert asked == [
        ("rivals", "vaegan", 64),
        ("rivals", "wgan_gp", 64),
        ("hardware", "gvae", 64),
        ("rivals", "wgan_gp", 256),
    ]
    figures["ceilings"] = {"not measured": "ended with 1"}
    assert gpu.shares(figures) == {}


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_kept_is_of_this_program_and_gpu_and_goes_with_the_report(
    row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    gpu = row("peers")

    def gathered(how: Any, place: Path, *more: Any) -> dict[str, Any]:
        assert place.name == f"{row('results').sources()}-A-GPU-5-GB"
        place.mkdir(parents=True)
        return {"ceilings": {"not measured": "ended with 1"} if fails else {}}

    setup = row("results").Setup(quick=True, work=tmp_path, results=tmp_path / "results")
    monkeypatch.setattr(gpu, "cached", lambda work, size: None)
    monkeypatch.setattr(gpu, "gathered", gathered)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU (5 GB")
    found = gpu.measure_gpu(setup)
    assert found.incomplete == fails
    assert ("ceilings was not measured: ended with 1." in found.note) == fails
    assert bool(list((tmp_path / "gpu").iterdir())) == fails


def test_a_measurement_is_kept_whole_and_not_taken_twice(row: Any, tmp_path: Path) -> None:
    results, path = row("results"), tmp_path / "row" / "one.json"
    assert results.kept(path, lambda: {"a": 1}) == {"a": 1}
    assert results.kept(path, lambda: pytest.fail("measured again")) == {"a": 1}
    assert json.loads(path.read_text()) == {"a": 1}
    part = tmp_path / "part.json"
    assert results.kept(part, lambda: {"a": 0}, lambda told: told["a"]) == {"a": 0}
    assert not part.exists()
