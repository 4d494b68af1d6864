"""A medaug command as a process group of its own, forked from a parent that has done the imports.

What is stopped, starved or cut short is the real command line with its workers; the fork only
saves the seconds that Python takes to import torch.
"""

import ctypes
import fcntl
import importlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S = 600.0
"""A command that takes longer hangs: undisturbed, none takes ten seconds on an idle machine."""

PIPE_BYTES = 2**20
_SIGNAL_WHEN_PARENT_DIES = 1  # PR_SET_PDEATHSIG

IMPORTS = (
    *(
        "medaug.cli",
        "medaug.runtime.resources",
        "medaug.training.workflow",
        "medaug.data.download",
        "medaug.cli.describe",
    ),
    *(
        "medaug.data.cache.fill",
        "medaug.data.sources.phantom.source",
        "medaug.data.sources.pancreas",
    ),
    *(
        "medaug.synthesis.synthesize",
        "medaug.synthesis.generator",
        "medaug.runtime.pictures",
        "medaug.synthesis.writers.nifti",
    ),
    *("medaug.synthesis.filter", "medaug.synthesis.filter.reference"),
    *("medaug.evaluation.report", "medaug.evaluation.downstream.table"),
    *("torch.utils.data", "torch.optim", "sklearn.linear_model", "sklearn.covariance"),
    *("scipy.ndimage", "scipy.stats", "nibabel", "SimpleITK", "PIL.Image"),
)


def warm() -> None:
    """Import what the commands import, on one thread: a fork keeps memory but no threads."""
    import torch

    torch.set_num_threads(1)
    for name in IMPORTS:
        importlib.import_module(name)


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: its exit status; negative where a signal ended it.
        seconds: until then.
        said: all of its standard error.
        hung: it had to be ended.
    """

    code: int
    seconds: float
    said: str
    hung: bool = False

    @property
    def traceback(self) -> bool:
        """Whether a reader saw the inside of the program."""
        return "Traceback (most recent call last)" in self.said

    @property
    def sentence(self) -> str:
        """The one line that a mistake ends with, or nothing."""
        lines = [line for line in self.said.splitlines() if line.startswith("medaug: ")]
        return lines[-1] if len(lines) == 1 else ""


@dataclass(frozen=True)
class Command:
    """What is run: words after ``medaug``, and under which limits.

    Attributes:
        limits: of `resource.setrlimit`, by number.
        before: called in the new process first, to make its world a worse one.
        environment: added to the variables.
    """

    words: Sequence[str]
    limits: Mapping[int, int] = field(default_factory=dict)
    before: Callable[[], object] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


class Running:
    """A command that was started in ``folder``."""

    def __init__(self, command: Command, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.told, told = os.pipe()  # no file: a full disk or a limit would silence it
        fcntl.fcntl(told, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(command, folder, told)
        os.close(told)
        with suppress(OSError):  # it has done so itself, or is over
            os.setpgid(self.pid, self.pid)

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def ended(self, within_s: float) -> int | None:
        """The exit status, or None where it still runs after so many seconds."""
        until = time.monotonic() + within_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            left = until - time.monotonic()
            if left <= 0:
                return None
            time.sleep(min(0.005, left))

    def wait(self, limit_s: float = LIMIT_S) -> End:
        """Its end, which is brought about after ``limit_s``."""
        code = self.ended(limit_s)
        if code is None:
            self.stop(signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            return self.end(os.waitstatus_to_exitcode(status), True)
        return self.end(code)

    def end(self, code: int, hung: bool = False) -> End:
        """How it ended, read once."""
        seconds = time.monotonic() - self.began
        os.set_blocking(self.told, False)  # a dying worker may hold the other end
        said = b""
        with suppress(BlockingIOError):
            while block := os.read(self.told, PIPE_BYTES):
                said += block
        os.close(self.told)
        return End(code, seconds, said.decode(errors="replace"), hung)


def run(command: Command, folder: Path) -> End:
    """Run a command to its end."""
    return Running(command, folder).wait()


def stopped(command: Command, folder: Path, after_s: float, number: signal.Signals) -> End:
    """Run a command and send its group a signal after so many seconds, unless it is over."""
    running = Running(command, folder)
    code = running.ended(after_s)
    if code is not None:
        return running.end(code)
    running.stop(number)
    return running.wait()


def _become(command: Command, folder: Path, told: int) -> None:
    """Turn the forked process into the command; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_DIES, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(told, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        os.chdir(folder)
        os.environ.update(command.environment)
        if command.before is not None:
            command.before()
        for which, most in command.limits.items():
            resource.setrlimit(which, (most, most))
        code = _main(command.words)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    from medaug.cli import main

    sys.argv = ["medaug", *words]
    try:
        main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
