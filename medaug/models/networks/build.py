"""Make the networks that a model's argument ``network`` names.

``network`` is the name of a family, or a mapping such as ``{name: residual, spectral: true}``
whose other keys go to those networks of the family that take them.  Every encoder is made from
(shape, outputs, width), every decoder from (shape, latent, width), every discriminator from
(shape, width), each with options of its family by keyword.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.core.errors import ConfigError
from medaug.models.networks.aaae import AAAEDecoder, AAAEDiscriminator, AAAEEncoder
from medaug.models.networks.convolutional import (
    DCGANDecoder,
    DCGANDiscriminator,
    DCGANEncoder,
    PlainDecoder,
    PlainDiscriminator,
    PlainEncoder,
)
from medaug.models.networks.gvae import GVAEDecoder, GVAEDiscriminator, GVAEEncoder
from medaug.models.networks.larsen import LarsenDecoder, LarsenDiscriminator, LarsenEncoder
from medaug.models.networks.mlp import MlpDecoder, MlpDiscriminator, MlpEncoder
from medaug.models.networks.residual import ResidualDecoder, ResidualDiscriminator, ResidualEncoder

Network = str | Mapping[str, Any]
"""What ``model.network`` may be in a config."""


@dataclass(frozen=True)
class Family:
    """Three networks that go together.

    Attributes:
        encoder: images and cond to rows.
        decoder: codes and cond to images before tanh.
        discriminator: images and cond to logits and features, Larsen's layer l the last of them.
        batch_statistics: whether the discriminator mixes the samples of a batch.
        layouts: whether the networks take a layout as planes.
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


def make_encoder(network: Network, shape: Shape, outputs: int, width: int) -> nn.Module:
    """Make a network from images and cond to (b, outputs).

    Raises:
        ConfigError: no such network or option, or it does not take the layout of the data.
    """
    _, chosen, options = _chosen(network, shape)
    seen = replace(shape, channels=shape.encoded)
    made = _made(chosen.encoder, options, seen, outputs, width)
    return WithoutMasks(made, shape.images) if shape.unlabeled else made


def make_decoder(network: Network, shape: Shape, latent: int, width: int) -> nn.Module:
    """Make a network from codes (b, latent) and cond to images before tanh.

    Raises:
        ConfigError: no such network or option, or it does not take the layout of the data.
    """
    _, chosen, options = _chosen(network, shape)
    return _made(chosen.decoder, options, shape, latent, width)


def make_discriminator(
    network: Network, shape: Shape, width: int, penalised: bool = False
) -> nn.Module:
    """Make a network from images and cond to logits and features.

    Args:
        network: family and options.
        shape: channels, size and conditions of the data.
        width: channels of its first level.
        penalised: whether a gradient penalty is taken of it, which is per sample.

    Raises:
        ConfigError: no such network or option, it does not take the layout of the data, or it is
            penalised and has batch statistics, which mix samples.
    """
    name, chosen, options = _chosen(network, shape)
    if penalised and chosen.batch_statistics:
        raise ConfigError(
            f"config model.network: the discriminator of {name!r} has batch statistics, which a "
            "penalty per sample does not allow; use plain, aaae, gvae or residual"
        )
    return _made(chosen.discriminator, options, shape, width)


def _chosen(network: Network, shape: Shape) -> tuple[str, Family, dict[str, Any]]:
    """Name, family and options of ``network``, checked."""
    options = {"name": network} if isinstance(network, str) else dict(network)
    name = str(options.pop("name", ""))
    chosen = family(name)
    makers = (chosen.encoder, chosen.decoder, chosen.discriminator)
    known = sorted({key for maker in makers for key in _options(maker)})
    for key in options:
        if key not in known:
            raise ConfigError(
                f"config model.network.{key} is not known to {name} "
                f"(known: {', '.join(known) or 'none'})"
            )
    if shape.layout and not chosen.layouts:
        able = ", ".join(known for known, family in FAMILIES.items() if family.layouts)
        raise ConfigError(
            f"config model.network: {name!r} takes no layout (data.masks layout); these do: {able}"
        )
    return name, chosen, options


def _options(maker: Callable[..., nn.Module]) -> list[str]:
    sizes = ("shape", "outputs", "latent", "width")
    return [name for name in inspect.signature(maker).parameters if name not in sizes]


def _made(maker: Callable[..., nn.Module], options: Mapping[str, Any], *sizes: Any) -> nn.Module:
    """A network with those of ``options`` that it takes."""
    taken = _options(maker)
    return maker(*sizes, **{key: value for key, value in options.items() if key in taken})


class WithoutMasks(nn.Module):
    """An encoder that sees the first ``images`` channels, and not the masks behind them."""

    def __init__(self, encoder: nn.Module, images: int) -> None:
        super().__init__()
        self.encoder, self.images = encoder, images

    def forward(self, x: Tensor, cond: Tensor | None) -> Any:
        return self.encoder(x[:, : self.images], cond)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Evaluate ``networks`` without gradients, and with batch norm as at test time."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
