"""alpha-GAN of Rosca, Lakshminarayanan, Warde-Farley and Mohamed 2017.

An autoencoder with two judges: one of images, who sees samples and reconstructions, one of codes.
The first public version of the paper swaps prior and posterior in the code judge's loss, as its
authors confirmed; here codes of images are the fakes.

Healthy: ``reconstruction`` falls throughout; both judges' ``real`` and ``fake`` stay between 0.3
and 0.7.  The code judge near 0: codes do not match the prior, and samples will be poor.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.autoencoder import Autoencoder
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.discriminator import Discriminator
from medaug.models.losses import ADVERSARIAL_LOSSES, absolute_error
from medaug.models.networks.build import Network
from medaug.models.networks.latent import CodeJudge
from medaug.runtime import collectives


class AlphaGAN(Autoencoder):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        latent_dim: dimensions of the code.
        network: family of encoder, decoder and discriminator.
        width: of the three.
        reconstruction: weight of the mean absolute error.
        code_width: of the judge of codes.
        duel: the adversarial loss on images; see `medaug.models.losses`.
        r1: gamma of the zero-centred penalty on real images.
        augment: differentiable augmentations of what the judge of images sees.
        lr: of all players.
        prior: see Autoencoder, as the three that follow.
        prior_share: see ``prior``.
        prior_width: see ``prior``.
        prior_steps: see ``prior``.
    """

    stochastic = False

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 64,
        network: Network = "dcgan",
        width: int = 64,
        reconstruction: float = 40.0,
        code_width: int = 700,
        duel: str = "logistic",
        r1: float = 0.0,
        augment: Sequence[str] = (),
        lr: float = 8e-4,
        prior: str = "gaussian",
        prior_share: float = 0.25,
        prior_width: int = 512,
        prior_steps: int = 24,
    ) -> None:
        super().__init__(
            shape, latent_dim, network, width, prior, prior_share, prior_width, prior_steps
        )
        self.discriminator = Discriminator(shape, network, width, duel=duel, r1=r1, augment=augment)
        self.code_discriminator = CodeJudge(latent_dim, code_width, 2, shape.cond_dim)
        self.latent_dim, self.reconstruction, self.lr = latent_dim, reconstruction, lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {
            "autoencoder": (self.encoder, self.decoder),
            "discriminator": (self.discriminator,),
            "code_discriminator": (self.code_discriminator,),
        }

    def game(self, progress: float) -> Sequence[Turn]:
        return [*2 * [Turn(self.rebuild)], Turn(self.judge), Turn(self.judge_codes)]

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        return dict.fromkeys(self.game_players(), OptimizerSettings(self.lr, betas=(0.5, 0.9)))

    def rebuild(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        z_hat, _ = self.encode(x, cond)
        x_hat = batch.seen(self.decode(z_hat, cond))
        x_p = batch.seen(self.decode(torch.randn_like(z_hat), cond))
        terms = {
            "reconstruction": (self.reconstruction, absolute_error(x_hat, x)),
            "hat": (0.5, self.discriminator.escape(x_hat, x, cond)),
            "sample": (0.5, self.discriminator.escape(x_p, x, cond)),
            "code": (
                1.0,
                ADVERSARIAL_LOSSES["logistic"].escape(self.code_discriminator(z_hat, cond), None),
            ),
        }
        return {"autoencoder": Move(terms)}

    def judge(self, batch: Batch) -> dict[str, Move]:
        x, cond = batch.x, batch.cond
        with torch.no_grad():  # the autoencoder rests
            z = self.encode(x, cond)[0]
            second = (
                collectives.global_rows(len(x), x.device) >= collectives.global_count(len(x)) // 2
            )
            z = torch.where(second[:, None], torch.randn_like(z), z)
            fake = batch.seen(self.decode(z, cond))
        return {"discriminator": Move(self.discriminator.judge(x, fake, cond))}

    def judge_codes(self, batch: Batch) -> dict[str, Move]:
        cond = batch.cond
        with torch.no_grad():
            z_hat, _ = self.encode(batch.x, cond)
        z = torch.randn_like(z_hat)
        terms = ADVERSARIAL_LOSSES["logistic"].judge(
            self.code_discriminator(z, cond), self.code_discriminator(z_hat, cond)
        )
        return {"code_discriminator": Move({name: (1.0, value) for name, value in terms.items()})}
