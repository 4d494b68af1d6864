"""The terms of the models are the published ones: penalties, gates, and limits in one another."""

from typing import Any

import pytest
import torch

from medaug.core.batch import Shape
from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.models import build
from medaug.models.base import Move
from medaug.models.losses import gradient_penalty
from medaug.models.vaegan import EQUILIBRIUM, VAEGAN, SharedMove
from medaug.training.step import Players, total_norm
from tests.support.small_models import SHAPES, SMALL, batch, make


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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reconstructions_play", [True, False])
def test_shared_passes_give_each_player_the_gradients_of_its_own_terms(
    shape: Shape, reconstructions_play: bool
) -> None:
    torch.manual_seed(0)
    model = VAEGAN(shape, latent_dim=4, reconstructions_play=reconstructions_play)
    moves = model.play(batch(shape))
    sizes = {}
    for player, (network,) in model.game_players().items():
        parameters = list(network.parameters())
        move = moves[player]
        assert isinstance(move, SharedMove)
        total = Move(move.terms).total()
        assert torch.equal(move.total(), total)
        found = torch.autograd.grad(move.total(), parameters, retain_graph=True)
        wanted = torch.autograd.grad(total, parameters, retain_graph=True)
        apart = total_norm([a - b for a, b in zip(found, wanted, strict=True)])
        assert apart < 1e-4 * total_norm(wanted), player
        sizes[player] = float(total_norm(wanted))
    assert min(sizes.values()) > 0


def test_a_decoder_that_does_not_saturate_takes_a_pass_of_its_own() -> None:
    moves = VAEGAN(SHAPES[0], latent_dim=4, saturating=False).play(batch(SHAPES[0]))
    assert {type(move) for move in moves.values()} == {Move}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_real_images_and_fakes_both_weigh_in_the_game(share: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.real_weight: .*, got [01]$"):
        VAEGAN(SHAPES[0], latent_dim=4, real_weight=share)


def test_a_closed_gate_keeps_parameters_and_state() -> None:
    model = VAEGAN(SHAPES[0], latent_dim=4, margin=-10.0)
    model.gate = lambda real, fake: (torch.tensor(False), torch.tensor(True))  # type: ignore[method-assign]
    game = Players(model, 0, torch.device("cpu"), "float32")
    before = {k: v.clone() for k, v in game.tensors().items() if "discriminator" in k}
    game.turn(model.turns(0)[0], batch(SHAPES[0]), 0, model.optim(0))
    after = game.tensors()
    for name, value in before.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(after[name], value), name


def trace(known: tuple[str, str], arguments: dict[str, Any], rounds: int = 2) -> dict[str, float]:
    """Means of all terms after some rounds of the first phase."""
    torch.manual_seed(0)
    asked = {"model": {"name": known[0], "preset": known[1], **SMALL[known], **arguments}}
    model = build(known[0], resolve(asked).model.arguments, SHAPES[0])
    game = Players(model, 0, torch.device("cpu"), "float32")
    for number in range(rounds):
        for turn in model.turns(0.0):
            torch.manual_seed(number)
            game.turn(turn, batch(SHAPES[0]), number, model.optim(0.0))
    return game.loss_log.means()


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
    move = model.train_autoencoder(batch(SHAPES[0]))["autoencoder"]
    pixels = 2 * 32 * 32
    (one, reconstruction), (weight, kl) = move.terms["reconstruction"], move.terms["kl"]
    assert one == 1.0
    assert weight * pixels == pytest.approx(8)
    elbo = -(pixels * reconstruction + 8 * kl)
    assert move.total().item() * pixels == pytest.approx(-elbo.mean().item(), rel=1e-5)


def test_a_resting_judge_keeps_its_statistics() -> None:
    model = make("vae_disl", "author", SHAPES[0])
    game = Players(model, 0, torch.device("cpu"), "float32")
    game.turn(model.turns(0.0)[0], batch(SHAPES[0]), 0, model.optim(0.0))
    before = {k: v.clone() for k, v in model.discriminator.state_dict().items()}
    game.turn(model.turns(0.99)[0], batch(SHAPES[0]), 0, model.optim(0.99))
    after = model.discriminator.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())
