"""Work inside a pipeline that leaves no trace in the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def calm() -> Iterator[None]:
    """No draw from torch's global generator, and NumPy's usual error handling.

    Building networks draws; torchio makes NumPy stricter inside its transforms.
    """
    usual = np.errstate(divide="warn", over="warn", invalid="warn")
    with torch.random.fork_rng(devices=[]), usual:
        yield
