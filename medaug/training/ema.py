"""Average weights exponentially over images seen."""

from copy import deepcopy

import torch

from medaug.models.base import Model

SHARE = 0.05
"""The half-life is at most this share of the images seen."""


class Average:
    """Keep an exponential moving average of a model's weights; buffers are copied as they are.

    The half-life grows with the images seen, up to ``half_life``, so that a short run is not
    averaged with its own beginning.

    Args:
        live: the model in training, on its device.
        half_life: in images.

    Attributes:
        model: the averaged model, without its discriminators, in evaluation mode.
    """

    def __init__(self, live: Model, half_life: int) -> None:
        self.half_life = half_life
        self.model = deepcopy(live)
        self.model.drop_discriminators()
        self.model.requires_grad_(False).eval()
        parameters, buffers = dict(live.named_parameters()), dict(live.named_buffers())
        self.parameters = [(p, parameters[name]) for name, p in self.model.named_parameters()]
        self.buffers = [(b, buffers[name]) for name, b in self.model.named_buffers()]

    @torch.no_grad()
    def update(self, images: int, seen: int) -> None:
        """Move towards the live weights after ``images`` more images, ``seen`` in all."""
        half_life = min(self.half_life, max(SHARE * seen, 1.0))
        keep = 0.5 ** (images / half_life)
        averaged, live = (list(side) for side in zip(*self.parameters, strict=True))
        torch._foreach_lerp_(averaged, live, 1 - keep)  # torch has no public name for it
        if self.buffers:
            averaged, live = (list(side) for side in zip(*self.buffers, strict=True))
            torch._foreach_copy_(averaged, live)

    @torch.no_grad()
    def copy(self) -> None:
        """Start from the live weights."""
        for averaged, live in (*self.parameters, *self.buffers):
            averaged.copy_(live)
