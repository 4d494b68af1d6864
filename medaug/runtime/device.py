"""Choose device and precision of a run, and tune the process for it."""

import ctypes
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from medaug.core.errors import ConfigError

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
"""Parameters of glibc's ``mallopt``, as malloc.h numbers them."""
TOP_PAD_BYTES = 64 * 2**20


def choose_device(name: str) -> torch.device:
    """Return the device called ``auto`` (CUDA when there), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ConfigError: not a device, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is not known (accepted: auto, cpu, cuda)") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported (accepted: auto, cpu, cuda)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not on this machine; --device cpu is")
    return device


def tune(device: torch.device) -> None:
    """Set up the process for many steps of the same shapes on ``device``.

    On a GPU float32 is computed as float32: cuDNN would round factors of convolutions to TF32.
    """
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, since training needs the same large blocks at every step.

    The C library gives a freed block of some megabytes back to the system, which hands it out
    again page by page, zeroed; on the CPU a third of a step may go there.  All threads then share
    one heap: a thread that found no addresses for a heap of its own would have no memory at all,
    however much was free in the first one.  The peak of memory stays the same.

    Returns:
        Whether it could be arranged; not where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = (
        (MMAP_MAX, 0),
        (TRIM_THRESHOLD, 2**31 - 1),
        (TOP_PAD, TOP_PAD_BYTES),
        (ARENA_MAX, 1),
    )
    return all(library.mallopt(name, value) == 1 for name, value in settings)


def choose_precision(name: str, device: torch.device) -> str:
    """Return ``float32`` or ``bfloat16``.

    Args:
        name: one of these, or ``auto``: bfloat16 where the device has it and convolutions are
            faster with it.
        device: where the run computes.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float32"
    # Private, since torch has no public test for it on the CPU; without the test, the measurement
    # below would take seconds on CPUs that emulate bfloat16.
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "float32"
    bfloat16, float32 = _convolution_seconds(torch.bfloat16, torch.float32)
    return "bfloat16" if bfloat16 < 0.8 * float32 else "float32"


def _convolution_seconds(*dtypes: torch.dtype) -> list[float]:
    """The best of 20 runs of a typical convolution on the CPU in each type, alternating."""
    best = [float("inf")] * len(dtypes)
    convs = [nn.Conv2d(64, 64, 3, padding=1, dtype=dtype) for dtype in dtypes]
    with torch.inference_mode():
        for _ in range(20):
            for i, (conv, dtype) in enumerate(zip(convs, dtypes, strict=True)):
                channels_last(conv)
                x = torch.zeros(16, 64, 32, 32, dtype=dtype)
                x = x.to(memory_format=torch.channels_last)
                start = time.perf_counter()
                conv(x)
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def channels_last(network: nn.Module) -> None:
    """Lay the weights out with the channels last, in place: bfloat16 convolutions are faster so."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context of mixed precision where ``precision`` is bfloat16, else one without effect."""
    if precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
