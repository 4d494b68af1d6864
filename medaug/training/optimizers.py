"""One optimiser a player, with settings that may change between rounds and a gate on the device."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from medaug.models.base import OptimizerSettings

RMS_DECAY = 0.9
RMS_EPS = 1e-8


class PlayerOptimizer:
    """Steps the parameters of one player; its state is a flat list of named tensors.

    Args:
        parameters: of one player, all on one device.
        kind: ``adam`` or ``rmsprop``.
        recorded: whether steps may be recorded and played again, as a CUDA graph is: then the rate
            is the tensor ``rate``, which ``step`` reads and whoever plays sets.
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
            self.square = [torch.zeros_like(p) for p in self.parameters]

    def step(
        self, gradients: Sequence[Tensor], how: OptimizerSettings, when: Tensor | None
    ) -> None:
        """Move the parameters; where ``when`` is false they and the state stay as they are.

        Raises:
            TypeError: a gate on a player that steps by Adam.
        """
        if self.kind == "rmsprop":
            self._rmsprop(gradients, how, when)
        else:
            self._adam(gradients, how, when)
        if how.clip is not None:
            with torch.no_grad():
                weights = [p.data for p in self.parameters]
                torch._foreach_clamp_min_(weights, -how.clip)
                torch._foreach_clamp_max_(weights, how.clip)

    def _adam(
        self, gradients: Sequence[Tensor], how: OptimizerSettings, when: Tensor | None
    ) -> None:
        if when is not None:
            raise TypeError("a gated player steps by RMSProp: Adam's fused step takes no mask")
        group = self.adam.param_groups[0]
        group["betas"], group["weight_decay"] = how.betas, how.weight_decay
        if self.rate is None:
            group["lr"] = how.lr
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = laid_out_as(parameter, gradient)
        self.adam.step()
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def _rmsprop(
        self, gradients: Sequence[Tensor], how: OptimizerSettings, when: Tensor | None
    ) -> None:
        """One step in place of the gradients, which nobody reads afterwards."""
        slope, weights = list(gradients), [p.data for p in self.parameters]
        if how.weight_decay:
            torch._foreach_add_(slope, weights, alpha=how.weight_decay)
        if when is None:
            torch._foreach_mul_(self.square, RMS_DECAY)
        else:  # a closed gate: no slope, and the mean square keeps its value
            moves = when.float()
            torch._foreach_mul_(slope, moves)
            torch._foreach_mul_(self.square, 1 - (1 - RMS_DECAY) * moves)
        torch._foreach_addcmul_(self.square, slope, slope, value=1 - RMS_DECAY)
        root = torch._foreach_sqrt(self.square)
        torch._foreach_add_(root, RMS_EPS)
        if self.rate is None:
            torch._foreach_addcdiv_(weights, slope, root, value=-how.lr)
        else:
            torch._foreach_div_(slope, root)
            torch._foreach_mul_(slope, -self.rate)
            torch._foreach_add_(weights, slope)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The state by name, empty before the first step."""
        if self.kind == "rmsprop":
            yield from ((f"{i}.square", value) for i, value in enumerate(self.square))
            return
        for i, parameter in enumerate(self.parameters):
            for key, value in self.adam.state.get(parameter, {}).items():
                yield f"{i}.{key}", value

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up the state that ``tensors`` gave."""
        for name, value in tensors.items():
            number, _, key = name.partition(".")
            if self.kind == "rmsprop":
                self.square[int(number)].copy_(value)
                continue
            parameter = self.parameters[int(number)]
            place = value.to(parameter.device, copy=True)
            if place.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
                place = place.to(memory_format=torch.channels_last)
            self.adam.state[parameter][key] = place


def laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """``gradient`` with the strides of ``parameter``, which torch's fused steps take for granted.

    Double backward gives gradients in another order, and a fused step would move the wrong weights.
    """
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
