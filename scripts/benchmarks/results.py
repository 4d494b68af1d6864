"""Measure a row, hold its claims against their bounds, and write JSON and one table of all rows.

Every figure in the table was measured by the command beside it; nothing is written by hand.  Run as
a program, this file writes the table again, with the list of the other pages.
"""

import hashlib
import importlib
import json
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import FILES, SHORT

from medaug import __version__
from medaug.runtime.files import write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
WORK = ROOT / "build" / "bench"

REACHED = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


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
class Setup:
    """How a row is called.

    Attributes:
        quick: little of everything, for a look.
        work: where it may work; git ignores it.
        results: where its figures go.
    """

    quick: bool
    work: Path
    results: Path

    @classmethod
    def of(cls, quick: bool) -> "Setup":
        """The folders of a row: for a quick look both lie below build/."""
        work = WORK / "quick" if quick else WORK
        work.mkdir(parents=True, exist_ok=True)
        return cls(quick, work, work / "results" if quick else RESULTS)


@dataclass(frozen=True)
class Measured:
    """What a row found.

    Attributes:
        claims: what is held against a bound.
        figures: everything else that was measured, JSON values.
        n: how many of what the figures are about: images, samples, scans, repeats.
        seed: seed of all draws, None where there are none.
        note: what a reader of the figures must know.
        incomplete: whether a part could not be measured, which makes the exit status 2.
    """

    claims: Sequence[Claim]
    figures: Mapping[str, Any]
    n: int
    seed: int | None
    note: str = ""
    incomplete: bool = False


def measure(row: str, quick: bool) -> int:
    """Measure ``row`` in this process and report it; the exit status."""
    setup = Setup.of(quick)
    found = getattr(importlib.import_module(FILES.get(row, row)), f"measure_{row}")(setup)
    return 0 if found is None else report(setup, row, found)


def report(setup: Setup, row: str, found: Measured, made_by: str = "") -> int:
    """Print the claims, write ``ROW.json``, and write the table again; the exit status.

    Args:
        setup: how the row was called.
        row: its name.
        found: its claims and figures.
        made_by: the command that measures it; ``scripts/bench`` with the row's name by default.
    """
    content = {
        "row": row,
        "claims": [asdict(c) | {"reached": c.reached} for c in found.claims],
        "figures": found.figures,
        "n": found.n,
        "seed": found.seed,
        "note": found.note,
        "commands": [made_by or f"scripts/bench {'--quick ' if setup.quick else ''}{row}"],
        "machine": machine(),
        "medaug": __version__,
        "date": today(),
    }
    setup.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (setup.results / f"{row}.json").write_text(public(text))
    (setup.results / "README.md").write_text(table(setup.results))
    for claim in found.claims:
        print(f"{row}: {claim.what}: {claim.figure} ({claim.limit}): {claim.verdict}", flush=True)
    if found.incomplete:
        return 2
    return 0 if all(claim.reached for claim in found.claims) else SHORT


def today() -> str:
    """The date in UTC, as ISO 8601 has it."""
    return datetime.now(UTC).date().isoformat()


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
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe(machine: Mapping[str, Any]) -> str:
    """A machine in one line."""
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    size = f"{machine['cores']} cores, {machine['memory_gib']} GiB"
    torch = f"torch {machine['torch']} on {machine['threads']} threads"
    return f"{gpu}{machine['cpu']}, {size}, {torch}, bf16 {'yes' if machine['bf16'] else 'no'}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table with the column titles ``head``."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]


def table(folder: Path) -> str:
    """All rows in ``folder``, and links to its other pages, as one page of Markdown."""
    rows: list[list[str]] = []
    machines: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        if not content.keys() >= {"row", "claims", "machine"}:
            continue
        where = describe(content["machine"])
        letter = machines.setdefault(where, chr(ord("A") + len(machines)))
        link, made_by = f"[{content['row']}]({path.name})", f"`{content['commands'][0]}`"
        for entry in content["claims"]:
            claim = Claim(**{k: v for k, v in entry.items() if k != "reached"})
            judged = [claim.what, claim.limit, claim.figure, claim.verdict]
            rows.append([link, *judged, letter, content["date"], made_by])
    columns = ["row", "what", "bound", "figure", "verdict", "machine", "date", "command"]
    return "\n".join(
        [
            "# Results",
            "",
            "Made from the files beside it, which hold more figures, their n, their seed and",
            "notes, by the commands that measure them.",
            "",
            *markdown(columns, rows),
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
            rows.append([f"[{path.stem}]({path.name})", title[1], made[1]])
    return [*markdown(["page", "what", "command"], rows), ""] if rows else []


def kept(
    path: Path, measure: Callable[[], Any], whole: Callable[[Any], bool] = lambda found: True
) -> Any:
    """What ``measure`` returns or returned earlier; kept in ``path`` where it is ``whole``."""
    if not path.exists():
        print(f"measuring {path.stem}", file=sys.stderr, flush=True)
        found = measure()
        if not whole(found):
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    return json.loads(path.read_text())


def sources(*more: Path) -> str:
    """A hash of medaug's code and of that in the folders ``more``: the name of what is measured."""
    files = sorted(file for folder in (ROOT / "medaug", *more) for file in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(table(RESULTS))
