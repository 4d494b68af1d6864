"""What steadies a discriminator: losses, augmentations, penalties, running means, clipping."""

import math

import pytest
import torch

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.augment import KINDS, augment, check
from medaug.models.base import OptimizerSettings
from medaug.models.discriminator import Discriminator
from medaug.models.losses import ADVERSARIAL_LOSSES, adversarial_loss, imq_mmd, squared_slope
from medaug.models.networks.build import make_discriminator
from medaug.training.optimizers import PlayerOptimizer

SHAPE = Shape(2, 1, 16)


@pytest.mark.parametrize("name", ADVERSARIAL_LOSSES)
def test_winning_lowers_the_judges_loss_and_raises_the_others(name: str) -> None:
    rules = adversarial_loss(name)
    win, lose = torch.full((3,), 2.0), torch.full((3,), -2.0)
    judged = [
        sum(v.mean() for v in rules.discriminator_loss(*pair).values())
        for pair in ((win, lose), (lose, win))
    ]
    assert judged[0] < judged[1]
    assert rules.generator_loss(lose, win).mean() > rules.generator_loss(win, lose).mean()


def test_duels_have_their_closed_forms() -> None:
    real, fake = torch.tensor([0.5]), torch.tensor([-0.25])
    terms = ADVERSARIAL_LOSSES["relativistic"].discriminator_loss(real, fake)
    assert terms["margin"].item() == pytest.approx(math.log1p(math.exp(-0.75)))
    assert ADVERSARIAL_LOSSES["relativistic"].generator_loss(fake, real).item() == pytest.approx(
        math.log1p(math.exp(0.75))
    )
    assert sum(
        ADVERSARIAL_LOSSES["hinge"].discriminator_loss(real, fake).values()
    ).item() == pytest.approx(0.5 + 0.75)
    assert sum(
        ADVERSARIAL_LOSSES["wasserstein"].discriminator_loss(real, fake).values()
    ).item() == pytest.approx(-0.75)
    logistic = ADVERSARIAL_LOSSES["logistic"].discriminator_loss(real, fake)
    assert logistic["real"].item() == pytest.approx(math.log1p(math.exp(-0.5)))
    assert ADVERSARIAL_LOSSES["saturating"].generator_loss(fake, None).item() == pytest.approx(
        -math.log1p(math.exp(-0.25))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_augmentations_change_samples_each_in_their_own_way(kind: str) -> None:
    torch.manual_seed(0)
    x = (torch.rand(1, 2, 16, 16) * 2 - 1).repeat(6, 1, 1, 1)
    y = augment(x, [kind], images=1)
    assert y.shape == x.shape
    assert not torch.equal(y[0], y[1])
    if kind in ("brightness", "contrast"):
        assert torch.equal(y[:, 1:], x[:, 1:])
        assert not torch.equal(y[:, :1], x[:, :1])


def test_translation_moves_what_is_there_and_fills_with_background() -> None:
    torch.manual_seed(1)
    x = -torch.ones(64, 1, 16, 16)
    x[:, :, 8, 8] = 1
    y = augment(x, ["translation"], 1)
    assert torch.equal(y.flatten(1).sum(1), x.flatten(1).sum(1))
    places = (y > 0).nonzero()[:, 2:]
    assert (places - 8).abs().max() == 2


def test_cutout_sets_one_box_to_background() -> None:
    torch.manual_seed(1)
    y = augment(torch.ones(64, 1, 16, 16), ["cutout"], 1)
    assert set(y.unique().tolist()) == {-1.0, 1.0}
    assert (y < 0).flatten(1).sum(1).max() == 25


@pytest.mark.parametrize("kind", KINDS)
def test_augmentations_can_be_differentiated_twice(kind: str) -> None:
    x = torch.rand(3, 1, 8, 8)
    weight = torch.randn(64, requires_grad=True)
    slope = squared_slope(lambda u: (augment(u, [kind], 1).flatten(1) @ weight).square(), x)
    (gradient,) = torch.autograd.grad(slope.sum(), weight)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_squared_slope_of_a_quadratic_is_its_closed_form() -> None:
    x = torch.randn(4, 3, 5)
    got = squared_slope(lambda u: 0.5 * u.flatten(1).square().sum(1), x)
    assert torch.allclose(got, x.flatten(1).square().sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "term"),
    [({"r1": 2.0}, "r1"), ({"r2": 2.0}, "r2"), ({"gradient_penalty": 10.0}, "penalty"),
     ({"lecam": 0.3}, "lecam"), ({"drift": 1e-3}, "drift")],
)  # fmt: skip
def test_every_setting_of_the_referee_adds_its_term(setting: dict[str, float], term: str) -> None:
    torch.manual_seed(0)
    referee = Discriminator(SHAPE, "residual", 8, **setting)
    real, fake = torch.rand(2, 4, 2, 16, 16)
    terms = referee.discriminator_loss(real, fake, None)
    assert term in terms
    assert term not in Discriminator(SHAPE, "residual", 8).discriminator_loss(real, fake, None)
    assert terms[term][1].shape == (4,)
    assert all(value.isfinite().all() for _, value in terms.values())


def test_referee_sees_augmented_images() -> None:
    torch.manual_seed(0)
    referee = Discriminator(SHAPE, "residual", 8, augment=["translation"])
    x = torch.rand(1, 2, 16, 16)
    scores = {round(referee.score(x, None).item(), 6) for _ in range(8)}
    assert len(scores) > 1


def test_lecam_follows_the_scores_and_vanishes_inside() -> None:
    referee = Discriminator(SHAPE, "residual", 8, lecam=0.3)
    real, fake = torch.full((4,), 1.0), torch.full((4,), -1.0)
    referee.lecam_penalty(real, fake)
    assert referee.typical_real.item() == pytest.approx(1.0)
    assert referee.typical_fake.item() == pytest.approx(-1.0)
    got = referee.lecam_penalty(real, fake)
    assert got.tolist() == pytest.approx([8.0] * 4)
    assert referee.lecam_penalty(torch.full((4,), -2.0), torch.full((4,), 2.0)).abs().max() < 0.1


def test_clip_bounds_the_weights_after_a_step() -> None:
    weight = torch.nn.Parameter(torch.tensor([5.0, -5.0, 0.001]))
    PlayerOptimizer([weight], "rmsprop").step(
        [torch.ones(3)], OptimizerSettings(1e-4, "rmsprop", clip=0.01), None
    )
    assert weight.abs().max() <= 0.01
    assert weight[2] < 0.001


def test_a_step_does_not_depend_on_how_a_gradient_lies_in_memory() -> None:
    start, gradient = torch.randn(2, 4, 3, 3, 3)
    turned = gradient.transpose(0, 1).contiguous().transpose(0, 1)
    assert turned.stride() != gradient.stride()
    for kind in ("adam", "rmsprop"):
        moved = []
        for g in (gradient.clone(), turned.clone(memory_format=torch.preserve_format)):
            weight = torch.nn.Parameter(start.clone())
            PlayerOptimizer([weight], kind).step([g], OptimizerSettings(0.1, kind), None)
            moved.append(weight.detach())
        assert torch.equal(*moved), kind


def test_imq_mmd_is_unbiased_and_sees_a_shift() -> None:
    torch.manual_seed(0)
    same = torch.stack([imq_mmd(*torch.randn(2, 64, 8)) for _ in range(200)])
    assert abs(float(same.mean())) < 3 * float(same.std()) / math.sqrt(200)
    assert imq_mmd(torch.randn(64, 8) + 1, torch.randn(64, 8)) > same.max()


def test_imq_mmd_is_its_definition() -> None:
    a, b = torch.randn(2, 5, 3, dtype=torch.float64)
    total = 0.0
    for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        c = 2 * 3 * scale
        for i in range(5):
            for j in range(5):
                if i != j:
                    total += c / (c + float((a[i] - a[j]).square().sum())) / 20
                    total += c / (c + float((b[i] - b[j]).square().sum())) / 20
                total -= 2 * c / (c + float((a[i] - b[j]).square().sum())) / 25
    assert float(imq_mmd(a, b)) == pytest.approx(total, abs=1e-4)


def test_names_that_are_not_known() -> None:
    with pytest.raises(ConfigError) as caught:
        adversarial_loss("war")
    assert str(caught.value) == (
        "config model.adversarial_loss: 'war' is not known "
        "(known: logistic, saturating, hinge, wasserstein, relativistic)"
    )
    with pytest.raises(ConfigError) as caught:
        check(["flip"])
    assert str(caught.value) == (
        "config model.augment: 'flip' is not known "
        "(known: brightness, contrast, translation, cutout)"
    )


def test_penalties_refuse_batch_statistics() -> None:
    with pytest.raises(ConfigError) as caught:
        make_discriminator("dcgan", SHAPE, 8, penalised=True)
    assert str(caught.value) == (
        "config model.network: the discriminator of 'dcgan' has batch statistics, which a "
        "penalty per sample does not allow; use plain, aaae, gvae or residual"
    )
