"""A model's networks by name: what the config says of them, checked, and made.

``network`` is the name of a family, or a mapping such as ``{name: residual, spectral: true}``
whose other keys go to those networks of the family that take them.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medaug.errors import ConfigError
from medaug.networks.families import FAMILIES, Family, family
from medaug.tensors import Shape

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
