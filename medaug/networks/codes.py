"""A judge of codes."""

from torch import Tensor, nn

from medaug.networks.blocks import joined
from medaug.networks.latent import Mlp


class CodeJudge(nn.Module):
    """Codes (b, d) and cond to logits (b,), large for draws of the prior; no batch statistics.

    Args:
        latent: dimensions of the code.
        width: of each of ``depth`` hidden layers.
        depth: see ``width``.
        cond_dim: numbers of the condition.
        log_prior: whether the logit starts from the log density of N(0, I) up to a constant
            (Tolstikhin et al. 2018, in their code).
    """

    def __init__(
        self, latent: int, width: int, depth: int, cond_dim: int, log_prior: bool = False
    ) -> None:
        super().__init__()
        self.layers = Mlp((latent + cond_dim, *[width] * depth, 1), 0.2)
        self.log_prior = log_prior

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        logits = self.layers(joined(z, cond))[:, 0].float()
        return logits - z.float().square().sum(1) / 2 if self.log_prior else logits
