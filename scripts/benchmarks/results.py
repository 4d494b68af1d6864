"""What a row leaves behind: claims held against their bounds, as JSON and as one table of all rows.

Every figure in the table was measured by the command beside it; nothing is written by hand.  Called
by itself this makes the table anew, and the list of the other pages.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import SHORT

from medaug import __version__

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
WORK = ROOT / "build" / "bench"

FAILED = "failed: "
"""What the last word of a process that measured nothing begins with."""

REACHED = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
}


@dataclass(frozen=True)
class Claim:
    """A measured ``value`` and the ``bound`` that it must keep, both in ``unit``."""

    what: str
    value: float
    relation: str
    bound: float
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the bound is kept; never where the value is not a number."""
        return bool(REACHED[self.relation](self.value, self.bound))

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return "pass" if self.reached else "FALLS SHORT"

    @property
    def figure(self) -> str:
        """The value as a reader wants it."""
        return f"{self.value:.3g} {self.unit}".rstrip()

    @property
    def limit(self) -> str:
        """The bound as a reader wants it."""
        return f"{self.relation} {self.bound:g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Asked:
    """How a row was called.

    Attributes:
        quick: little of everything, for a look.
        work: where it may work; git ignores it.
        results: where its figures go.
    """

    quick: bool
    work: Path
    results: Path


def asked(arguments: Sequence[str] | None = None) -> Asked:
    """Read a row's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(arguments).quick
    work = WORK / "quick" if quick else WORK
    work.mkdir(parents=True, exist_ok=True)
    return Asked(quick, work, work / "results" if quick else RESULTS)


def report(
    asked: Asked,
    row: str,
    claims: Sequence[Claim],
    figures: Mapping[str, Any],
    *,
    n: int,
    seed: int | None,
    note: str = "",
    told: str = "",
) -> int:
    """Print the claims, write ``ROW.json``, and make the table anew; the exit status.

    Args:
        asked: how the row was called.
        row: its name.
        claims: what is held against a bound.
        figures: everything else that was measured, JSON values.
        n: how many of what the figures are about: images, samples, scans, repeats.
        seed: of all draws, None where there are none.
        note: what a reader of the figures must know.
        told: the command that measures it, where that is not ``scripts/bench``.
    """
    content = {
        "row": row,
        "claims": [asdict(c) | {"reached": c.reached} for c in claims],
        "figures": figures,
        "n": n,
        "seed": seed,
        "note": note,
        "commands": [told or command(row, asked.quick)],
        "machine": machine(),
        "medaug": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    asked.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (asked.results / f"{row}.json").write_text(public(text))
    (asked.results / "README.md").write_text(table(asked.results))
    for claim in claims:
        print(f"{row}: {claim.what}: {claim.figure} ({claim.limit}): {claim.verdict}", flush=True)
    return 0 if all(claim.reached for claim in claims) else SHORT


def command(row: str, quick: bool = False) -> str:
    """The command line that measures ``row``."""
    return f"scripts/bench {'--quick ' if quick else ''}{row}"


def public(text: str) -> str:
    """``text`` without the paths of this machine."""
    data = os.environ.get("MEDAUG_TEST_DATA")
    for path, name in ((data, "$MEDAUG_TEST_DATA"), (str(ROOT), ".")):
        text = text.replace(path, name) if path else text
    return text


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import torch

    from medaug.runtime.device import choose_precision

    facts = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bf16": choose_precision("auto", torch.device("cpu")) == "bfloat16",
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cpu(info: Path = Path("/proc/cpuinfo")) -> str:
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in one line."""
    parts = [
        *([machine["gpu"]] if "gpu" in machine else []),
        machine["cpu"],
        f"{machine['cores']} cores",
        f"{machine['memory_gib']} GiB",
        f"torch {machine['torch']} on {machine['threads']} threads",
        f"bf16 {'yes' if machine['bf16'] else 'no'}",
    ]
    return ", ".join(parts)


def table(folder: Path) -> str:
    """All rows in ``folder``, and links to its other pages, as one page of Markdown."""
    rows, machines = [], {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if not content.keys() >= {"row", "claims", "machine"}:
            continue
        where = describe(content["machine"])
        letter = machines.setdefault(where, chr(ord("A") + len(machines)))
        for entry in content["claims"]:
            claim = Claim(**{k: v for k, v in entry.items() if k != "reached"})
            cells = [
                f"[{content['row']}]({path.name})",
                claim.what,
                claim.limit,
                claim.figure,
                claim.verdict,
                letter,
                content["date"],
                f"`{content['commands'][0]}`",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "# Results",
            "",
            "Made from the files beside it, which hold more figures, their n, their seed and",
            "notes, by the commands that measure them.",
            "",
            "| row | what | bound | figure | verdict | machine | date | command |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            *(f"Machine {letter}: {where}." for where, letter in machines.items()),
            "",
            *pages(folder),
        ]
    )


def pages(folder: Path) -> list[str]:
    """The other pages in ``folder`` with their titles and commands, as lines of a table."""
    rows = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text()
        title, made = (re.search(p, text, re.M) for p in (r"^# (.+)$", r"^Made by (`[^`]+`)"))
        if path.name != "README.md" and title and made:
            rows.append(f"| [{path.stem}]({path.name}) | {title[1]} | {made[1]} |")
    return ["| page | what | command |", "| --- | --- | --- |", *rows, ""] if rows else []


def peak_bytes() -> int:
    """The most memory this process has held since it began to run its program.

    ``ru_maxrss`` outlives exec and so may count what the parent held.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class NotMeasured(RuntimeError):
    """A process ended without the figure it was to measure; says why."""


def fresh(row: str, function: str, *arguments: object) -> Any:
    """What ``function`` of a row's file returns, as JSON, called in a process of its own.

    Raises:
        NotMeasured: it failed.
    """
    code = f"import results, {row}; results.answer({row}.{function})"
    given = [json.dumps(str(a) if isinstance(a, Path) else a) for a in arguments]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", code, *given],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.startswith(FAILED)]
        raise NotMeasured(
            lines[-1].removeprefix(FAILED) if lines else f"ended with {done.returncode}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def answer(function: Callable[..., Any]) -> None:
    """Print what ``function`` returns on this process's arguments, or why it failed."""
    try:
        print(json.dumps(function(*map(json.loads, sys.argv[1:]))))
    except Exception as error:
        print(FAILED + f"{type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)
        raise


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(table(RESULTS))
