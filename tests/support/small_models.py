"""Every model in small, its shapes of data, and batches of them."""

from typing import Any

import torch

from medaug.core.config import resolve
from medaug.models import build
from medaug.models.base import Batch, Model, Shape

TINY = {"width": 8}
SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("vaegan", "author"): {"latent_dim": 8, **TINY},
    ("spatial_vaegan", "modern"): {"prior": {"width": 16, "steps": 3}, **TINY},
}
for _name in ("vae", "gan", "vae_disl", "wgan", "wgan_gp", "alpha_gan", "gvae", "aaae", "ali",
              "alice", "wae_mmd", "wae_gan"):  # fmt: skip
    for _preset in ("author", "modern"):
        SMALL[_name, _preset] = {"latent_dim": 8, **TINY}
for _known in (("alpha_gan", "author"), ("alpha_gan", "modern")):
    SMALL[_known] |= {"code_width": 16}
for _known in (("aaae", "author"), ("aaae", "modern")):
    SMALL[_known] |= {"prior": {"width": 16}}
SMALL["vae", "modern"] |= {"prior": {"name": "flow", "width": 16}}
SHAPES = [Shape(2, 1, 32), Shape(1, 1, 28, cond_dim=3, classes=3)]
LAYOUT = Shape(1, 1, 32, cond_dim=4, layout=4)
UNLABELED = Shape(2, 1, 32, unlabeled=True)
PROGRESS = (0.0, 0.6, 0.9)


def make(name: str, preset: str, shape: Shape) -> Model:
    torch.manual_seed(0)
    asked = {"model": {"name": name, "preset": preset, **SMALL[name, preset]}}
    if shape.layout and "vaegan" not in name:
        asked["model"]["network"] = "residual"
    return build(name, resolve(asked).model.arguments, shape)


def batch(shape: Shape, count: int = 4) -> Batch:
    x = torch.rand(count, shape.channels, shape.size, shape.size) * 2 - 1
    x[:, shape.images :] = x[:, shape.images :].sign()
    cond = known = None
    if shape.cond_dim:
        cond = torch.eye(shape.cond_dim)[torch.arange(count) % shape.cond_dim]
    if shape.layout and cond is not None:
        cond = cond[..., None, None] * (torch.rand(count, 1, shape.size, shape.size) > 0.5)
    if shape.unlabeled:
        known = torch.ones(count, 2, 1, 1)
        known[1::2, 1] = 0
        x = x * known
    return Batch(x, cond, known)
