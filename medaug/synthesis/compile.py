"""Networks of a trained model through `torch.compile`, for drawing whole blocks of samples.

What is compiled takes the numbers of rows it was asked for; others, such as that of samples drawn
anew, go through the networks as they are written.  So nothing depends on what was drawn before.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medaug.core.errors import ConfigError
from medaug.core.text import tell
from medaug.models.base import Model
from medaug.models.priors import Prior

CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Names the folder where torch keeps what it has compiled."""


def compile_networks(model: Model, rows: int) -> None:
    """Have calls of ``rows`` rows compiled too, each network at the first such call.

    Raises:
        ConfigError: `torch.compile` does not work here, such as for want of a compiler.
    """
    _keep_apart()
    _try_out(next(model.parameters()).device)
    tell("the networks are compiled: the first samples may take minutes")
    for network in _networks(model):
        if not isinstance(network.forward, _Routed):
            network.forward = _Routed(network.forward)
        network.forward.rows.add(rows)


def _networks(model: Model) -> Iterator[nn.Module]:
    """What is called as a whole; a prior loops over its own."""
    for child in model.children():
        yield from child.children() if isinstance(child, Prior) else (child,)


class _Routed:
    """A network's forward, compiled for the numbers of rows in ``rows``."""

    def __init__(self, written: Callable[..., Any]) -> None:
        self.written, self.compiled = written, torch.compile(written, dynamic=False)
        self.rows: set[int] = set()

    def __call__(self, x: torch.Tensor, *others: Any) -> Any:
        return (self.compiled if len(x) in self.rows else self.written)(x, *others)


def _keep_apart() -> None:
    """Keep what is compiled, pickles among it, in the user's own folder.

    Left alone, torch takes one below /tmp that others on the machine can foresee, and make first.
    """
    chosen = Path(os.environ.get(CACHE, ""))
    shared = chosen.parent == Path(tempfile.gettempdir()) and chosen.name.startswith(
        "torchinductor"
    )
    if CACHE not in os.environ or shared:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        os.environ[CACHE] = str(home / "medaug" / "compiled")


def _try_out(device: torch.device) -> None:
    try:
        torch.compile(torch.nn.functional.silu, dynamic=False)(torch.zeros(8, device=device))
    except Exception as error:  # each backend has errors of its own
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"compile: torch.compile does not work on this machine ({reason}); leave it out, or "
            "install what it lacks (on the CPU a C++ compiler, on a GPU Triton)"
        ) from error
