"""The contract that every model keeps, with and without a condition."""

from typing import Any

import numpy as np
import pytest
import torch

from medaug.core.codec import CTCodec, PictureCodec
from medaug.core.errors import ConfigError
from medaug.core.modality import CT
from medaug.models import build
from medaug.models.base import Batch, Model, Shape, Turn
from medaug.models.vaegan import VAEGAN
from medaug.synthesis.generator import Generator
from medaug.synthesis.masks.deformed import Deformed
from medaug.training.step import Players
from tests.support.small_models import LAYOUT, PROGRESS, SHAPES, SMALL, UNLABELED, batch, make

CASES = {
    f"{name}-{preset}-{told}": ((name, preset), shape)
    for told, shape in zip(
        ("joint", "classes", "layout", "unlabeled"), (*SHAPES, LAYOUT, UNLABELED), strict=True
    )
    for name, preset in SMALL
    if shape in SHAPES or preset == "modern"
}


@pytest.fixture(params=CASES)
def both(request: pytest.FixtureRequest) -> tuple[tuple[str, str], Shape]:
    return CASES[request.param]


@pytest.fixture
def known(both: tuple[tuple[str, str], Shape]) -> tuple[str, str]:
    return both[0]


@pytest.fixture
def case(both: tuple[tuple[str, str], Shape]) -> tuple[Model, Shape]:
    return make(*both[0], both[1]), both[1]


def test_players_partition_the_parameters(case: tuple[Model, Shape]) -> None:
    model, _ = case
    owned = [p for modules in model.players().values() for m in modules for p in m.parameters()]
    assert len({id(p) for p in owned}) == len(owned)
    assert {id(p) for p in owned} == {id(p) for p in model.parameters()}
    assert model.optim(0.0).keys() == model.players().keys()


def test_terms_reach_all_of_a_players_own_and_only_those(case: tuple[Model, Shape]) -> None:
    model, shape = case
    game = Players(model, 0, torch.device("cpu"), "float32")
    moved = set()
    for progress in PROGRESS:
        for turn in {t.play.__name__: t for t in model.turns(progress)}.values():
            torch.manual_seed(1)
            moves = turn.play(batch(shape))
            for player, move in moves.items():
                assert all(value.shape in {(4,), ()} for _, value in move.terms.values())
                assert all(bool(value.isfinite().all()) for _, value in move.terms.values())
                own = game.parameters[player]
                gradients = torch.autograd.grad(
                    move.total(), own, retain_graph=True, allow_unused=True
                )
                assert all(g is not None for g in gradients), player
                moved.add(player)
            steps = game.gradients(moves)
            assert steps.keys() == moves.keys()
    assert moved == model.players().keys()


def test_only_the_movers_change(case: tuple[Model, Shape]) -> None:
    model, shape = case
    if isinstance(model, VAEGAN):
        model.margin = 10.0  # the gate stays open
    game = Players(model, 0, torch.device("cpu"), "float32")
    for progress in PROGRESS:
        for turn in {t.play.__name__: t for t in model.turns(progress)}.values():
            before = {k: [p.clone() for p in v] for k, v in game.parameters.items()}
            game.turn(turn, batch(shape), 0, model.optim(progress))
            played = (keys for keys, sums in game.loss_log.sums.items() if sums.count)
            moved = {player for keys in played for player, _ in keys}
            for player, parameters in game.parameters.items():
                same = all(
                    torch.equal(a, b) for a, b in zip(before[player], parameters, strict=True)
                )
                assert same == (player not in moved), (player, turn.play.__name__)
            game.loss_log.means()


def stir(model: Model) -> None:
    """Move all weights a little, since last layers may start so small that nothing shows."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)


def rounds(model: Model, game: Players, shape: Shape, steps: range) -> None:
    """Play rounds at quarters of a run, each turn on its own addressed batch."""
    for step in steps:
        progress = step / 4
        for place, turn in enumerate(model.turns(progress)):
            position = 1000 * step + place
            torch.manual_seed(position)
            seen = batch(shape, 4 * turn.batches)
            game.turn(turn, seen, position, model.optim(progress))


def test_going_on_is_exact(known: tuple[str, str], case: tuple[Model, Shape]) -> None:
    model, shape = case
    straight = Players(model, 0, torch.device("cpu"), "float32")
    rounds(model, straight, shape, range(4))
    half = make(*known, shape)
    first = Players(half, 0, torch.device("cpu"), "float32")
    rounds(half, first, shape, range(2))
    kept = {name: value.clone() for name, value in first.tensors().items()}
    other = make(*known, shape)
    stir(other)
    second = Players(other, 0, torch.device("cpu"), "float32")
    second.restore(kept)
    rounds(other, second, shape, range(2, 4))
    ours, theirs = straight.tensors(), second.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_sample_does_not_depend_on_its_neighbours(case: tuple[Model, Shape]) -> None:
    model, shape = case
    stir(model)
    labels = {"pancreas": 1} if shape.channels > 1 or shape.layout else {}
    masks, tissues = "joint", {}
    if shape.layout:
        masks, tissues = "layout", dict(list(CT.tissues.items())[: shape.layout - 1])
    codec = CTCodec((-160.0, 240.0), labels, masks, tissues) if labels else PictureCodec()
    header = {
        "kind": "ct" if labels else "image", "precision": "float32", "images": 0, "source": "",
        "classes": [str(k) for k in range(shape.classes)], "config": {}, "shape": vars(shape),
        "affine": np.eye(4).tolist(),
    }  # fmt: skip
    generator = Generator(model, codec, header, "", "cpu")
    if shape.layout:
        real = torch.randint(250, 254, (7, shape.size, shape.size), dtype=torch.uint8)
        generator.layouts = Deformed(real)
    whole = list(generator.generate(20, seed=3, uncertainty=1))
    part = list(generator.generate(3, seed=3, uncertainty=0, start=15))
    for sample in part:
        twin = whole[sample.index]
        assert np.array_equal(sample.image, twin.image)
        assert sample.origin == twin.origin
    other = next(iter(generator.generate(1, seed=4, uncertainty=0)))
    assert not np.array_equal(other.image, whole[0].image)


def test_samples_have_the_shape_and_range_of_the_data(case: tuple[Model, Shape]) -> None:
    model, shape = case
    cond = batch(shape).cond
    model.eval()
    with torch.inference_mode():
        noise = torch.randn(4, *model.noise_shape)
        z = model.prior(noise, cond)
        x = model.decode(z, cond)
        near = model.decode(model.vary(noise, z, x, torch.randn_like(noise), cond, 0.5), cond)
    for made in (x, near):
        assert made.shape == (4, shape.channels, shape.size, shape.size)
        assert made.abs().max() <= 1
    assert not torch.equal(x, near)


def test_the_condition_changes_what_is_drawn(case: tuple[Model, Shape]) -> None:
    model, shape = case
    cond = batch(shape, 2).cond
    if cond is None:
        pytest.skip("it has no condition")
    stir(model)
    model.eval()
    noise = torch.randn(1, *model.noise_shape)
    with torch.inference_mode():
        drawn = [model.decode(model.prior(noise, one), one) for one in cond.split(1)]
    assert not torch.equal(*drawn)


def test_a_layout_changes_the_place_it_marks() -> None:
    for known in (("spatial_vaegan", "modern"), ("vae", "modern"), ("wgan_gp", "modern")):
        model = make(*known, LAYOUT)
        stir(model)
        model.eval()
        cond = torch.zeros(2, 4, 32, 32)
        cond[1, 2, 12:20, 12:20] = 1
        with torch.inference_mode():
            noise = torch.randn(1, *model.noise_shape).repeat(2, *[1] * len(model.noise_shape))
            z = model.prior(noise, cond)[:1].repeat(2, *[1] * len(model.noise_shape))
            one, other = model.decode(z, cond)
        change = (one - other).abs()[0]
        assert change[12:20, 12:20].mean() > 2 * change[:6, :6].mean(), known


def test_networks_without_a_place_for_a_layout_say_so() -> None:
    with pytest.raises(ConfigError) as caught:
        build("gan", {"network": "dcgan"}, LAYOUT)
    assert str(caught.value) == (
        "config model.network: 'dcgan' takes no layout (data.masks layout); these do: residual"
    )


def test_what_is_not_known_teaches_nothing(case: tuple[Model, Shape]) -> None:
    """Whatever is drawn as the mask of a sample without one, no loss changes."""
    model, shape = case
    if not shape.unlabeled:
        pytest.skip("all is known")
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def losses(turn: Turn, drawn: float | None) -> dict[str, float]:
        def redraw(module: Any, given: Any, raw: torch.Tensor) -> torch.Tensor:
            if drawn is not None:
                raw = raw.clone()
                raw[1::2, 1] = drawn
            return raw

        torch.manual_seed(1)
        model.load_state_dict(start)
        hook = model.get_submodule("decoder").register_forward_hook(redraw)
        moves = turn.play(batch(shape))
        hook.remove()
        return {player: move.total().item() for player, move in moves.items()}

    for progress in PROGRESS:
        for turn in {t.play.__name__: t for t in model.turns(progress)}.values():
            assert losses(turn, None) == losses(turn, 0.7), turn.play.__name__


def test_no_encoder_sees_a_mask_where_some_lack_one() -> None:
    for known in (("spatial_vaegan", "modern"), ("vae", "modern"), ("ali", "modern")):
        model = make(*known, UNLABELED).eval()
        one = batch(UNLABELED).x
        other = one.clone()
        other[:, 1] = -other[:, 1]
        with torch.inference_mode():
            assert torch.equal(model.encode(one, None)[0], model.encode(other, None)[0])


def test_a_code_beside_a_layout_is_coarser() -> None:
    grids = {
        (size, layout): make("spatial_vaegan", "modern", Shape(1, 1, size, layout, layout=layout))
        for size in (64, 128)
        for layout in (0, 4)
    }
    sides = {
        key: size // model.noise_shape[-1] for key, model in grids.items() for size in [key[0]]
    }
    assert sides == {(64, 0): 4, (64, 4): 8, (128, 0): 8, (128, 4): 16}


def test_a_three_dimensional_model_trains() -> None:
    torch.manual_seed(0)
    shape = Shape(1, 1, 16, spatial_dims=3)
    arguments = {"network": "residual", "width": 8, "latent_dim": 8, "prior": "gmm"}
    model = build("vae", arguments, shape)
    game = Players(model, 0, torch.device("cpu"), "float32")
    x = torch.rand(4, 1, 16, 16, 16) * 2 - 1
    losses = []
    for step in range(12):
        game.turn(model.turns(0)[0], Batch(x), step, model.optim(0))
        losses.append(game.loss_log.means()["autoencoder/reconstruction"])
    assert losses[-1] < losses[0]
    assert model.decode(model.encode(x, None)[0], None).shape == x.shape
