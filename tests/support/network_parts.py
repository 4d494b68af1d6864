"""Parts of the network families, made in small."""

import pytest
import torch
from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.networks.build import FAMILIES, family

B, CHANNELS, LATENT, OUTPUTS, WIDTH = 3, 2, 6, 7, 4
SIZES, CONDS = (28, 32, 64), (0, 5)
PROJECTION = {"condition": "projection"}
VARIANTS = [(name, {}) for name in FAMILIES] + [("residual", PROJECTION)]
PARTS = ("encoder", "decoder", "discriminator")
each_variant = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=[f"{name}{'-projection' * bool(o)}" for name, o in VARIANTS]
)
each_part = pytest.mark.parametrize("part", PARTS)
each_size = pytest.mark.parametrize("size", SIZES)
each_cond = pytest.mark.parametrize("cond_dim", CONDS)


def shape_of(size: int, cond_dim: int = 0, dims: int = 2) -> Shape:
    return Shape(CHANNELS, 1, size, cond_dim, min(cond_dim, 3), dims)


def condition(cond_dim: int) -> Tensor | None:
    return torch.randn(B, cond_dim) if cond_dim else None


def make(name: str, part: str, shape: Shape, width: int = WIDTH, **options: object) -> nn.Module:
    chosen = family(name)
    if part == "encoder":
        return chosen.encoder(shape, OUTPUTS, width, **options)
    if part == "decoder":
        return chosen.decoder(shape, LATENT, width, **options)
    return chosen.discriminator(shape, width, **options)


def source(part: str, shape: Shape) -> Tensor:
    if part == "decoder":
        return torch.randn(B, LATENT)
    return torch.randn(B, shape.channels, *[shape.size] * shape.spatial_dims)


def result(out: Tensor | tuple[Tensor, list[Tensor]]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def assert_trains(network: nn.Module, out: Tensor) -> None:
    """A gradient reaches every parameter, and is not zero for any weight."""
    (out * torch.randn_like(out)).sum().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.ndim == 1 or p.grad.any(), name


def layer_sizes(network: nn.Module) -> list[tuple[int, int]]:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    found = [m for m in network.modules() if isinstance(m, kinds)]
    return [
        (m.in_features, m.out_features)
        if isinstance(m, nn.Linear)
        else (m.in_channels, m.out_channels)
        for m in found
    ]
