"""A command seen from outside: its time, its memory, and when it showed the first of its work.

Memory is that of all processes of the command's session, pages they share in shares.  Of it, `own`
leaves out pages of files, which are the system's cache and are given back where memory is short.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

EVERY_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")


def watch(
    command: Sequence[str | Path], begun: Callable[[], bool], every_s: float = EVERY_S
) -> dict[str, float]:
    """Run ``command`` to its end.

    Args:
        command: its words; all its processes stay in its session.
        begun: whether its first result is there.
        every_s: how often it is looked at.

    Returns:
        ``seconds`` and ``cpu_seconds`` of the whole, ``first_seconds`` and ``first_cpu_seconds``
        of what came before the first result, ``peak_bytes`` and ``own_peak_bytes``.
    """
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    told = {"first_seconds": 0.0, "first_cpu_seconds": 0.0, "peak_bytes": 0, "own_peak_bytes": 0}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        looked = 0.0
        while running.poll() is None:
            if not told["first_seconds"] and begun():
                told["first_seconds"] = time.perf_counter() - started
                told["first_cpu_seconds"] = cpu_seconds(running.pid)
            if time.perf_counter() - looked >= every_s:
                looked = time.perf_counter()
                held, own = memory(running.pid)
                told["peak_bytes"] = max(told["peak_bytes"], held)
                told["own_peak_bytes"] = max(told["own_peak_bytes"], own)
            time.sleep(min(every_s, 0.01 if not told["first_seconds"] else every_s))
    assert running.returncode == 0, f"{command} ended with {running.returncode}"
    assert told["first_seconds"], f"{command}: no sign of its work"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu_seconds": spent, **told}


def python(module: str, function: str, *arguments: Any) -> list[str]:
    """The command that calls a function of a file beside this one, in a process of its own."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {module}; "
        f"{module}.{function}(*sys.argv[1:])"
    )
    return [sys.executable, "-c", code, *map(str, arguments)]


def members(session: int) -> Iterator[Path]:
    """The processes of a session, by their place below ``/proc``."""
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getsid(int(place.name)) == session:
                yield place


def memory(session: int) -> tuple[int, int]:
    """Bytes that a session holds, and those of them that are not pages of files."""
    held = own = 0
    for place in members(session):
        with suppress(OSError):
            for line in (place / "smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("Pss", "Pss_Anon", "Pss_Shmem"):
                    count = int(rest.split()[0]) * 1024
                    held, own = (held + count, own) if name == "Pss" else (held, own + count)
    return held, own


def cpu_seconds(session: int) -> float:
    """Processor time of a session so far, ended children included."""
    ticks = 0
    for place in members(session):
        with suppress(OSError):
            cells = (place / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(cell) for cell in cells[11:15])
    return ticks / _TICKS
