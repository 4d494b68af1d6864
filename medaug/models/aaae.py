"""AAAE of Xu, Keshmiri and Wang 2019: two games beside an autoencoder, its paper's errors resolved.

1. Encoder and decoder minimise the reconstruction error minus the discriminator's logit on
   reconstructions (Eq. 5 to 7, evaluated on reconstructions; the weight is on the logit).
2. The discriminator tells images from reconstructions.
3. A generator of codes plays against a critic of codes (Eq. 8 and 9).

Samples are never shown to the discriminator.  With no ``code_rounds`` step 3 waits for the end of
the run, when the codes stand still; so it does with another prior than ``adversarial``.  With a
weight of 0 it is a plain autoencoder.

Healthy: ``reconstruction`` falls to a few hundredths; ``real`` and ``fake`` fall slowly;
``code_critic/real`` + ``fake`` is negative and shrinks, its ``penalty`` below about 0.1.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.losses import half_squared_error, per_sample
from medaug.models.networks.build import Network
from medaug.models.priors import ADVERSARIAL, AdversarialPrior, PriorOptions


class AAAE(Autoencoder):
    """An autoencoder with a discriminator of reconstructions and a generator of codes.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of all three networks.
        width: channels of their first level.
        adversarial: weight of the logit on reconstructions, lambda_1 of the paper.
        code_rounds: rounds of the code game after each step of the autoencoder, k of the paper;
            0 leaves it to the last ``prior.share`` of the images, at the rate of other priors.
        critic_turns: the code critic's turns to one of the code generator.
        r1: gamma of the zero-centred penalty on real images.
        lr: of encoder, decoder and discriminator.
        code_lr: of the code game where it is played throughout.
        cooldown: share of the autoencoder's part of the run in which ``lr`` falls to 0 at last.
        prior: how codes are distributed and drawn.
    """

    stochastic = False

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 128,
        network: Network = "aaae",
        width: int = 64,
        adversarial: float = 1e-3,
        code_rounds: int = 2,
        critic_turns: int = 5,
        r1: float = 0.0,
        lr: float = 1e-4,
        code_lr: float = 1e-4,
        cooldown: float = 0.0,
        prior: PriorOptions = ADVERSARIAL,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, prior)
        self.discriminator = Discriminator(shape, network, width, r1=r1)
        self.adversarial, self.code_rounds = adversarial, code_rounds
        self.lr, self.code_lr = lr, code_lr
        self.cooldown = cooldown
        self.plays_codes = isinstance(self.code, AdversarialPrior) and code_rounds > 0
        if isinstance(self.code, AdversarialPrior):
            self.code.critic_turns = critic_turns
        if self.plays_codes:
            self.prior_share = 0.0

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {"autoencoder": (self.encoder, self.decoder), "discriminator": (self.discriminator,)}

    def game(self, progress: float) -> Sequence[Turn]:
        turns = [Turn(self.train_autoencoder), Turn(self.train_discriminator)]
        if self.plays_codes:
            turns += self.code_rounds * [*self.code.turns(self.codes)]
        return turns

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        pace = min(1.0, (1 - progress) / self.cooldown) if self.cooldown else 1.0
        steps = dict.fromkeys(
            self.game_players(), OptimizerSettings(self.lr * pace, betas=(0.5, 0.999))
        )
        return {**steps, **self.code.optim(self.code_lr)} if self.plays_codes else steps

    def train_autoencoder(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        x_hat = batch.seen(self.decode(self.encode(x, cond)[0], cond))
        terms = {"reconstruction": (2.0, half_squared_error(x_hat, x))}
        if self.adversarial:
            adversarial = -per_sample(self.discriminator(x_hat, cond)[0])
            terms["adversarial"] = (self.adversarial, adversarial)
        return {"autoencoder": Move(terms)}

    def train_discriminator(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the autoencoder rests
            x_hat = batch.seen(self.decode(self.encode(x, cond)[0], cond))
        return {"discriminator": Move(self.discriminator.discriminator_loss(x, x_hat, cond))}
