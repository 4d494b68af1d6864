"""The contract that every model keeps, with and without a condition."""

from typing import Any

import numpy as np
import pytest
import torch

from medaug.codec import CTCodec, PictureCodec
from medaug.config import resolve
from medaug.data.tissues import TISSUES
from medaug.errors import ConfigError
from medaug.generator import Generator
from medaug.layouts.deformed import Deformed
from medaug.models import build
from medaug.models.base import Batch, Model, Shape, Turn
from medaug.models.priors import PRIORS
from medaug.models.vaegan import EQUILIBRIUM, VAEGAN
from medaug.penalties import gradient_penalty
from medaug.rounds import Game

TINY = {"width": 8}
SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("vaegan", "author"): {"latent_dim": 8, **TINY},
    ("vaegan", "modern"): {"prior_width": 16, "prior_steps": 3, **TINY},
}
for _name in ("vae", "gan", "vae_disl", "wgan", "wgan_gp", "alpha_gan", "gvae", "aaae", "ali",
              "alice", "wae_mmd", "wae_gan"):  # fmt: skip
    for _preset in ("author", "modern"):
        SMALL[_name, _preset] = {"latent_dim": 8, **TINY}
for _known in (("alpha_gan", "author"), ("alpha_gan", "modern")):
    SMALL[_known] |= {"code_width": 16}
for _known in (("aaae", "author"), ("aaae", "modern")):
    SMALL[_known] |= {"prior_width": 16}
SMALL["vae", "modern"] |= {"prior": "flow", "prior_width": 16}
SHAPES = [Shape(2, 1, 32), Shape(1, 1, 28, cond_dim=3, classes=3)]
LAYOUT = Shape(1, 1, 32, cond_dim=4, layout=4)
UNLABELED = Shape(2, 1, 32, unlabeled=True)
CASES = {
    f"{name}-{preset}-{told}": ((name, preset), shape)
    for told, shape in zip(
        ("joint", "classes", "layout", "unlabeled"), (*SHAPES, LAYOUT, UNLABELED), strict=True
    )
    for name, preset in SMALL
    if shape in SHAPES or preset == "modern"
}
PROGRESS = (0.0, 0.6, 0.9)


def make(name: str, preset: str, shape: Shape) -> Model:
    torch.manual_seed(0)
    asked = {"model": {"name": name, "preset": preset, **SMALL[name, preset]}}
    if shape.layout and name != "vaegan":
        asked["model"]["network"] = "residual"
    return build(name, resolve(asked).model.arguments, shape)


def batch(shape: Shape, count: int = 4) -> Batch:
    x = torch.rand(count, shape.channels, shape.size, shape.size) * 2 - 1
    x[:, shape.images :] = x[:, shape.images :].sign()
    cond = known = None
    if shape.cond_dim:
        cond = torch.eye(shape.cond_dim)[torch.arange(count) % shape.cond_dim]
    if shape.layout and cond is not None:
        cond = cond[..., None, None] * (torch.rand(count, 1, shape.size, shape.size) > 0.5)
    if shape.unlabeled:
        known = torch.ones(count, 2, 1, 1)
        known[1::2, 1] = 0
        x = x * known
    return Batch(x, cond, known)


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
    game = Game(model, 0, torch.device("cpu"), "float32")
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
    game = Game(model, 0, torch.device("cpu"), "float32")
    for progress in PROGRESS:
        for turn in {t.play.__name__: t for t in model.turns(progress)}.values():
            before = {k: [p.clone() for p in v] for k, v in game.parameters.items()}
            game.turn(turn, batch(shape), 0, model.optim(progress))
            moved = {player for player, _ in game.account.counts}
            for player, parameters in game.parameters.items():
                same = all(
                    torch.equal(a, b) for a, b in zip(before[player], parameters, strict=True)
                )
                assert same == (player not in moved), (player, turn.play.__name__)
            game.account.close()


def stir(model: Model) -> None:
    """Move all weights a little, since last layers may start so small that nothing shows."""
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)


def rounds(model: Model, game: Game, shape: Shape, steps: range) -> None:
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
    straight = Game(model, 0, torch.device("cpu"), "float32")
    rounds(model, straight, shape, range(4))
    half = make(*known, shape)
    first = Game(half, 0, torch.device("cpu"), "float32")
    rounds(half, first, shape, range(2))
    kept = {name: value.clone() for name, value in first.tensors().items()}
    other = make(*known, shape)
    stir(other)
    second = Game(other, 0, torch.device("cpu"), "float32")
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
        masks, tissues = "layout", dict(list(TISSUES.items())[: shape.layout - 1])
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
    for known in (("vaegan", "modern"), ("vae", "modern"), ("wgan_gp", "modern")):
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
    for known in (("vaegan", "modern"), ("vae", "modern"), ("ali", "modern")):
        model = make(*known, UNLABELED).eval()
        one = batch(UNLABELED).x
        other = one.clone()
        other[:, 1] = -other[:, 1]
        with torch.inference_mode():
            assert torch.equal(model.encode(one, None)[0], model.encode(other, None)[0])


def test_judges_have_no_batch_statistics_where_they_are_penalised() -> None:
    for preset in ("author", "modern"):
        model = make("wgan_gp", preset, SHAPES[0])
        kinds = {type(m).__name__ for m in model.discriminator.modules()}
        assert not any("BatchNorm" in kind for kind in kinds)


def test_penalty_of_a_linear_critic_is_its_closed_form() -> None:
    weight = torch.randn(3 * 4 * 4, dtype=torch.float64).float()
    real, fake = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4)
    got = gradient_penalty(lambda u: u.flatten(1) @ weight, real, fake)
    assert torch.allclose(got, (weight.norm() - 1).square().expand(5), rtol=1e-5)


def test_penalty_is_float32_under_autocast() -> None:
    critic = torch.nn.Linear(8, 1)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradient_penalty(lambda u: critic(u)[:, 0], torch.zeros(2, 8), torch.ones(2, 8))
    assert got.dtype == torch.float32
    assert torch.allclose(got, (critic.weight.norm() - 1).square(), rtol=1e-5)


@pytest.mark.parametrize(
    ("real", "fake", "discriminator", "decoder"),
    [
        (0.6, 0.7, True, True),
        (0.1, 0.7, False, True),
        (0.7, 1.4, True, False),
        (0.1, 1.4, True, True),
    ],
)
def test_larsens_gate(real: float, fake: float, discriminator: bool, decoder: bool) -> None:
    model = VAEGAN(SHAPES[0], latent_dim=4, margin=0.35)
    got = model.gate(torch.tensor(real), torch.tensor(fake))
    assert [bool(g) for g in got] == [discriminator, decoder]
    assert EQUILIBRIUM == 0.68


def test_a_closed_gate_keeps_parameters_and_state() -> None:
    model = VAEGAN(SHAPES[0], latent_dim=4, margin=-10.0)
    model.gate = lambda real, fake: (torch.tensor(False), torch.tensor(True))  # type: ignore[method-assign]
    game = Game(model, 0, torch.device("cpu"), "float32")
    before = {k: v.clone() for k, v in game.tensors().items() if "discriminator" in k}
    game.turn(model.turns(0)[0], batch(SHAPES[0]), 0, model.optim(0))
    after = game.tensors()
    for name, value in before.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(after[name], value), name


@pytest.mark.parametrize("size", [28, 32, 64, 100, 128])
def test_networks_take_sizes_as_arguments(size: int) -> None:
    for (name, preset), arguments in SMALL.items():
        if size == 100 and (name, preset) == ("vaegan", "modern"):
            arguments = arguments | {"code_stride": 4}
        asked = {"model": {"name": name, "preset": preset, **arguments}}
        model = build(name, resolve(asked).model.arguments, Shape(2, 1, size)).eval()
        with torch.inference_mode():
            made = model.decode(model.prior(torch.randn(2, *model.noise_shape), None), None)
        assert made.shape == (2, 2, size, size)


def test_a_code_beside_a_layout_is_coarser() -> None:
    grids = {
        (size, layout): make("vaegan", "modern", Shape(1, 1, size, layout, layout=layout))
        for size in (64, 128)
        for layout in (0, 4)
    }
    sides = {
        key: size // model.noise_shape[-1] for key, model in grids.items() for size in [key[0]]
    }
    assert sides == {(64, 0): 4, (64, 4): 8, (128, 0): 8, (128, 4): 16}


def test_an_unknown_argument_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        build("vaegan", {"latent_dims": 3}, SHAPES[0])
    assert str(caught.value) == (
        "config model.latent_dims is not known to vaegan; did you mean model.latent_dim"
    )


def test_an_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve({"model": {"name": "vae-gan"}})
    assert str(caught.value).startswith("model 'vae-gan' is not known, did you mean 'vaegan'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"latent_dim": "many"},
            "config model.latent_dim: Input should be a valid integer, unable to parse string as "
            "an integer, got 'many'",
        ),
        (
            {"form": "phased", "phases": 0.5},
            "config model.phases: Input should be a valid tuple, got 0.5",
        ),
        (
            {"form": "phased", "code_stride": 8},
            "config model.code_stride: 8 must be 2, 4, 8 or 16 and divide the image size, "
            "which is 28",
        ),
        (
            {"form": "phased", "phases": [0.7, 0.2]},
            "config model.phases: two ascending shares in [0, 1], got [0.7, 0.2]",
        ),
    ],
)
def test_values_that_cannot_work_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("vaegan", arguments, SHAPES[1])
    assert str(caught.value) == message


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("known", [("vae", "modern"), ("vaegan", "modern"), ("aaae", "modern")])
def test_every_autoencoder_takes_every_prior(known: tuple[str, str], prior: str) -> None:
    shape = SHAPES[1]
    torch.manual_seed(0)
    asked = {"model": {"name": known[0], "preset": known[1], **SMALL[known], "prior": prior}}
    model = build(known[0], resolve(asked).model.arguments, shape)
    game = Game(model, 0, torch.device("cpu"), "float32")
    for turn in model.turns(0.95):
        game.turn(turn, batch(shape, 6), 0, model.optim(0.95))
    model.settle([batch(shape, 30)])
    model.eval()
    cond = batch(shape).cond
    with torch.no_grad():
        noise = torch.randn(4, *model.noise_shape)
        z = model.prior(noise, cond)
        x = model.decode(z, cond)
        near = model.vary(noise, z, x, torch.randn_like(noise), cond, 0.5)
    assert near.shape == z.shape
    assert not torch.equal(near, z)
    assert x.isfinite().all()


def trace(known: tuple[str, str], arguments: dict[str, Any], rounds: int = 2) -> dict[str, float]:
    """Means of all terms after some rounds of the first phase."""
    torch.manual_seed(0)
    asked = {"model": {"name": known[0], "preset": known[1], **SMALL[known], **arguments}}
    model = build(known[0], resolve(asked).model.arguments, SHAPES[0])
    game = Game(model, 0, torch.device("cpu"), "float32")
    for number in range(rounds):
        for turn in model.turns(0.0):
            torch.manual_seed(number)
            game.turn(turn, batch(SHAPES[0]), number, model.optim(0.0))
    return game.account.close()


def test_alice_without_cycles_is_ali() -> None:
    assert trace(("alice", "author"), {"cycle": 0.0}) == trace(("ali", "author"), {})
    assert trace(("alice", "author"), {}) != trace(("ali", "author"), {})


def test_aaae_without_its_weight_is_an_autoencoder() -> None:
    plain = trace(("aaae", "modern"), {"adversarial": 0.0})
    assert "autoencoder/adversarial" not in plain
    switched = trace(("aaae", "modern"), {"adversarial": 0.0, "r1": 50.0})
    assert plain["discriminator/gradient"] != switched["discriminator/gradient"]
    assert plain["autoencoder/gradient"] == switched["autoencoder/gradient"]


def test_vae_terms_are_the_negative_elbo_per_pixel() -> None:
    model = make("vae", "author", SHAPES[0])
    move = model.explain(batch(SHAPES[0]))["autoencoder"]
    pixels = 2 * 32 * 32
    (one, reconstruction), (weight, kl) = move.terms["reconstruction"], move.terms["kl"]
    assert one == 1.0
    assert weight * pixels == pytest.approx(8)
    elbo = -(pixels * reconstruction + 8 * kl)
    assert move.total().item() * pixels == pytest.approx(-elbo.mean().item(), rel=1e-5)


def test_a_resting_judge_keeps_its_statistics() -> None:
    model = make("vae_disl", "author", SHAPES[0])
    game = Game(model, 0, torch.device("cpu"), "float32")
    game.turn(model.turns(0.0)[0], batch(SHAPES[0]), 0, model.optim(0.0))
    before = {k: v.clone() for k, v in model.discriminator.state_dict().items()}
    game.turn(model.turns(0.99)[0], batch(SHAPES[0]), 0, model.optim(0.99))
    after = model.discriminator.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())


def test_a_three_dimensional_model_trains() -> None:
    torch.manual_seed(0)
    shape = Shape(1, 1, 16, spatial_dims=3)
    arguments = {"network": "residual", "width": 8, "latent_dim": 8, "prior": "gmm"}
    model = build("vae", arguments, shape)
    game = Game(model, 0, torch.device("cpu"), "float32")
    x = torch.rand(4, 1, 16, 16, 16) * 2 - 1
    losses = []
    for step in range(12):
        game.turn(model.turns(0)[0], Batch(x), step, model.optim(0))
        losses.append(game.account.close()["autoencoder/reconstruction"])
    assert losses[-1] < losses[0]
    assert model.decode(model.encode(x, None)[0], None).shape == x.shape


SWITCHES = {
    ("vaegan", "author"): {
        "feature_weight": 1.0,
        "real_weight": 0.5,
        "reconstructions_play": False,
        "saturating": False,
        "margin": 0.0,
    },
    ("vaegan", "modern"): {
        "mask_weight": 1.0,
        "kl_weight": 1.0,
        "adversarial": 1.0,
        "texture": 5.0,
        "lr": 1e-2,
        "sharpen_lr": 1e-2,
        "prior_batches": 3,
        "code_channels": 2,
        "code_stride": 2,
        "phases": [0.0, 0.0],
    },
    ("vaegan", "layout"): {"level_weight": 9.0, "kl_weight": 1.0, "phases": [1.0, 1.0]},
    ("vae", "author"): {
        "network": "plain",
        "width": 4,
        "latent_dim": 4,
        "likelihood": "learned",
        "beta": 0.1,
        "rule": "adam",
        "lr": 1e-2,
        "prior": "flow",
    },
    ("vae", "modern"): {"prior_share": 0.5, "prior_width": 8, "prior": "adversarial"},
    ("gan", "modern"): {
        "network": "plain",
        "duel": "hinge",
        "augment": ["translation"],
        "r1": 0.1,
        "r2": 0.1,
        "lecam": 0.3,
        "judge_turns": 2,
        "lr": 1e-2,
        "judge_lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.5,
    },
    ("vae_disl", "modern"): {
        "gan_share": 0.9,
        "pixel_weight": 3.0,
        "kl_weight": 9.0,
        "duel": "hinge",
        "r1": 0.1,
        "lr": 1e-2,
    },
    ("wgan", "author"): {"augment": ["cutout"], "critic_turns": 1, "clip": 0.1, "lr": 1e-2},
    ("alpha_gan", "modern"): {
        "reconstruction": 1.0,
        "code_width": 8,
        "duel": "hinge",
        "r1": 0.1,
        "augment": ["brightness"],
        "lr": 1e-2,
    },
    ("gvae", "modern"): {
        "reconstruction": 0.0,
        "beta": 9.0,
        "penalty": 1.0,
        "critic_turns": 1,
        "augment": ["contrast"],
        "lr": 1e-2,
        "critic_lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.5,
    },
    ("aaae", "modern"): {
        "adversarial": 1.0,
        "code_rounds": 2,
        "critic_turns": 1,
        "r1": 0.1,
        "lr": 1e-2,
        "cooldown": 0.9,
        "prior_share": 0.2,
        "prior": "flow",
    },
    ("aaae", "author"): {"code_rounds": 1, "code_lr": 1e-2},
    ("ali", "modern"): {"maxout": True, "lr": 1e-2, "judge_lr": 1e-2},
    ("alice", "modern"): {"cycle": 5.0, "maxout": True, "lr": 1e-2, "judge_lr": 1e-2},
    ("wae_mmd", "modern"): {"penalty": 99.0, "pretrain": 0.5, "lr": 1e-2},
    ("wae_gan", "modern"): {
        "penalty": 99.0,
        "pretrain": 0.5,
        "lr": 1e-2,
        "judge_lr": 1e-2,
        "log_prior": True,
    },
    ("wgan_gp", "author"): {
        "network": "residual",
        "critic_turns": 1,
        "penalty": 1.0,
        "drift": 1.0,
        "lr": 1e-2,
        "critic_lr": 1e-2,
        "beta1": 0.9,
        "augment": ["translation"],
    },
}


@pytest.mark.parametrize(
    ("known", "switch"),
    [(known, switch) for known, switches in SWITCHES.items() for switch in switches],
    ids=str,
)
def test_every_switch_changes_the_weights_it_leads_to(known: tuple[str, str], switch: str) -> None:
    def trained(arguments: dict) -> list[torch.Tensor]:
        torch.manual_seed(0)
        name, told = known
        shape = LAYOUT if told == "layout" else SHAPES[0]
        preset = "modern" if told == "layout" else told
        asked = {"model": {"name": name, "preset": preset, **SMALL[name, preset], **arguments}}
        model = build(name, resolve(asked).model.arguments, shape)
        game = Game(model, 0, torch.device("cpu"), "float32")
        position = 0
        rounds = 2 if known == ("vaegan", "author") else 6
        for step in range(rounds):
            for turn in model.turns(step / rounds):
                torch.manual_seed(position)
                game.turn(
                    turn, batch(shape, 4 * turn.batches), position, model.optim(step / rounds)
                )
                position += 4 * turn.batches
        return [p.detach().clone() for p in model.parameters()]

    plain, switched = trained({}), trained({switch: SWITCHES[known][switch]})
    same = len(plain) == len(switched) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(plain, switched, strict=False)
    )
    assert not same
