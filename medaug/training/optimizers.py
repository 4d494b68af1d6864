"""Give each player an optimiser whose settings may change between rounds.

The steps work on all parameters of a player at once with torch's ``_foreach_`` operations.  They
are private names, but torch has no public ones: its own optimisers are built on them.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from medaug.models.base import OptimizerSettings

RMS_DECAY = 0.9
RMS_EPS = 1e-8


class PlayerOptimizer:
    """Step the parameters of one player by Adam or RMSProp.

    Args:
        parameters: of one player, all on one device.
        kind: ``adam`` or ``rmsprop``.
        recorded: whether steps are recorded and replayed as a CUDA graph, to which a Python number
            is a constant.  The learning rate is then the tensor ``rate``, which the caller sets
            before each step; else ``rate`` is None and the settings' own rate is used.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], kind: str, recorded: bool = False
    ) -> None:
        self.parameters = list(parameters)
        self.kind = kind
        self.rate = self.parameters[0].new_zeros(()).detach() if recorded else None
        if kind == "adam":
            rate = 1.0 if self.rate is None else self.rate
            self.adam = torch.optim.AdamW(self.parameters, lr=rate, fused=True, capturable=recorded)
        else:
            self.mean_squares = [torch.zeros_like(p) for p in self.parameters]

    def step(
        self, gradients: Sequence[Tensor], settings: OptimizerSettings, when: Tensor | None
    ) -> None:
        """Move the parameters once.

        Args:
            gradients: one for each parameter; RMSProp overwrites them.
            settings: rate, decays and clipping of this step.
            when: a boolean scalar on the device; where false, parameters and state stay as they
                are.  None: always step.

        Raises:
            TypeError: ``when`` for a player that steps by Adam.
        """
        if self.kind == "rmsprop":
            self._step_rmsprop(gradients, settings, when)
        elif when is not None:
            raise TypeError("a gated player steps by RMSProp: Adam's fused step takes no mask")
        else:
            self._step_adam(gradients, settings)
        if settings.clip is not None:
            with torch.no_grad():
                weights = [p.data for p in self.parameters]
                torch._foreach_clamp_min_(weights, -settings.clip)
                torch._foreach_clamp_max_(weights, settings.clip)

    def _step_adam(self, gradients: Sequence[Tensor], settings: OptimizerSettings) -> None:
        group = self.adam.param_groups[0]
        group["betas"], group["weight_decay"] = settings.betas, settings.weight_decay
        if self.rate is None:
            group["lr"] = settings.lr
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = _with_strides_of(parameter, gradient)
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def _step_rmsprop(
        self, gradients: Sequence[Tensor], settings: OptimizerSettings, when: Tensor | None
    ) -> None:
        steps, weights = list(gradients), [p.data for p in self.parameters]
        if settings.weight_decay:
            torch._foreach_add_(steps, weights, alpha=settings.weight_decay)
        if when is None:
            torch._foreach_mul_(self.mean_squares, RMS_DECAY)
        else:  # where false: the gradient is 0, and the mean squares keep their value
            moves = when.float()
            torch._foreach_mul_(steps, moves)
            torch._foreach_mul_(self.mean_squares, 1 - (1 - RMS_DECAY) * moves)
        torch._foreach_addcmul_(self.mean_squares, steps, steps, value=1 - RMS_DECAY)
        root = torch._foreach_sqrt(self.mean_squares)
        torch._foreach_add_(root, RMS_EPS)
        if self.rate is None:
            torch._foreach_addcdiv_(weights, steps, root, value=-settings.lr)
        else:
            torch._foreach_div_(steps, root)
            torch._foreach_mul_(steps, -self.rate)
            torch._foreach_add_(weights, steps)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the state by name; Adam has none before its first step."""
        if self.kind == "rmsprop":
            yield from ((f"{i}.square", value) for i, value in enumerate(self.mean_squares))
            return
        for i, parameter in enumerate(self.parameters):
            for key, value in self.adam.state.get(parameter, {}).items():
                yield f"{i}.{key}", value

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load the state that ``tensors`` yielded."""
        for name, value in tensors.items():
            number, _, key = name.partition(".")
            if self.kind == "rmsprop":
                self.mean_squares[int(number)].copy_(value)
                continue
            parameter = self.parameters[int(number)]
            place = value.to(parameter.device, copy=True)
            if place.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                place = place.to(memory_format=torch.channels_last)
            self.adam.state[parameter][key] = place


def _with_strides_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return ``gradient`` laid out as ``parameter``, which torch's fused steps assume unchecked.

    Double backward gives gradients in another order, and a fused step would move the wrong weights.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
