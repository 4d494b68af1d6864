"""What a round asks of the hardware, and what the hardware gives: operations, bytes, idle time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

Call = tuple[Any, ...]
"""An operator and its arguments, tensors by their shape, strides and type."""

CONVOLUTIONS = ("convolution", "convolution_backward")
ALIASES = (
    *("view", "_unsafe_view", "t", "transpose", "permute"),
    *("expand", "detach", "slice", "select"),
)


class Traffic(TorchDispatchMode):
    """Bytes that each operator reads and writes, were every one to go to memory; convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.convolutions = 0, Counter[Call]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in ALIASES:
            leaves = tree_leaves((args, kwargs, result))
            tensors = {id(t): t for t in leaves if isinstance(t, Tensor)}
            self.bytes += sum(t.numel() * t.element_size() for t in tensors.values())
        if name in CONVOLUTIONS:
            self.convolutions[func, *map(_frozen, args)] += 1
        return result


def _frozen(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ("tensor", tuple(value.shape), value.stride(), value.dtype)
    return tuple(value) if isinstance(value, list) else value


def counted(round: Callable[[], int]) -> dict[str, Any]:
    """Floating-point operations and bytes an image of an eager ``round``, and its convolutions."""
    with FlopCounterMode(display=False) as flops:
        images = round()
    with Traffic() as traffic:
        images = round()
    return {
        "flops_per_image": flops.get_total_flops() / images,
        "bytes_per_image": traffic.bytes / images,
        "convolutions": traffic.convolutions,
        "images": images,
    }


def seconds_of(work: Callable[[], Any], least: float) -> float:
    """The median time of ``work``, warm, over at least so many seconds."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=least).median)


def convolution_seconds(convolutions: Counter[Call], device: torch.device) -> float:
    """How long a round's convolutions take by themselves, each in bfloat16 and channels-last."""
    total = 0.0
    for (func, *arguments), times in convolutions.items():

        def made(value: Any) -> Any:
            if isinstance(value, tuple) and value and value[0] == "tensor":
                tensor = torch.randn(value[1], device=device).to(torch.bfloat16)
                if tensor.ndim == 4:
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                return tensor
            return list(value) if isinstance(value, tuple) else value

        given = [made(value) for value in arguments]
        total += times * seconds_of(lambda f=func, g=given: f(*g), 0.01)
    return total


def matrix_peak(device: torch.device, side: int = 8192) -> float:
    """bfloat16 operations a second of a large matrix product, on random numbers."""
    a, b = (torch.randn(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: a @ b, 0.2)


def memory_rate(device: torch.device, size: int = 2**30) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source), 0.2)


def idle_share(round: Callable[[], int], rounds: int) -> float:
    """The share of ``rounds`` rounds in which no kernel runs on the GPU."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(rounds):
            round()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    if not spans:
        return float("nan")
    busy, until = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(end - max(start, until), 0.0)
        until = max(until, end)
    return 1 - busy / (until - spans[0][0])
