"""Processes that are measured: functions called in fresh ones, and commands seen from outside.

Memory is that of all processes of a command's session, pages they share in shares.  Of it, `own`
leaves out pages of files, which are the system's cache and are given back where memory is short.
"""

import json
import os
import resource
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FAILED = "failed: "
"""What the last line of a process that measured nothing begins with."""
EVERY_S = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_TRACEBACK = 70


class NotMeasured(RuntimeError):
    """A process ended without the figure it was to measure; says why."""


def calling(module: str, function: str, *arguments: object) -> list[str]:
    """The command that calls a function of a file beside this one and prints what it returns.

    The arguments are JSON values or paths, and what is returned is a JSON value.
    """
    code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import processes, {module}; "
    code += f"processes.answer({module}.{function})"
    words = (json.dumps(str(a) if isinstance(a, Path) else a) for a in arguments)
    return [sys.executable, "-c", code, *words]


def medaug(*words: object) -> list[str]:
    """The command ``medaug WORDS`` of this Python."""
    return [sys.executable, "-m", "medaug", *map(str, words)]


def fresh(module: str, function: str, *arguments: object) -> Any:
    """What a function of a file beside this one returns in a process of its own.

    Raises:
        NotMeasured: it failed.
    """
    command = calling(module, function, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode:
        reasons = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
        raise NotMeasured(reasons[-1] if reasons else f"ended with {done.returncode}")
    return json.loads(lines[-1])


def answer(function: Callable[..., Any]) -> None:
    """Print what ``function`` returns on this process's arguments, or why it failed."""
    try:
        print(json.dumps(function(*map(json.loads, sys.argv[1:]))))
    except Exception as error:
        print(FAILED + f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)
        raise


def watch(
    command: Sequence[str | Path], begun: Callable[[], bool], every_s: float = EVERY_S
) -> dict[str, float]:
    """Run ``command`` to its end.

    Args:
        command: its words; all its processes stay in its session.
        begun: whether its first result is there.
        every_s: how often it is looked at, in seconds.

    Returns:
        ``seconds`` and ``cpu_seconds`` of the whole, ``first_seconds`` and ``first_cpu_seconds``
        of what came before the first result, ``peak_bytes`` and ``own_peak_bytes``.
    """
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    seen = {"first_seconds": 0.0, "first_cpu_seconds": 0.0, "peak_bytes": 0, "own_peak_bytes": 0}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as running:
        looked = 0.0
        while running.poll() is None:
            if not seen["first_seconds"] and begun():
                seen["first_seconds"] = time.perf_counter() - started
                seen["first_cpu_seconds"] = cpu_seconds(running.pid)
            if time.perf_counter() - looked >= every_s:
                looked = time.perf_counter()
                held, own = memory(running.pid)
                seen["peak_bytes"] = max(seen["peak_bytes"], held)
                seen["own_peak_bytes"] = max(seen["own_peak_bytes"], own)
            time.sleep(min(every_s, 0.01 if not seen["first_seconds"] else every_s))
    assert running.returncode == 0, f"{command} ended with {running.returncode}"
    assert seen["first_seconds"], f"{command}: no sign of its work"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "cpu_seconds": spent, **seen}


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
            found = sizes(place / "smaps_rollup")
            held += found.get("Pss", 0)
            own += found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0)
    return held, own


def sizes(path: Path) -> dict[str, int]:
    """The sizes in bytes that a file below ``/proc`` gives in kB, by name."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1:] == ["kB"]}


def cpu_seconds(session: int) -> float:
    """Processor time of a session so far, ended children included."""
    ticks = 0
    for place in members(session):
        with suppress(OSError):
            cells = (place / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(cell) for cell in cells[11:15])
    return ticks / _TICKS


def peak_bytes() -> int:
    """The most memory this process has held since it began to run its program.

    ``ru_maxrss`` outlives exec and so may count what the parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return sizes(status)["VmHWM"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def launch(work: Callable[[], int], world: int) -> list[int]:
    """Statuses of ``world`` forked processes that do ``work``, in the environment of torchrun.

    The status of one that ended with a traceback is 70.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            named = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_PORT": port}
            os.environ |= {key: str(value) for key, value in named.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_WORLD_SIZE": str(world)}
            status = _TRACEBACK
            try:
                status = work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
