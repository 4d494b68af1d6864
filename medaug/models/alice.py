"""ALICE of Li et al. 2017: ALI with cycles, so that reconstructions stay with their image.

To ALI's game, in its non-saturating form on logits, come the absolute errors of x against
G(E(x)) and of z against E(G(z)); the noise is Gaussian, as the other models' is.  With a weight of
0 it is ALI.

Healthy: as ALI, with ``image_cycle`` and ``code_cycle`` falling.
"""

from torch import Tensor

from medaug.core.batch import Shape
from medaug.models.ali import ALI
from medaug.models.base import Batch
from medaug.models.losses import absolute_error
from medaug.models.networks.build import Network


class ALICE(ALI):
    """See the module's docstring.

    Args:
        shape: what the data dictate.
        latent_dim: dimensions of the code.
        network: family of encoder and decoder.
        width: of all three networks.
        maxout: see ALI.
        cycle: weight of both cycles.
        lr: see ALI.
        judge_lr: see ALI.
        prior: see Autoencoder, as the three that follow.
        prior_share: see ``prior``.
        prior_width: see ``prior``.
        prior_steps: see ``prior``.
    """

    def __init__(
        self,
        shape: Shape,
        latent_dim: int = 64,
        network: Network = "dcgan",
        width: int = 64,
        maxout: bool = True,
        cycle: float = 1.0,
        lr: float = 1e-4,
        judge_lr: float = 1e-4,
        prior: str = "gaussian",
        prior_share: float = 0.25,
        prior_width: int = 512,
        prior_steps: int = 24,
    ) -> None:
        super().__init__(
            shape, latent_dim, network, width, maxout, lr, judge_lr,
            prior, prior_share, prior_width, prior_steps,
        )  # fmt: skip
        self.cycle = cycle

    def cycles(
        self, batch: Batch, mu: Tensor, z: Tensor, x_p: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """The two cycles."""
        if not self.cycle:
            return {}
        x, cond = batch.x, batch.cond
        x_hat = batch.seen(self.decode(mu, cond))
        return {
            "image_cycle": (self.cycle, absolute_error(x_hat, x)),
            "code_cycle": (self.cycle, absolute_error(self.encode(x_p, cond)[0], z)),
        }
