"""WGAN-GP of Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville 2017, Algorithm 1.

The critic plays several turns to the generator's one, each on fresh images; its gradient is held
to norm 1 on lines between real and fake.  No network has batch statistics, since the penalty is
per sample.

Healthy: ``critic/real`` + ``critic/fake`` (the negative Wasserstein estimate) is negative, grows
quickly in size, then shrinks slowly; ``penalty`` stays below about 0.1.  A penalty that keeps
growing means the critic escapes its constraint: lower the rate.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medaug.errors import ConfigError
from medaug.models.base import Batch, Model, Move, Optim, Shape, Turn
from medaug.networks.convolutional import (
    PlainCritic,
    PlainGenerator,
    ResidualCritic,
    ResidualGenerator,
)
from medaug.penalties import gradient_penalty

FAMILIES = {
    "plain": (PlainGenerator, PlainCritic),
    "residual": (ResidualGenerator, ResidualCritic),
}


class WGANGP(Model):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        latent_dim: dimensions of the code.
        network: ``plain`` (the authors' code) or ``residual``.
        width: channels at the image's end of both networks.
        critic_turns: the critic's turns to one of the generator.
        penalty: weight of the gradient penalty.
        lr: the generator's rate; ``critic_lr`` the critic's.
        critic_lr: see ``lr``.
        beta1: Adam's first decay; the second is 0.9.
        drift: weight of the mean squared score of real images.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: str = "plain",
        width: int = 64,
        critic_turns: int = 5,
        penalty: float = 10.0,
        lr: float = 1e-4,
        critic_lr: float = 1e-4,
        beta1: float = 0.5,
        drift: float = 0.0,
    ) -> None:
        super().__init__()
        if network not in FAMILIES:
            raise ConfigError(
                f"config model.network: {network!r} is not known (known: {', '.join(FAMILIES)})"
            )
        decoder, critic = FAMILIES[network]
        self.decoder = decoder(shape.channels, shape.size, latent_dim, width, shape.cond_dim)
        self.discriminator = critic(shape.channels, shape.size, width, shape.cond_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.noise_shape = (latent_dim,)
        self.critic_turns, self.penalty, self.drift = critic_turns, penalty, drift
        self.lr, self.critic_lr, self.beta1 = lr, critic_lr, beta1

    def players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"discriminator": (self.discriminator,), "generator": (self.decoder,)}

    def turns(self, progress: float) -> Sequence[Turn]:
        return self.critic_turns * [Turn(self.judge)] + [Turn(self.generate)]

    def optim(self, progress: float) -> dict[str, Optim]:
        betas = (self.beta1, 0.9)
        return {
            "discriminator": Optim(self.critic_lr, betas=betas),
            "generator": Optim(self.lr, betas=betas),
        }

    def judge(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the generator rests
            fake = self.fakes(batch)
        on_real = self.discriminator(x, cond)
        slope = gradient_penalty(lambda u: self.discriminator(u, cond), x, fake)
        terms = {
            "real": (1.0, -on_real),
            "fake": (1.0, self.discriminator(fake, cond)),
            "penalty": (self.penalty, slope),
        }
        if self.drift:
            terms["drift"] = (self.drift, on_real.square())
        return {"discriminator": Move(terms)}

    def generate(self, batch: Batch) -> dict[str, Move]:
        score = self.discriminator(self.fakes(batch), batch.cond)
        return {"generator": Move({"adversarial": (1.0, -score)})}

    def fakes(self, batch: Batch) -> Tensor:
        noise = torch.randn(len(batch.x), *self.noise_shape, device=batch.x.device)
        return self.decoder(noise, batch.cond)

    def prior(self, noise: Tensor, cond: Tensor | None) -> Tensor:
        return noise

    def decode(self, z: Tensor, cond: Tensor | None) -> Tensor:
        return self.decoder(z, cond).float()
