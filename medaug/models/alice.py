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
from medaug.models.priors import GAUSSIAN, PriorOptions


class ALICE(ALI):
    """ALI with a cycle through images and one through codes.

    Args:
        shape: channels, size and conditions of the data.
        latent_dim: length of the code.
        network: architecture of encoder and decoder.
        width: channels of the first level of all three networks.
        maxout: whether the discriminator is the authors', of maxout and dropout, or of leaky ReLU.
        cycle: weight of both cycles.
        lr: Adam's rate of encoder and decoder.
        discriminator_lr: Adam's rate of the discriminator.
        prior: how codes are distributed and drawn.
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
        discriminator_lr: float = 1e-4,
        prior: PriorOptions = GAUSSIAN,
    ) -> None:
        super().__init__(shape, latent_dim, network, width, maxout, lr, discriminator_lr, prior)
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
