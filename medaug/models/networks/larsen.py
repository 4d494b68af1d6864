"""Encoder, decoder and discriminator of Larsen et al. 2016, Table 1, as their code has them.

At other sizes than 64 each level halves the side, rounding up, and the decoder retraces it.  The
paper's widths are those of ``width`` 64.
"""

from itertools import pairwise

from torch import Tensor, nn

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, feature_level, halvings, joined

LEVELS = 3


def _norm(channels: int, spatial: bool = True) -> nn.Module:
    return (nn.BatchNorm2d if spatial else nn.BatchNorm1d)(channels, eps=1e-6)


def _conv(c_in: int, c_out: int, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 5, stride, 2, bias=False)


def initialise(module: nn.Module) -> None:
    """Weights uniform in +-1 / sqrt(3 fan_in), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        fan_in = module.weight[0].numel()
        if isinstance(module, nn.ConvTranspose2d):
            fan_in = module.weight.numel() // module.weight.shape[1]
        bound = (3 * fan_in) ** -0.5
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LarsenEncoder(nn.Module):
    """Images (b, c, s, s) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int) -> None:
        super().__init__()
        check(shape, "larsen")
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise((shape.channels, width, 2 * width, 4 * width)):
            layers += [_conv(c_in, c_out), _norm(c_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        flat = 4 * width * halvings(shape.size, LEVELS)[-1] ** 2
        self.fc = nn.Sequential(
            nn.Linear(flat + shape.cond_dim, 16 * width, bias=False),
            _norm(16 * width, False),
            nn.ReLU(),
        )
        self.head = nn.Linear(16 * width, outputs)
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        return self.head(self.fc(joined(self.body(x), cond))).float()


class LarsenDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, s, s) before tanh."""

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        check(shape, "larsen")
        self.sizes = halvings(shape.size, LEVELS)[::-1]
        start, channels = self.sizes[0], 4 * width
        self.fc = nn.Sequential(
            nn.Linear(latent + shape.cond_dim, channels * start**2, bias=False),
            _norm(channels * start**2, False),
            nn.ReLU(),
            nn.Unflatten(1, (channels, start, start)),
        )
        widths = (channels, 4 * width, 2 * width, width // 2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, 5, 2, 2, bias=False) for c_in, c_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(_norm(c_out) for c_out in widths[1:])
        self.head = nn.Conv2d(width // 2, shape.channels, 5, padding=2)
        self.apply(initialise)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(joined(z, cond))
        for up, norm, side in zip(self.up, self.norms, self.sizes[1:], strict=True):
            h = norm(up(h, output_size=[side, side])).relu()
        return self.head(h)


class LarsenDiscriminator(nn.Module):
    """Images (b, c, s, s) and cond to logits (b,) and [layer l], (b, 4 width, 8, 8) at 64 pixels.

    Layer l is the linear output, before its batch norm, of the stride-2 convolution whose side is
    nearest 8: the third at 64 pixels, the second at 32, as theirs.
    """

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        check(shape, "larsen")
        wide = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(shape.channels, width // 2, 5, padding=2),
            nn.ReLU(),
            *(_conv(width // 2, 2 * width), _norm(2 * width), nn.ReLU()),
            *(_conv(2 * width, wide), _norm(wide), nn.ReLU()),
            _conv(wide, wide),
        )
        self.rest = nn.Sequential(_norm(wide), nn.ReLU(), nn.Flatten())
        sides = halvings(shape.size, LEVELS)
        self.depth = 3 * (1 + feature_level(sides[1:]))
        flat = wide * sides[-1] ** 2
        self.fc = nn.Sequential(
            nn.Linear(flat + shape.cond_dim, 8 * width, bias=False),
            _norm(8 * width, False),
            nn.ReLU(),
            nn.Linear(8 * width, 1),
        )
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        features = self.body[: self.depth](x)
        h = self.rest(self.body[self.depth :](features))
        return self.fc(joined(h, cond))[:, 0].float(), [features]
