"""SIGTERM is never lost, and a process that exits by it prints one sentence."""

import subprocess
import sys

DROPPED = """
import os, signal, time
from medaug.runtime.signals import Preempted, leave_by_sigterm, preempted

leave_by_sigterm()
os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGTERM))
try:
    if not os.fork():
        os._exit(0)
    assert preempted()
    time.sleep(30)
except Preempted:
    print("left")
"""

OTHER = """
from medaug.runtime.signals import leave_by_sigterm

class Sloppy:
    def __del__(self):
        raise ValueError("as always")

leave_by_sigterm()
Sloppy()
print("went on")
"""

DYING = """
import signal
from medaug.cli import app, main

def die(*_):
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")

@app.command()
def victim():
    signal.signal(signal.SIGCHLD, die)
    {first}
    signal.raise_signal(signal.SIGCHLD)

main()
"""


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)


def test_a_signal_that_comes_in_a_callback_comes_again() -> None:
    done = run(DROPPED)
    assert (done.stdout, done.stderr) == ("left\n", "")


def test_other_errors_in_callbacks_are_told_as_ever() -> None:
    done = run(OTHER)
    assert done.stdout == "went on\n"
    assert "ValueError: as always" in done.stderr


def test_a_worker_that_dies_of_the_same_signal_changes_nothing() -> None:
    done = run(DYING.format(first="signal.raise_signal(signal.SIGTERM)"), "victim")
    assert done.returncode == 75
    assert done.stderr == "medaug: stopped by SIGTERM; the same command goes on where it stopped\n"


def test_a_worker_that_dies_otherwise_is_told_in_a_sentence() -> None:
    done = run(DYING.format(first="pass"), "victim")
    assert done.returncode == 2
    assert done.stderr == (
        "medaug: a worker died (DataLoader worker (pid 7) is killed by signal: Terminated.); run "
        "the same command with fewer workers\n"
    )
