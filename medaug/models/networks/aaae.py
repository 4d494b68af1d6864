"""Networks of Xu et al. 2019 (AAAE), section IV: 4 x 4 convolutions over four halvings.

Encoder and decoder have batch norm and ELU; the discriminator has neither, and gives patch logits.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, feature_level, halvings, joined, with_condition

LEVELS = 4


def _small(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _padded(x: Tensor) -> Tensor:
    """Padding with which a 4 x 4 convolution of stride 2 halves any side, rounding up."""
    odd = x.shape[-1] % 2
    return F.pad(x, (1, 1 + odd, 1, 1 + odd))


class AAAEEncoder(nn.Module):
    """Images (b, c, s, s) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int) -> None:
        super().__init__()
        check(shape, "aaae")
        widths = [width * 2**level for level in range(LEVELS + 1)]
        channels = shape.channels + shape.cond_dim
        self.stem = nn.Conv2d(channels, width, 4, bias=False)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.fc = nn.Linear(widths[-1] * halvings(shape.size, LEVELS)[-1] ** 2, outputs)
        self.apply(_small)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        h = F.elu(self.norms[0](self.stem(F.pad(with_condition(x, cond), (1, 2, 1, 2)))))
        for down, norm in zip(self.down, self.norms[1:], strict=True):
            h = F.elu(norm(down(_padded(h))))
        return self.fc(h.flatten(1)).float()


class AAAEDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, s, s) before tanh."""

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        check(shape, "aaae")
        self.sizes = halvings(shape.size, LEVELS)[::-1]
        widths = [width * 2**level for level in range(LEVELS, -1, -1)]
        self.start = (widths[0], self.sizes[0], self.sizes[0])
        self.fc = nn.Linear(latent + shape.cond_dim, widths[0] * self.sizes[0] ** 2, bias=False)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.head = nn.Conv2d(width, shape.channels, 3, padding=1)
        self.apply(_small)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = F.elu(self.norms[0](self.fc(joined(z, cond)).unflatten(1, self.start)))
        for up, norm, side in zip(self.up, self.norms[1:], self.sizes[1:], strict=True):
            h = F.elu(norm(up(h)[..., :side, :side]))
        return self.head(h)


class AAAEDiscriminator(nn.Module):
    """Images (b, c, s, s) and cond to patch logits (b, p, p) and [the linear map nearest 8 x 8]."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        check(shape, "aaae")
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2) for a, b in pairwise([shape.channels + shape.cond_dim, *widths])
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.layer = feature_level(halvings(shape.size, LEVELS)[1:])
        self.apply(_small)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        h = with_condition(x, cond)
        outputs = []
        for down in self.down:
            outputs.append(down(_padded(h)))
            h = F.leaky_relu(outputs[-1], 0.1)
        return self.head(h)[:, 0].float(), [outputs[self.layer]]
