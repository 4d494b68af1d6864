"""Encoder, decoder and discriminator of Larsen et al. 2016, Table 1, as their code has them.

At other sizes than 64 each level halves the side, rounding up, and the decoder retraces it.
"""

import torch
from torch import Tensor, nn


def halvings(size: int, levels: int) -> list[int]:
    """``size`` and what stride-2 convolutions make of it: 28 gives [28, 14, 7, 4]."""
    sizes = [size]
    for _ in range(levels):
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def _joined(h: Tensor, cond: Tensor | None) -> Tensor:
    return h if cond is None else torch.cat([h, cond.to(h.dtype)], 1)


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
    """Images (b, c, s, s) to mean and log-variance (b, latent)."""

    def __init__(self, channels: int, size: int, latent: int, cond_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in ((channels, 64), (64, 128), (128, 256)):
            layers += [_conv(c_in, c_out), _norm(c_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        flat = 256 * halvings(size, 3)[-1] ** 2
        self.fc = nn.Sequential(
            nn.Linear(flat + cond_dim, 1024, bias=False), _norm(1024, False), nn.ReLU()
        )
        self.head = nn.Linear(1024, 2 * latent)
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.fc(_joined(self.body(x), cond))
        mu, logvar = self.head(h).float().chunk(2, 1)
        return mu, logvar.clamp(-10, 10)


class LarsenDecoder(nn.Module):
    """Codes (b, latent) to images (b, c, s, s) in [-1, 1]."""

    def __init__(self, channels: int, size: int, latent: int, cond_dim: int) -> None:
        super().__init__()
        self.sizes = halvings(size, 3)[::-1]
        start = self.sizes[0]
        self.fc = nn.Sequential(
            nn.Linear(latent + cond_dim, 256 * start**2, bias=False),
            _norm(256 * start**2, False),
            nn.ReLU(),
            nn.Unflatten(1, (256, start, start)),
        )
        widths = ((256, 256), (256, 128), (128, 32))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, 5, 2, 2, bias=False) for c_in, c_out in widths
        )
        self.norms = nn.ModuleList(_norm(c_out) for _, c_out in widths)
        self.head = nn.Conv2d(32, channels, 5, padding=2)
        self.apply(initialise)

    def forward(self, z: Tensor, cond: Tensor | None) -> Tensor:
        h = self.fc(_joined(z, cond))
        for up, norm, side in zip(self.up, self.norms, self.sizes[1:], strict=True):
            h = norm(up(h, output_size=[side, side])).relu()
        return self.head(h).tanh()


class LarsenDiscriminator(nn.Module):
    """Images (b, c, s, s) to logits (b,) and the features of layer l (b, 256, s/8, s/8).

    Layer l is the linear output of the third stride-2 convolution, before its batch norm.
    """

    def __init__(self, channels: int, size: int, cond_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            *(_conv(32, 128), _norm(128), nn.ReLU()),
            *(_conv(128, 256), _norm(256), nn.ReLU()),
            _conv(256, 256),
        )
        self.rest = nn.Sequential(_norm(256), nn.ReLU(), nn.Flatten())
        flat = 256 * halvings(size, 3)[-1] ** 2
        self.fc = nn.Sequential(
            nn.Linear(flat + cond_dim, 512, bias=False),
            _norm(512, False),
            nn.ReLU(),
            nn.Linear(512, 1),
        )
        self.apply(initialise)

    def forward(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.fc(_joined(self.rest(features), cond))[:, 0].float(), features
