"""The sides that stride-2 layers go through, and which image sizes they can take."""

from collections.abc import Sequence

from medaug.errors import ConfigError
from medaug.tensors import Shape

SMALLEST = 8


def halvings(size: int, levels: int) -> list[int]:
    """``size`` and what stride-2 convolutions make of it: 28 gives [28, 14, 7, 4]."""
    sizes = [size]
    for _ in range(levels):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def feature_level(sides: Sequence[int]) -> int:
    """Which of ``sides`` is nearest the 8 pixels of Larsen's layer l: of [14, 7, 4] number 1."""
    return min(range(len(sides)), key=lambda level: abs(sides[level] - 8))


def check(shape: Shape, family: str, dims: tuple[int, ...] = (2,)) -> None:
    """Refuse what a family of networks cannot take.

    Raises:
        ConfigError: names the size or dimensions seen and those that are accepted.
    """
    if shape.size < SMALLEST:
        raise ConfigError(
            f"config data.size: {shape.size} is too small for {family} networks, which take "
            f"{SMALLEST} pixels and more"
        )
    if shape.spatial_dims not in dims:
        raise ConfigError(
            f"config model.network: {family} networks are two-dimensional, the data have "
            f"{shape.spatial_dims} dimensions; use residual"
        )
