"""A discriminator with its adversarial loss and what steadies it: penalties and augmentation.

Real and fake images pass through ``augment`` on their way in, penalties included.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models import augment as augmentation
from medaug.models import losses
from medaug.models.losses import per_sample
from medaug.models.networks.build import Network, make_discriminator
from medaug.runtime import collectives

Terms = dict[str, tuple[float, Tensor]]


class Discriminator(nn.Module):
    """A discriminator with its adversarial loss, penalties and augmentation.

    Args:
        shape: channels, size and conditions of the data.
        network: architecture of the discriminator.
        width: channels of its first level.
        adversarial_loss: logistic, saturating, hinge, wasserstein or relativistic.
        augment: differentiable augmentations of what it sees: brightness, contrast, translation,
            cutout.
        r1: gamma of the zero-centred penalty on real images.
        r2: gamma of the zero-centred penalty on fakes.
        gradient_penalty: weight of WGAN-GP's penalty between each real and its fake.
        lecam: weight of the pull towards running means of the scores (Tseng et al. 2021).
        drift: weight of the mean squared score of real images.
    """

    LECAM_DECAY = 0.99
    judged: Tensor
    typical_real: Tensor
    typical_fake: Tensor

    def __init__(
        self,
        shape: Shape,
        network: Network,
        width: int,
        *,
        adversarial_loss: str = "logistic",
        augment: Sequence[str] = (),
        r1: float = 0.0,
        r2: float = 0.0,
        gradient_penalty: float = 0.0,
        lecam: float = 0.0,
        drift: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = make_discriminator(
            network, shape, width, penalised=bool(r1 or r2 or gradient_penalty)
        )
        self.rules, self.changes, self.images = (
            losses.adversarial_loss(adversarial_loss),
            augmentation.check(augment),
            shape.images,
        )
        self.r1, self.r2, self.gradient_penalty = r1, r2, gradient_penalty
        self.lecam, self.drift = lecam, drift
        for name in ("judged", "typical_real", "typical_fake"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Logits and features of images as they are given."""
        logits, features = self.network(augmentation.augment(x, self.changes, self.images), cond)
        return logits.float(), features

    def score(self, x: Tensor, cond: Tensor | None) -> Tensor:
        """One score (b,) a sample: the mean over patches."""
        return per_sample(self(x, cond)[0])

    def discriminator_loss(self, real: Tensor, fake: Tensor, cond: Tensor | None) -> Terms:
        """The discriminator's terms; no gradient flows to ``fake``."""
        fake = fake.detach()
        on_real, on_fake = self(real, cond)[0], self(fake, cond)[0]
        terms: Terms = {
            k: (1.0, v) for k, v in self.rules.discriminator_loss(on_real, on_fake).items()
        }
        if self.gradient_penalty:
            slope = losses.gradient_penalty(lambda u: self.score(u, cond), real, fake)
            terms["penalty"] = (self.gradient_penalty, slope)
        if self.r1:
            terms["r1"] = (
                self.r1 / 2,
                losses.squared_slope(lambda u: self.score(u, cond), real),
            )
        if self.r2:
            terms["r2"] = (
                self.r2 / 2,
                losses.squared_slope(lambda u: self.score(u, cond), fake),
            )
        if self.lecam:
            terms["lecam"] = (self.lecam, self.lecam_penalty(on_real, on_fake))
        if self.drift:
            terms["drift"] = (self.drift, per_sample(on_real.square()))
        return terms

    def generator_loss(self, fake: Tensor, real: Tensor, cond: Tensor | None) -> Tensor:
        """The generator's adversarial loss, (b,)."""
        on_real = self(real, cond)[0] if self.rules.paired else None
        return self.rules.generator_loss(self(fake, cond)[0], on_real)

    def lecam_penalty(self, on_real: Tensor, on_fake: Tensor) -> Tensor:
        """How far scores lie beyond the other side's running mean, squared, (b,): LeCam."""
        with torch.no_grad():
            self.judged += 1
            share = (1 / self.judged).clamp_min(1 - self.LECAM_DECAY)
            self.typical_real += share * (collectives.all_mean(on_real.mean()) - self.typical_real)
            self.typical_fake += share * (collectives.all_mean(on_fake.mean()) - self.typical_fake)
        above = per_sample((on_real - self.typical_fake).relu().square())
        return above + per_sample((self.typical_real - on_fake).relu().square())
