"""A model's networks by name: what the config says of them, checked, and made.

``network`` is the name of a family, or a mapping such as ``{name: residual, spectral: true}``
whose other keys go to those networks of the family that take them.
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

# Which networks go together, by name.
#
# Every encoder is made from (shape, outputs, width), every decoder from (shape, latent, width),
# every discriminator from (shape, width), each with options of its family by keyword.


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


Network = str | Mapping[str, Any]
"""What ``model.network`` may be in a config."""


def split(network: Network) -> tuple[Family, dict[str, Any]]:
    """The family that ``network`` names, and its options.

    Raises:
        ConfigError: no such family, or an option that none of its networks takes.
    """
    if isinstance(network, str):
        network = {"name": network}
    options = dict(network)
    chosen = family(str(options.pop("name", "")))
    makers = (chosen.encoder, chosen.decoder, chosen.discriminator)
    known = sorted({key for maker in makers for key in _options(maker)})
    for key in options:
        if key not in known:
            raise ConfigError(
                f"config model.network.{key} is not known to {network['name']} "
                f"(known: {', '.join(known) or 'none'})"
            )
    return chosen, options


def _options(maker: Any) -> list[str]:
    return [
        name
        for name in inspect.signature(maker).parameters
        if name not in ("shape", "outputs", "latent", "width")
    ]


def _taken(maker: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in _options(maker)}


class ImagesAlone(nn.Module):
    """An encoder that is not shown the masks of what it is given."""

    def __init__(self, encoder: nn.Module, images: int) -> None:
        super().__init__()
        self.encoder, self.images = encoder, images

    def forward(self, x: Tensor, cond: Tensor | None) -> Any:
        return self.encoder(x[:, : self.images], cond)


def make_encoder(network: Network, shape: Shape, outputs: int, width: int) -> nn.Module:
    """Images and cond to (b, outputs).

    Raises:
        ConfigError: the shape has a layout and the network no place for it.
    """
    chosen, options = split(network)
    _check_layout(chosen, network, shape)
    seen = replace(shape, channels=shape.encoded)
    made = chosen.encoder(seen, outputs, width, **_taken(chosen.encoder, options))
    return ImagesAlone(made, shape.images) if shape.unlabeled else made


def _check_layout(chosen: Family, network: Network, shape: Shape) -> None:
    if shape.layout and not chosen.layouts:
        name = network if isinstance(network, str) else network["name"]
        able = ", ".join(known for known, family in FAMILIES.items() if family.layouts)
        raise ConfigError(
            f"config model.network: {name!r} takes no layout (data.masks layout); these do: {able}"
        )


def make_decoder(network: Network, shape: Shape, latent: int, width: int) -> nn.Module:
    """Codes (b, latent) and cond to images before tanh.

    Raises:
        ConfigError: the shape has a layout and the network no place for it.
    """
    chosen, options = split(network)
    _check_layout(chosen, network, shape)
    return chosen.decoder(shape, latent, width, **_taken(chosen.decoder, options))


def make_discriminator(
    network: Network, shape: Shape, width: int, penalised: bool = False
) -> nn.Module:
    """Images and cond to logits and features.

    Raises:
        ConfigError: ``penalised`` and the network has batch statistics, which mix samples; or a
            layout that it has no place for.
    """
    chosen, options = split(network)
    _check_layout(chosen, network, shape)
    if penalised and chosen.batch_statistics:
        name = network if isinstance(network, str) else network["name"]
        raise ConfigError(
            f"config model.network: the discriminator of {name!r} has batch statistics, which a "
            "penalty per sample does not allow; use plain, aaae, gvae or residual"
        )
    return chosen.discriminator(shape, width, **_taken(chosen.discriminator, options))


@contextmanager
def resting(*networks: nn.Module) -> Iterator[None]:
    """No gradient, and batch norm as at test time."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
