"""A command that has used up its memory still says so."""

import subprocess
import sys

import pytest

from medaug.cli import main
from medaug.runtime.resources import set_aside

HOG = """
import resource, sys
import medaug.cli

app = sys.modules["medaug.cli.main"]
held, place = [None] * 4_000_000, 0

def hog():
    global place
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    last = None
    for each in (10**6, 10**4, *range(2000, 0, -16)):
        try:
            while True:
                held[place] = bytes(each)
                place += 1
        except MemoryError as error:
            last = error
    raise last

app.app = hog
app.main()
"""


def test_a_sentence_is_said_where_no_memory_is_left() -> None:
    done = subprocess.run([sys.executable, "-c", HOG], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("medaug: MemoryError: ")


def test_what_is_set_aside_is_given_back_before_anything_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = sys.modules[main.__module__]
    spare, there = set_aside(), []

    def hog() -> None:
        there.append(sum(map(len, spare)))
        raise MemoryError

    def leave(text: str, status: int) -> None:
        there.append(sum(map(len, spare)))
        sys.exit(status)

    for name, value in {"set_aside": lambda: spare, "app": hog, "leave": leave}.items():
        monkeypatch.setattr(app, name, value)
    with pytest.raises(SystemExit):
        main()
    assert there == [512_000, 0]
