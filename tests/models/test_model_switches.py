"""The arguments of the models: each changes the weights, and what cannot work is refused."""

import pytest
import torch

from medaug.core.config import resolve
from medaug.core.errors import ConfigError
from medaug.models import build
from medaug.models.base import Shape
from medaug.models.priors import PRIORS
from medaug.training.step import Players
from tests.support.small_models import LAYOUT, SHAPES, SMALL, batch


@pytest.mark.parametrize("size", [28, 32, 64, 100, 128])
def test_networks_take_sizes_as_arguments(size: int) -> None:
    for (name, preset), arguments in SMALL.items():
        if size == 100 and (name, preset) == ("spatial_vaegan", "modern"):
            arguments = arguments | {"code_stride": 4}
        asked = {"model": {"name": name, "preset": preset, **arguments}}
        model = build(name, resolve(asked).model.arguments, Shape(2, 1, size)).eval()
        with torch.inference_mode():
            made = model.decode(model.prior(torch.randn(2, *model.noise_shape), None), None)
        assert made.shape == (2, 2, size, size)


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
            {"phases": 0.5},
            "config model.phases: Input should be a valid tuple, got 0.5",
        ),
        (
            {"code_stride": 8},
            "config model.code_stride: 8 must be 2, 4, 8 or 16 and divide the image size, "
            "which is 28",
        ),
        (
            {"phases": [0.7, 0.2]},
            "config model.phases: two ascending shares in [0, 1], got [0.7, 0.2]",
        ),
    ],
)
def test_values_that_cannot_work_are_refused(arguments: dict, message: str) -> None:
    name = "vaegan" if "latent_dim" in arguments else "spatial_vaegan"
    with pytest.raises(ConfigError) as caught:
        build(name, arguments, SHAPES[1])
    assert str(caught.value) == message


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    "known", [("vae", "modern"), ("spatial_vaegan", "modern"), ("aaae", "modern")]
)
def test_every_autoencoder_takes_every_prior(known: tuple[str, str], prior: str) -> None:
    shape = SHAPES[1]
    torch.manual_seed(0)
    asked = {"model": {"name": known[0], "preset": known[1], **SMALL[known], "prior": prior}}
    model = build(known[0], resolve(asked).model.arguments, shape)
    game = Players(model, 0, torch.device("cpu"), "float32")
    for turn in model.turns(0.95):
        game.turn(turn, batch(shape, 6), 0, model.optim(0.95))
    model.fit_prior([batch(shape, 30)])
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


SWITCHES = {
    ("vaegan", "author"): {
        "feature_weight": 1.0,
        "real_weight": 0.5,
        "reconstructions_play": False,
        "saturating": False,
        "margin": 0.0,
    },
    ("spatial_vaegan", "modern"): {
        "mask_weight": 1.0,
        "kl_weight": 1.0,
        "adversarial": 1.0,
        "texture": 5.0,
        "lr": 1e-2,
        "sharpen_lr": 1e-2,
        "prior": {"width": 16, "steps": 3, "batches": 3},
        "code_channels": 2,
        "code_stride": 2,
        "phases": [0.0, 0.0],
    },
    ("spatial_vaegan", "layout"): {"level_weight": 9.0, "kl_weight": 1.0, "phases": [1.0, 1.0]},
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
    ("vae", "modern"): {"prior": {"name": "adversarial", "share": 0.5, "width": 8}},
    ("gan", "modern"): {
        "network": "plain",
        "adversarial_loss": "hinge",
        "augment": ["translation"],
        "r1": 0.1,
        "r2": 0.1,
        "lecam": 0.3,
        "discriminator_turns": 2,
        "lr": 1e-2,
        "discriminator_lr": 1e-2,
        "beta1": 0.9,
        "beta2": 0.5,
    },
    ("vae_disl", "modern"): {
        "gan_share": 0.9,
        "pixel_weight": 3.0,
        "kl_weight": 9.0,
        "adversarial_loss": "hinge",
        "r1": 0.1,
        "lr": 1e-2,
    },
    ("wgan", "author"): {"augment": ["cutout"], "critic_turns": 1, "clip": 0.1, "lr": 1e-2},
    ("alpha_gan", "modern"): {
        "reconstruction": 1.0,
        "code_width": 8,
        "adversarial_loss": "hinge",
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
        "prior": {"name": "flow", "share": 0.2},
    },
    ("aaae", "author"): {"code_rounds": 1, "code_lr": 1e-2},
    ("ali", "modern"): {"maxout": True, "lr": 1e-2, "discriminator_lr": 1e-2},
    ("alice", "modern"): {"cycle": 5.0, "maxout": True, "lr": 1e-2, "discriminator_lr": 1e-2},
    ("wae_mmd", "modern"): {"penalty": 99.0, "pretrain": 0.5, "lr": 1e-2},
    ("wae_gan", "modern"): {
        "penalty": 99.0,
        "pretrain": 0.5,
        "lr": 1e-2,
        "discriminator_lr": 1e-2,
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
        game = Players(model, 0, torch.device("cpu"), "float32")
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
