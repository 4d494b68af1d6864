"""Recorded turns equal turns as played; the loop never waits for the device between metric lines.

On the CPU a turn is recorded as a graph of torch operators by ``make_fx``, in which, as in a CUDA
graph, every Python number is a constant: a rate or a position that were not a tensor would show.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from medaug.core.errors import ConfigError
from medaug.data.cache.prepare import SliceCache
from medaug.models.base import OptimizerSettings
from medaug.training.cuda_graphs import CudaGraphs, GraphRunner, can_record, function_key
from medaug.training.optimizers import PlayerOptimizer
from medaug.training.step import Players, TermKeys
from tests.support.captured import CPU, IMAGES, MODELS, apart, trace, trainer, weights


@pytest.fixture(scope="module")
def cache(phantom_cache: Path) -> SliceCache:
    return SliceCache.open(phantom_cache)


class Operators:
    """Records as a graph of operators, which any device can."""

    def __init__(self, made: Any) -> None:
        self.made, self.recorded = made, 0

    def warm(self, play: Callable[[], TermKeys]) -> TermKeys:
        return play()

    def record(self, play: Callable[[], TermKeys]) -> tuple[Callable[[], object], TermKeys]:
        """Tracing plays the turn, so everything it moved is put back."""
        players, counted = self.made.players, []
        seed = torch.get_rng_state()
        lasting = [*players.tensors().values()]
        lasting += [
            t for sums in players.loss_log.sums.values() for t in (sums.totals, sums.broken_at)
        ]
        before = [tensor.clone() for tensor in lasting]

        def traced() -> list[torch.Tensor]:
            counted.append(play())
            return []

        graph = make_fx(traced)()
        with torch.no_grad():
            for tensor, value in zip(lasting, before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(seed)
        self.recorded += 1
        return torch.no_grad()(graph), counted[0]


def keep_resident(made: Any) -> None:
    """Hold the slices in memory, as on a GPU."""
    feed = made.feed
    feed._images, feed._label_maps = feed.images, feed.label_maps
    assert feed.resident


def recorded_rounds(made: Any) -> Operators:
    """Let ``made`` record its turns, on slices in memory."""
    keep_resident(made)
    private = made.players.private
    made.players = Players(made.model, 0, CPU, made.players.precision, private, recorded=True)
    recorder = Operators(made)
    made.runner = GraphRunner(made.players, made.feed, recorder, strict=True)
    return recorder


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_recorded_turns_equal_turns_as_played(
    cache: SliceCache, tmp_path: Path, model: str
) -> None:
    """Through all phases and changing rates, with the same noise, warps and slices."""
    played, recorded = (trainer(cache, tmp_path / name, model) for name in ("played", "recorded"))
    recorder, start = recorded_rounds(recorded), weights(played)
    while recorded.images < IMAGES[model]:
        assert played.round() == recorded.round()
    kinds = len(recorded.runner.captured)
    assert recorder.recorded == kinds == {"phased": 3, "vaegan-author": 1}.get(model, 2)
    assert apart(weights(recorded), weights(played), start) < 0.01
    means, others = recorded.players.loss_log.means(), played.players.loss_log.means()
    assert means.keys() == others.keys()
    for key, value in others.items():
        assert means[key] == pytest.approx(value, rel=1e-2, abs=1e-3), key


def test_a_turn_that_cannot_be_recorded_is_played(
    cache: SliceCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing(Operators):
        def record(self, play: Callable[[], TermKeys]) -> tuple[Callable[[], object], TermKeys]:
            torch.manual_seed(999)
            try:
                raise RuntimeError("operation not permitted\nwhen stream is capturing")
            finally:
                self.end()

        def end(self) -> None:
            raise RuntimeError("failed due to a previous error")

    played, refused = (trainer(cache, tmp_path / name, "wgan_gp") for name in ("played", "refused"))
    start = weights(played)
    refused.players = Players(refused.model, 0, CPU, "float32", recorded=True)
    refused.runner = GraphRunner(refused.players, refused.feed, Refusing(refused))
    for _ in range(2):
        played.round()
        refused.round()
    told = capsys.readouterr().err
    assert told.count("one by one") == 1
    assert "operation not permitted)" in told
    assert refused.runner.captured == {}
    assert apart(weights(refused), weights(played), start) < 0.01
    strict = trainer(cache, tmp_path / "strict", "wgan_gp")
    strict.runner = GraphRunner(strict.players, strict.feed, Refusing(strict), strict=True)
    strict.round()
    with pytest.raises(
        ConfigError, match=r"train_discriminator cannot be recorded \(operation not permitted"
    ):
        strict.round()


def test_a_failed_recording_is_told_to_generator_and_allocator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device, pool, generator = torch.device("cuda", 1), (0, 1), mock.Mock(spec=torch.Generator)
    fresh, ended = mock.Mock(spec=torch.Generator), mock.Mock(side_effect=RuntimeError("not open"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: mock.Mock(device=device))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: pool)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", mock.Mock())
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *how, **more: nullcontext())
    monkeypatch.setattr(torch.cuda, "default_generators", (mock.Mock(), generator))
    monkeypatch.setattr(torch, "Generator", {device: fresh}.__getitem__)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended)
    recorder = CudaGraphs(device)
    assert recorder.record(lambda: (("a", "b"),))[1] == (("a", "b"),)
    generator.graphsafe_set_state.assert_not_called()
    with pytest.raises(RuntimeError, match="cannot be captured"):
        recorder.record(mock.Mock(side_effect=RuntimeError("cannot be captured")))
    generator.graphsafe_set_state.assert_called_once_with(fresh.graphsafe_get_state())
    ended.assert_called_once_with(1, pool)


@pytest.mark.parametrize(
    ("device", "resident", "how", "obstacle"),
    [
        ("cpu", True, {}, "the device is cpu"),
        ("cuda", True, {"world": 2}, "2 processes average"),
        ("cuda", True, {"private": True}, "private training"),
        ("cuda", False, {}, "the slices do not fit"),
        ("cuda", True, {}, None),
    ],
)
def test_capture_is_refused_where_it_is_impossible(
    device: str,
    resident: bool,
    how: dict[str, Any],
    obstacle: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed: Any = SimpleNamespace(device=torch.device(device), resident=resident)
    assert not can_record(feed, "off", **how)
    assert can_record(feed, "auto", **how) == (obstacle is None)
    assert (f"one by one: {obstacle}" in capsys.readouterr().err) == (
        device == "cuda" and obstacle is not None
    )
    if obstacle is None:
        assert can_record(feed, "on", **how)
    else:
        with pytest.raises(ConfigError, match=f"capture: on is impossible here: {obstacle}"):
            can_record(feed, "on", **how)


def test_without_capture_optimisers_take_the_rate_as_a_number(
    cache: SliceCache, tmp_path: Path
) -> None:
    plain, recorded = (trainer(cache, tmp_path / name, "gvae") for name in ("plain", "recorded"))
    recorded_rounds(recorded)
    for made, kept in ((plain, False), (recorded, True)):
        for stepper in made.players.optimizers.values():
            assert (stepper.rate is not None) == kept
            assert stepper.adam.param_groups[0]["capturable"] == kept


def test_functions_that_are_bound_otherwise_are_told_apart() -> None:
    class Player:
        def __call__(self, *bound: Any, share: float = 0.0) -> None:
            """Nothing."""

    def play(*bound: Any, share: float = 0.0) -> None:
        """Nothing."""

    assert function_key(play) == (
        "tests.training.test_cuda_graphs."
        "test_functions_that_are_bound_otherwise_are_told_apart.<locals>.play",
    )
    for whole in (play, Player()):
        kinds = [
            function_key(whole),
            *(function_key(partial(whole, bound)) for bound in (1, 2, [1], [2], "1")),
            function_key(partial(whole, share=1)),
            function_key(partial(partial(whole, 1), share=1)),
        ]
        assert len(set(kinds)) == len(kinds)
        assert function_key(partial(whole, [1], share=1)) == function_key(
            partial(whole, [1], share=1)
        )


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for the device, or need a number from it."""

    NAMES = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put_", "index_put", "_unsafe_index") and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        if name.startswith(self.NAMES) or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class Fetches(TorchFunctionMode):
    """Counts what takes a tensor's values to the host without an operator of its own."""

    NAMES = ("tolist", "numpy", "cpu", "__array__")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in self.NAMES:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", MODELS)
def test_a_round_waits_for_nothing(cache: SliceCache, tmp_path: Path, model: str) -> None:
    made = trainer(cache, tmp_path / "run", model)
    keep_resident(made)
    with Waits() as waits, Fetches() as fetches:
        while made.images < IMAGES[model]:
            made.round()
    assert waits.seen == fetches.seen == []
    with fetches:
        made.players.loss_log.means()
    assert fetches.seen


def test_a_stepper_with_a_rate_tensor_equals_one_with_a_number() -> None:
    for kind in ("adam", "rmsprop"):
        twins = [torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2)]
        plain, told = (
            PlayerOptimizer([twins[0]], kind),
            PlayerOptimizer([twins[1]], kind, recorded=True),
        )
        for step in range(5):
            how = OptimizerSettings(0.1 / (step + 1), kind, weight_decay=0.01)  # type: ignore[arg-type]
            assert told.rate is not None
            told.rate.fill_(how.lr)
            slope = torch.randn(3, 4, generator=torch.Generator().manual_seed(step))
            plain.step([slope.clone()], how, None)
            told.step([slope.clone()], how, None)
        assert torch.allclose(twins[0], twins[1], atol=1e-6)
        assert not torch.equal(twins[0], torch.linspace(-1, 1, 12).view(3, 4))


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, against the second's size."""
    return float(((one - other).abs() / other.abs()).max())


def test_bf16_follows_float32_for_200_steps(cache: SliceCache, tmp_path: Path) -> None:
    """The default model's first phase: what is made small stays near float32's at every stretch.

    The divergence of the code is worth little there and wanders; gradients are what is left over.
    """
    plain, mixed = (
        trace(cache, tmp_path / precision, "phased", "cpu", 4000, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert plain.keys() == mixed.keys()
    for term in ("image", "mask", "edges"):
        assert 0 < furthest(mixed[f"decoder/{term}"], plain[f"decoder/{term}"]) < 0.03
    assert furthest(mixed["decoder/kl"], plain["decoder/kl"]) < 0.15
