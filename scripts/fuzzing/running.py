"""A worker that is told what to do, and killed when it does not come back."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FIRST_S = 900.0
"""For imports and the reading of what is sound, on a busy machine."""
_WAITING = 20  # times the limit, for a process that waits or is kept from computing


@dataclass(frozen=True)
class Tried:
    """One damaged input: its kind and number, what was done to it, and what became of it."""

    kind: str
    number: int
    how: str
    outcome: str
    told: str


class Worker:
    """A process that damages and reads; started when needed, and anew after a hang or a crash.

    Args:
        work: a folder for its inputs.
        limit_s: of computing that one input may take.
    """

    def __init__(self, work: Path, limit_s: float) -> None:
        self.work, self.limit_s = work, limit_s
        self.process: subprocess.Popen[bytes] | None = None
        self.heard = b""

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.process, self.heard = None, b""

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
            more = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.work)}
            more["PYTHONSAFEPATH"] = "1"
            self.work.mkdir(parents=True, exist_ok=True)
            self.process = subprocess.Popen(
                [sys.executable, HERE / "worker.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **more},
            )
        return self.process

    def tried(self, kind: str, seed: int, number: int, sound: Path) -> Tried:
        """Damage and read one input."""
        process = self._started()
        assert process.stdin is not None
        asked: dict[str, object] = {"kind": kind, "seed": seed, "number": number}
        asked["sound"] = str(sound)
        asked["limit_s"] = self.limit_s
        process.stdin.write(json.dumps({**asked, "work": str(self.work)}).encode() + b"\n")
        process.stdin.flush()
        how = "?"
        for patience in (FIRST_S, _WAITING * self.limit_s):
            line = self._line(patience)
            if not line:
                ended = process.poll()
                word = "hang" if ended in (None, -signal.SIGPROF) else "crash"
                code = "" if word == "hang" else f"exit status {ended}"
                if how == "?":
                    raise RuntimeError(f"{kind}: what is sound cannot be read ({word} {code})")
                self.stop()
                return Tried(kind, number, how, word, code)
            answer = json.loads(line)
            how = answer["how"]
        return Tried(kind, number, how, answer["outcome"], answer["told"])

    def _line(self, patience: float) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        until = time.monotonic() + patience
        with selectors.DefaultSelector() as chosen:
            chosen.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.heard:
                if not chosen.select(max(0.0, until - time.monotonic())):
                    return ""
                more = os.read(self.process.stdout.fileno(), 2**16)
                if not more:
                    self.process.wait()
                    return ""
                self.heard += more
        line, _, self.heard = self.heard.partition(b"\n")
        return line.decode()


def trials(worker: Worker, kind: str, seed: int, numbers: range, sound: Path) -> Iterator[Tried]:
    """What became of the inputs of one kind."""
    for number in numbers:
        yield worker.tried(kind, seed, number, sound)
