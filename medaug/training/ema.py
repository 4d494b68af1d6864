"""Average weights exponentially over images seen."""

from collections.abc import Callable

import torch
from torch import nn

from medaug.models.base import Model


class Average:
    """An exponential moving average of a model's weights; buffers are copied.

    Its half-life grows with the images seen, up to ``half_life``, so that a short run is not
    averaged with its own beginning.
    """

    SHARE = 0.05

    def __init__(self, shadow: Model, model: Model, half_life: int) -> None:
        self.model, self.half_life = shadow, half_life
        live = dict(model.named_parameters())
        self.pairs = [(p, live[name]) for name, p in shadow.named_parameters()]
        buffers = dict(model.named_buffers())
        self.buffers = [(b, buffers[name]) for name, b in shadow.named_buffers()]

    @torch.no_grad()
    def update(self, images: int, seen: int) -> None:
        """Move towards the live weights after ``images`` more of ``seen`` in all."""
        half_life = min(self.half_life, max(self.SHARE * seen, 1.0))
        keep = 0.5 ** (images / half_life)
        shadow, live = (list(side) for side in zip(*self.pairs, strict=True))
        torch._foreach_lerp_(shadow, live, 1 - keep)
        if self.buffers:
            mine, theirs = (list(side) for side in zip(*self.buffers, strict=True))
            torch._foreach_copy_(mine, theirs)

    def copy(self) -> None:
        """Start from the live weights."""
        with torch.no_grad():
            for mine, theirs in (*self.pairs, *self.buffers):
                mine.copy_(theirs)


def shadow_of(build: Callable[[], Model], model: nn.Module) -> Model:
    """A second model without judges, holding a copy of ``model``'s weights."""
    shadow = build()
    shadow.drop_discriminators()
    kept = shadow.state_dict()
    shadow.load_state_dict({k: v for k, v in model.state_dict().items() if k in kept})
    return shadow.requires_grad_(False).eval()
