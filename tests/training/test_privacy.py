"""Private training: clipped slices, noise by address, epsilon by opacus, exact resumption."""

import importlib.util
import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant

from medaug.core.batch import Batch, Shape
from medaug.core.config import Config, PrivacyConfig, resolve
from medaug.core.errors import ConfigError, RunError
from medaug.core.seeds import derive
from medaug.data.cache.prepare import SliceCache
from medaug.data.feed.feed import Feed, codec_for
from medaug.evaluation.report import evaluate
from medaug.models import build
from medaug.models.base import Turn
from medaug.models.vae import VAE
from medaug.synthesis.generator import Generator
from medaug.synthesis.synthesize import synthesize
from medaug.training.checkpoint import load_state, read_tensors
from medaug.training.loop import fit
from medaug.training.privacy import (
    CHUNK,
    ORDERS,
    PrivacyAccountant,
    PrivateGradients,
    check_supported,
    epsilon,
)
from medaug.training.step import Players
from tests.conftest import Medaug

SHAPE = Shape(2, 1, 16, cond_dim=3)
SMALL: dict[str, Any] = {"latent_dim": 4, "width": 8, "prior": "gaussian"}
PLAIN = {"name": "vae", "likelihood": "gaussian", **SMALL}
CPU = torch.device("cpu")


def config(**train: Any) -> Config:
    settings = {"images": 64, "batch": 8, "precision": "float32", "snapshot_every": 1000}
    private = {"privacy": {"noise": 1.0, "clip": 0.5, "delta": 1e-4}}
    data = {"size": 32}
    return resolve({"data": data, "model": PLAIN, "train": settings | private}, {"train": train})


def model(network: str = "residual", likelihood: str = "gaussian") -> VAE:
    torch.manual_seed(0)
    made = build("vae", {"likelihood": likelihood, "network": network, **SMALL}, SHAPE)
    assert isinstance(made, VAE)
    return made


def batch(count: int, partial: bool = False) -> Batch:
    draws = torch.Generator().manual_seed(1)
    x = torch.rand(count, 2, 16, 16, generator=draws) * 2 - 1
    known = None
    if partial:
        known = torch.ones(count, 2, 1, 1)
        known[::3, 1] = 0
        x = x * known
    return Batch(x, torch.randn(count, 3, generator=draws), known)


def private(made: VAE, clip: float = 1.0, noise: float = 1.0, size: int = 8) -> PrivateGradients:
    privacy = PrivacyConfig(noise=noise, clip=clip, delta=1e-5)
    return PrivateGradients(
        made, PrivacyAccountant(privacy, size, ["a"] * 60 + ["b"] * 40), "key", CPU, "float32"
    )


def norm(tensors: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors.values()))


@pytest.mark.parametrize("network", ["residual", "plain"])
@pytest.mark.parametrize("partial", [False, True])
def test_without_clipping_the_sum_is_the_plain_gradient(network: str, partial: bool) -> None:
    made, given = model(network), batch(5, partial)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", torch.ones_like)
        sums, terms = private(made, clip=1e6).clipped(Turn(made.train_autoencoder), given)
        move = made.train_autoencoder(given)["autoencoder"]
        plain = torch.autograd.grad(5 * move.total(), list(made.parameters()))
    for (_, one), two in zip(sums.items(), plain, strict=True):
        assert torch.allclose(one, two, atol=1e-5, rtol=1e-4)
    for name, (weight, values) in move.terms.items():
        assert torch.allclose(terms[name][1], weight * values, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_no_slice_moves_the_sum_by_more_than_the_clip(likelihood: str) -> None:
    made = model(likelihood=likelihood)
    given = batch(6)
    given = Batch(given.x * torch.tensor([0, 1, 5, 50, 500, 5000]).view(-1, 1, 1, 1), given.cond)
    turn = Turn(made.train_autoencoder)
    for clip in (0.01, 1.0):
        taker = private(made, clip=clip)
        each = [
            norm(taker.clipped(turn, Batch(given.x[i : i + 1], given.cond[i : i + 1]))[0])
            for i in range(6)
        ]
        assert max(each) <= clip * (1 + 1e-4)
        assert max(each) == pytest.approx(clip, rel=1e-3)
    small = private(made, clip=1e9).clipped(turn, Batch(given.x[:1], given.cond[:1]))[0]
    half = private(made, clip=norm(small) * 2)
    torch.manual_seed(3)
    left = half.clipped(turn, Batch(given.x[:1], given.cond[:1]))[0]
    assert norm(left) < half.privacy.clip


def test_chunks_add_up() -> None:
    made, given = model(), batch(CHUNK + 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", torch.ones_like)
        taker, turn = private(made, clip=0.1), Turn(made.train_autoencoder)
        whole = taker.clipped(turn, given)[0]
        parts = [
            taker.clipped(turn, Batch(given.x[at], given.cond[at]))[0]
            for at in (slice(0, CHUNK), slice(CHUNK, None))
        ]
    for name, value in whole.items():
        assert torch.allclose(value, parts[0][name] + parts[1][name], atol=1e-7)


def test_noise_has_its_scale_and_its_address() -> None:
    made = model()
    nothing, turn = (
        Batch(torch.zeros(0, 2, 16, 16), torch.zeros(0, 3)),
        Turn(made.train_autoencoder),
    )
    players = {"autoencoder": list(made.parameters())}

    def noise(position: int, **how: float) -> torch.Tensor:
        steps, moves = private(made, **how).gradients(turn, nothing, position, players)
        assert moves["autoencoder"].terms == {}
        assert [s.shape for s in steps["autoencoder"]] == [p.shape for p in made.parameters()]
        return torch.cat([s.flatten() for s in steps["autoencoder"]])

    first = noise(0, clip=0.5, noise=3.0, size=8)
    count = len(first)
    assert count > 10_000
    assert float(first.std()) == pytest.approx(3.0 * 0.5 / 8, rel=4 / math.sqrt(2 * count))
    assert abs(float(first.mean())) < 4 * 3.0 * 0.5 / 8 / math.sqrt(count)
    assert torch.equal(first, noise(0, clip=0.5, noise=3.0, size=8))
    other = noise(8, clip=0.5, noise=3.0, size=8)
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 4 / math.sqrt(count)
    assert torch.allclose(noise(0, clip=1.0, noise=3.0), 2 * first)
    assert torch.allclose(noise(0, clip=0.5, noise=1.0), first / 3)


def test_noise_depends_on_the_secret_alone_not_on_the_seed() -> None:
    made, ledger = model(), PrivacyAccountant(PrivacyConfig(), 8, ["a"] * 100)
    one, two = (PrivateGradients(made, ledger, text, CPU, "float32") for text in ("one", "two"))
    assert not np.array_equal(one.rng("noise", 0).random(8), two.rng("noise", 0).random(8))
    assert not np.array_equal(one.rng("noise", 0).random(8), one.rng("sample", 0).random(8))
    before = one.rng("noise", 0).random(8)
    torch.manual_seed(derive(5, "turn", 0))
    assert np.array_equal(one.rng("noise", 0).random(8), before)


def test_slices_are_poisson_sampled() -> None:
    taker = private(model(), size=8)
    drawn = [taker.sample(8 * step) for step in range(2000)]
    sizes = np.array([len(index) for index in drawn])
    assert sizes.mean() == pytest.approx(8, abs=4 * math.sqrt(8 * 0.92 / 2000))
    assert sizes.var() == pytest.approx(8 * 0.92, rel=0.15)
    shares = np.bincount(torch.cat(drawn).numpy(), minlength=100) / 2000
    assert np.abs(shares - 0.08).max() < 4.5 * math.sqrt(0.08 * 0.92 / 2000)
    assert all(len(set(index.tolist())) == len(index) for index in drawn[:50])


@pytest.mark.parametrize("noise", [0.6, 1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 100, 5000])
def test_epsilon_is_that_of_the_accountant(noise: float, steps: int) -> None:
    privacy = PrivacyConfig(noise=noise, delta=1e-5)
    accountant = RDPAccountant()
    for _ in range(min(steps, 100)):
        accountant.step(noise_multiplier=noise, sample_rate=0.02)
    accountant.history = [(noise, 0.02, steps)] if steps > 100 else accountant.history
    expected = accountant.get_epsilon(1e-5, alphas=list(ORDERS))
    assert epsilon(privacy, 0.02, steps) == pytest.approx(expected, rel=1e-12)
    ledger = PrivacyAccountant(privacy, 8, ["a"] * 300 + ["b"] * 100)
    assert ledger.epsilon(8 * steps) == pytest.approx(expected, rel=1e-12)
    told = ledger.statement(8 * steps)
    assert (told["steps"], told["rate"], told["most_slices_of_a_case"]) == (steps, 0.02, 300)


def test_epsilon_bounds_the_exact_one_of_a_single_whole_step() -> None:
    """At rate 1 the Gaussian mechanism has an exact delta(epsilon): Balle and Wang 2018."""
    privacy = PrivacyConfig(noise=2.0, delta=1e-5)
    eps = epsilon(privacy, 1.0, 1)

    def phi(t: float) -> float:
        return 0.5 * math.erfc(-t / math.sqrt(2))

    exact = phi(0.25 - 2 * eps) - math.exp(eps) * phi(-0.25 - 2 * eps)
    assert 0 < exact <= 1e-5
    assert epsilon(privacy, 0.1, 0) == 0.0
    assert epsilon(privacy, 0.1, 10) < epsilon(privacy, 0.1, 20)


def test_the_steps_are_those_of_the_private_gradient() -> None:
    made, given = model(), batch(8)
    how = made.optim(0.0)
    taker = private(made, clip=0.1)
    before = [p.detach().clone() for p in made.parameters()]
    Players(made, 0, CPU, "float32", taker).turn(Turn(made.train_autoencoder), given, 0, how)
    moved = [p.detach().clone() for p in made.parameters()]
    twin = model()
    Players(twin, 0, CPU, "float32", private(twin, clip=0.1)).turn(
        Turn(twin.train_autoencoder), given, 0, how
    )
    assert all(torch.equal(a, b) for a, b in zip(moved, twin.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(moved, before, strict=True))


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


def equal(a: Path, b: Path) -> bool:
    (at_a, left), (at_b, right) = load_state(a), load_state(b)
    return at_a == at_b and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_parts_equal_the_whole_and_every_switch_changes_the_weights(
    cache: SliceCache, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medaug.training import loop as train

    settings = config(precision=precision)
    whole = fit(settings, cache, tmp_path / "whole", device="cpu")
    copies = ["parts", "again"]
    for name in copies:  # every run draws its own secret, so these get that of the first
        (tmp_path / name).mkdir()
        for file in ("run.json", "config.yaml"):
            shutil.copy(tmp_path / "whole" / file, tmp_path / name / file)
    played = train.play_round

    def stopping(training: train.Training, data: Any) -> int:
        seen = played(training, data)
        if training.images == 24 and not training.resumed:
            signal.raise_signal(signal.SIGTERM)
        return seen

    monkeypatch.setattr(train, "play_round", stopping)
    first = fit(settings, cache, tmp_path / "parts", device="cpu")
    assert (first.finished, first.images) == (False, 24)
    second = fit(settings, cache, tmp_path / "parts", device="cpu")
    monkeypatch.undo()
    assert second.finished
    assert second.privacy == whole.privacy
    assert equal(tmp_path / "whole", tmp_path / "parts")
    fit(settings, cache, tmp_path / "other", device="cpu")
    assert not equal(tmp_path / "whole", tmp_path / "other")
    if precision == "float32":
        for name, other in (("clip", 0.1), ("noise", 2.0)):
            asked = config(privacy={name: other})
            run = tmp_path / name
            run.mkdir()
            shutil.copy(tmp_path / "whole" / "run.json", run)
            (run / "config.yaml").write_text(json.dumps(asked.dump()))
            fit(asked, cache, run, device="cpu")
            assert not equal(tmp_path / "whole", run)


def test_a_step_that_draws_no_slice_is_noise_alone(cache: SliceCache) -> None:
    settings = config()
    feed = Feed(cache, settings.data, codec_for(cache, settings.data), seed=0, device=CPU)
    made = build("vae", settings.model.arguments, feed.shape)
    taker = PrivateGradients(
        made, PrivacyAccountant(PrivacyConfig(), 1, feed.owners), "key", CPU, "float32"
    )
    empty = next(at for at in range(100) if not len(taker.sample(at)))
    game = Players(made, 0, CPU, "float32", taker)
    before = [p.detach().clone() for p in made.parameters()]
    turn = Turn(made.train_autoencoder)  # type: ignore[attr-defined]
    game.turn(turn, feed.made(feed.moving(taker.sample(empty), empty)), empty, made.optim(0.0))
    assert not any(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))
    assert list(game.loss_log.means()) == ["autoencoder/gradient"]


def test_epsilon_is_told_wherever_one_looks(cache: SliceCache, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = fit(config(images=64, snapshot_every=16), cache, run, device="cpu")
    assert report.privacy is not None
    told = report.privacy
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    spent = [row["epsilon"] for row in rows]
    assert spent == sorted(spent)
    assert spent[0] > 0
    assert spent[-1] == pytest.approx(told["epsilon"], abs=1e-4)
    privacy = PrivacyConfig(**config().train.privacy.model_dump())  # type: ignore[union-attr]
    expected = epsilon(privacy, told["rate"], 8)
    assert told["epsilon"] == pytest.approx(expected, abs=1e-4)
    header = read_tensors(run / "model.safetensors")[1]
    assert header["privacy"] == told
    synthesize(Generator.from_pretrained(run, "cpu"), 24, tmp_path / "drawn", uncertainty=1)
    assert json.loads((tmp_path / "drawn" / "run.json").read_text())["privacy"] == told
    reports: dict[str, dict[str, Any]] = {
        "of the run": {"run": run, "n": 24, "uncertainty": 1},
        "of the folder": {"synthetic": tmp_path / "drawn", "against": cache.path},
    }
    for name, asked in reports.items():
        content = evaluate(tmp_path / name, families=["uncertainty"], **asked).content
        assert content["judged"]["privacy"] == told
        page = (tmp_path / name / "index.html").read_text()
        assert f"differentially private: ε = {told['epsilon']:.3g} at δ = 0.0001" in page
    secret = json.loads((run / "run.json").read_text())["_secret"]
    assert len(secret) == 64
    assert secret not in json.dumps(header)
    assert secret.encode() not in (run / "model.safetensors").read_bytes()


def test_a_run_cannot_become_private_or_cease_to_be(cache: SliceCache, tmp_path: Path) -> None:
    fit(config(images=8), cache, tmp_path / "r", device="cpu")
    plain = config(images=16)
    plain.train.privacy = None
    with pytest.raises(RunError, match=r"train\.privacy"):
        fit(plain, cache, tmp_path / "r", device="cpu")
    with pytest.raises(RunError, match=r"train\.privacy\.noise is 1\.0 .* and 2\.0 was asked"):
        fit(config(privacy={"noise": 2.0}), cache, tmp_path / "r", device="cpu")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "vaegan"}, "a discriminator learns them"),
        ({"name": "wae_mmd"}, "compare the samples of a batch"),
        ({"name": "gan"}, "a discriminator"),
        ({"name": "vae", "likelihood": "learned", "prior": "gaussian"}, "mean over slices"),
        ({"name": "vae", "likelihood": "gaussian", "prior": "gmm"}, "learns from the codes"),
        ({"name": "vae", "likelihood": "gaussian", "prior": "flow"}, "learns from the codes"),
        ({**PLAIN, "network": "mlp"}, "batch norm"),
        ({**PLAIN, "network": "dcgan"}, "batch norm"),
    ],
)
def test_models_that_mix_slices_are_refused(
    cache: SliceCache, tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    asked = resolve({"data": {"size": 32}, "model": settings}, {"train": {"privacy": {}}})
    with pytest.raises(ConfigError, match=rf"{reason}.*models that can: vae\)"):
        fit(asked, cache, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_settings_that_promise_nothing_are_refused(cache: SliceCache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="promises nothing"):
        fit(config(privacy={"delta": 0.5}), cache, tmp_path / "run", device="cpu")
    with pytest.raises(ConfigError, match="exceeds the"):
        fit(config(batch=1000), cache, tmp_path / "run", device="cpu")
    for name, value in (("noise", 0.0), ("clip", -1.0), ("delta", 0.0), ("delta", 1.0)):
        with pytest.raises(ConfigError, match=rf"train\.privacy\.{name}"):
            config(privacy={name: value})
    assert not (tmp_path / "run").exists()


def test_a_missing_opacus_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "medaug.training.privacy.find_spec", lambda name: None if name == "opacus" else found(name)
    )
    with pytest.raises(ConfigError, match=r"pip install medaug\[dp\]$"):
        check_supported(config().model, SHAPE)


def test_from_the_command_line(medaug: Medaug, phantom_root: Path, phantom_cache: Path) -> None:
    small = ["--images", 32, "--device", "cpu"]
    for setting in ("model.width=8", "model.latent_dim=4", "train.batch=8"):
        small += ["--set", setting]
    small += ["--set", "train.privacy.noise=1.5", "--set", "train.privacy.delta=1e-4"]
    make = ["train", "--model", "vae", *small]
    scans = ["--data", "phantom", "--root", phantom_root, "--size", 32]
    refused = medaug(*make, *scans)
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "model.likelihood learned" in refused.err
    assert list(Path().iterdir()) == []
    make += ["--set", "model.likelihood=gaussian", "--set", "model.prior=gaussian"]
    done = medaug(*make, "--data", phantom_cache, "--run", "r", "--json")
    assert done.code == 0, done.err
    told = done.json["privacy"]
    assert told["epsilon"] > 0
    assert (told["noise"], told["clip"], told["delta"], told["steps"]) == (1.5, 1.0, 1e-4, 4)
    assert medaug("inspect", "r", "--json").json["privacy"] == told
    assert medaug("inspect", "r/model.safetensors", "--json").json["privacy"] == told
    assert f"epsilon: {told['epsilon']}" in medaug("inspect", "r").out
    again = medaug(*make, "--data", phantom_cache, "--run", "r")
    assert f"epsilon {told['epsilon']:.3g} at delta 0.0001 for a slice" in again.out
    drawn = medaug("synthesize", "--no-filter", "-n", 2, "--run", "r", "--out", "o", "--json")
    assert drawn.code == 0, drawn.err
