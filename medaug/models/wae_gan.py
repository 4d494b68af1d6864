"""WAE-GAN of Tolstikhin et al. 2018: codes are held to the prior by an adversary of codes.

Healthy: ``reconstruction`` falls; the adversary's ``real`` and ``fake`` stay between 0.5 and 0.7.
Both near 0: codes do not match the prior; raise ``penalty`` or lower ``judge_lr``.
"""

from collections.abc import Sequence

import torch
from torch import nn

from medaug.core.batch import Shape
from medaug.models.base import Batch, Move, OptimizerSettings, Turn
from medaug.models.losses import fake_loss, real_loss
from medaug.models.networks.build import Network
from medaug.models.networks.latent import CodeJudge
from medaug.models.wae import WAE


class WAEGAN(WAE):
    """See the module's docstring; arguments as WAE's, and those below.

    Args:
        judge_lr: the adversary's rate, which falls with ``lr``.
        log_prior: whether the adversary's logit starts from the prior's log density.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 8,
        network: Network = "dcgan",
        width: int = 64,
        penalty: float = 10.0,
        pretrain: float = 0.003,
        lr: float = 1e-3,
        judge_lr: float = 5e-4,
        log_prior: bool = False,
        prior: str = "gaussian",
        prior_share: float = 0.25,
        prior_width: int = 512,
        prior_steps: int = 24,
    ) -> None:
        super().__init__(
            shape, latent_dim, network, width, penalty, pretrain, lr,
            prior, prior_share, prior_width, prior_steps,
        )  # fmt: skip
        self.code_discriminator = CodeJudge(latent_dim, 512, 4, shape.cond_dim, log_prior)
        self.judge_lr = judge_lr

    def game_players(self) -> dict[str, tuple[nn.Module, ...]]:
        return {**super().game_players(), "code_discriminator": (self.code_discriminator,)}

    def game_optim(self, progress: float) -> dict[str, OptimizerSettings]:
        judge = OptimizerSettings(self.judge_lr * self.pace(progress), betas=(0.5, 0.999))
        return {**super().game_optim(progress), "code_discriminator": judge}

    def match_codes(self) -> Sequence[Turn]:
        return [Turn(self.rebuild), Turn(self.judge_codes)]

    def rebuild(self, batch: Batch) -> dict[str, Move]:
        z = self.noisy_codes(batch)
        escape = (self.penalty, real_loss(self.code_discriminator(z, batch.cond)))
        move = Move({**self.rebuilt(batch, z), "code": escape})
        return {"encoder": move, "decoder": move}

    def judge_codes(self, batch: Batch) -> dict[str, Move]:
        with torch.no_grad():  # the encoder rests
            z_hat = self.noisy_codes(batch)
        on_real = self.code_discriminator(torch.randn_like(z_hat), batch.cond)
        on_fake = self.code_discriminator(z_hat, batch.cond)
        terms = {"real": (1.0, real_loss(on_real)), "fake": (1.0, fake_loss(on_fake))}
        return {"code_discriminator": Move(terms)}
