"""A run in small by several processes, one of which may meet an accident; for torchrun and tests.

python -m tests.support.ranks_fit CACHE RUN [killed|stopped]
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from medaug.core.config import resolve
from medaug.data.cache.prepare import SliceCache
from medaug.runtime.signals import exit_status
from medaug.training import loop
from tests.conftest import TINY

ACCIDENT = 72
"""Images after which it happens, between two checkpoints."""
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM}


def run(cache: Path, folder: Path, accident: str = "") -> int:
    """Train; the second process meets ``accident`` once.  Returns the exit status."""
    torch.set_num_threads(1)
    played = loop.play_round

    def disturbed(training: loop.Training, data: Any) -> int:
        images = played(training, data)
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" or training.resumed
        if accident and training.ranks.rank == 1 and training.images >= ACCIDENT and not again:
            os.kill(os.getpid(), SIGNALS[accident])
        return images

    loop.play_round = disturbed
    report = loop.fit(resolve(TINY), SliceCache.open(cache), folder, device="cpu")
    return 0 if report.finished else exit_status(report.signal)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
