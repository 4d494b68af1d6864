"""Plain 5 x 5 convolutional networks: those of the WGAN-GP code, and DCGAN's, which add batch norm.

Both go through the sides that stride-2 convolutions make of the image's, down to 4 pixels, so that
28 pixels are as good as 64 or 128.  The condition joins the code, and the image as planes.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from medaug.core.batch import Shape
from medaug.models.networks.blocks import check, feature_level, halvings, joined, with_condition


def levels(size: int) -> int:
    """How often ``size`` is halved on the way to 4 pixels."""
    return max(1, (size - 1).bit_length() - 2)


def widths(width: int, count: int) -> list[int]:
    """Channels at each level from the image on, doubling up to four times the first."""
    return [width * 2 ** min(level, 2) for level in range(count)]


def he(module: nn.Module) -> None:
    """He et al. 2015, for leaky ReLU of slope 0.2."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def narrow(module: nn.Module) -> None:
    """N(0, 0.02), and N(1, 0.02) for the gains of batch norm (Radford et al. 2016)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


class _Down(nn.Module):
    """Images to (b, 4 width, 4, 4) or so by strided convolutions and leaky ReLU."""

    normed = False

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        check(shape, "dcgan" if self.normed else "plain")
        count = levels(shape.size)
        sizes = [shape.channels + shape.cond_dim, *widths(width, count)]
        self.down = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 5, 2, 2) for c_in, c_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(c) if self.normed and level else nn.Identity()
            for level, c in enumerate(sizes[1:])
        )
        sides = halvings(shape.size, count)
        self.flat = sizes[-1] * sides[-1] ** 2
        self.layer = feature_level(sides[1:])

    def walk(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """The last level, flat, and the linear output of the level nearest 8 x 8."""
        h, features = with_condition(x, cond), x
        for level, (down, norm) in enumerate(zip(self.down, self.norms, strict=True)):
            h = down(h)
            if level == self.layer:
                features = h
            h = F.leaky_relu(norm(h), 0.2)
        return h.flatten(1), features


class PlainEncoder(_Down):
    """Images (b, c, s, s) and cond to (b, outputs)."""

    def __init__(self, shape: Shape, outputs: int, width: int) -> None:
        super().__init__(shape, width)
        self.fc = nn.Linear(self.flat, outputs)
        self.apply(narrow if self.normed else he)

    def forward(self, x: Tensor, cond: Tensor | None) -> Tensor:
        return self.fc(self.walk(x, cond)[0]).float()


class PlainDiscriminator(_Down):
    """Images (b, c, s, s) and cond to logits (b,) and [the linear output nearest 8 x 8]."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__(shape, width)
        self.fc = nn.Linear(self.flat, 1)
        self.apply(narrow if self.normed else he)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        h, features = self.walk(x, cond)
        return self.fc(h)[:, 0].float(), [features]


class PlainDecoder(nn.Module):
    """Codes (b, latent) and cond to images (b, c, s, s) before tanh, by transposed convolutions."""

    normed = False

    def __init__(self, shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        check(shape, "dcgan" if self.normed else "plain")
        count = levels(shape.size)
        self.sizes = halvings(shape.size, count)[::-1]
        sizes = [*widths(width, count)[::-1], shape.channels]
        self.start = (sizes[0], self.sizes[0], self.sizes[0])
        self.fc = nn.Linear(latent + shape.cond_dim, sizes[0] * self.sizes[0] ** 2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, 5, 2, 2) for c_in, c_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(c) if self.normed else nn.Identity() for c in sizes[:-1]
        )
        self.apply(narrow if self.normed else he)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(joined(z, cond)).unflatten(1, self.start)
        for up, norm, side in zip(self.up, self.norms, self.sizes[1:], strict=True):
            h = up(norm(h).relu(), output_size=[side, side])
        return h


class DCGANEncoder(PlainEncoder):
    """As PlainEncoder, with batch norm but on the first level."""

    normed = True


class DCGANDiscriminator(PlainDiscriminator):
    """As PlainDiscriminator, with batch norm but on the first level."""

    normed = True


class DCGANDecoder(PlainDecoder):
    """As PlainDecoder, with batch norm."""

    normed = True
