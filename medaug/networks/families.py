"""Which networks go together, by name.

Every encoder is made from (shape, outputs, width), every decoder from (shape, latent, width), every
discriminator from (shape, width), each with options of its family by keyword.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from medaug.errors import ConfigError
from medaug.networks.aaae import AAAEDecoder, AAAEDiscriminator, AAAEEncoder
from medaug.networks.convolutional import (
    DCGANDecoder,
    DCGANDiscriminator,
    DCGANEncoder,
    PlainDecoder,
    PlainDiscriminator,
    PlainEncoder,
)
from medaug.networks.gvae import GVAEDecoder, GVAEDiscriminator, GVAEEncoder
from medaug.networks.larsen import LarsenDecoder, LarsenDiscriminator, LarsenEncoder
from medaug.networks.mlp import MlpDecoder, MlpDiscriminator, MlpEncoder
from medaug.networks.residual import ResidualDecoder, ResidualDiscriminator, ResidualEncoder


@dataclass(frozen=True)
class Family:
    """Three networks of one make.

    Attributes:
        encoder: images and cond to rows.
        decoder: codes and cond to images before tanh.
        discriminator: images and cond to logits and features, Larsen's layer l the last of them.
        batch_statistics: whether the discriminator mixes the samples of a batch.
        layouts: whether a layout keeps its place in them.
    """

    encoder: Callable[..., nn.Module]
    decoder: Callable[..., nn.Module]
    discriminator: Callable[..., nn.Module]
    batch_statistics: bool
    layouts: bool = False


FAMILIES = {
    "larsen": Family(LarsenEncoder, LarsenDecoder, LarsenDiscriminator, True),
    "mlp": Family(MlpEncoder, MlpDecoder, MlpDiscriminator, True),
    "plain": Family(PlainEncoder, PlainDecoder, PlainDiscriminator, False),
    "dcgan": Family(DCGANEncoder, DCGANDecoder, DCGANDiscriminator, True),
    "aaae": Family(AAAEEncoder, AAAEDecoder, AAAEDiscriminator, False),
    "gvae": Family(GVAEEncoder, GVAEDecoder, GVAEDiscriminator, False),
    "residual": Family(ResidualEncoder, ResidualDecoder, ResidualDiscriminator, False, True),
}


def family(name: str) -> Family:
    """The networks called ``name``.

    Raises:
        ConfigError: no such family; the message suggests the nearest one.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(name, FAMILIES, n=1)
    near = near or [known for known in FAMILIES if known[:3] == name[:3]]
    hint = f", did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"config model.network: {name!r} is not known{hint} (known: {', '.join(FAMILIES)})"
    )
