"""The table of a study: each arm's scores, what it adds, and whether that may be called help."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medaug.core.errors import DataError
from medaug.evaluation.downstream.arms import ARMS, Arm
from medaug.evaluation.downstream.scores import METRICS, mean_scores
from medaug.evaluation.downstream.statistics import Interval, hurt, interval, verdict
from medaug.runtime.files import parse_json

BASELINE = "standard"
MAIN = "dice"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """An arm beside another, the same patients taught and tested.

    Attributes:
        against: the other arm.
        differences: of each metric, arm minus other.
        hurt: how many cases lose more Dice than allowed.
        cases: how many cases there are.
        subsets: choices of patients that both arms have.
    """

    against: str
    differences: Mapping[str, Interval]
    hurt: int
    cases: int
    subsets: int


@dataclass(frozen=True)
class TableRow:
    """One arm at one n, over the subsets that are done.

    Attributes:
        n: labelled patients, None for all.
        arm: its name.
        summary: what it teaches.
        role: what the arm is to the verdict: baseline, rival, ours or ceiling.
        subsets: how many are in it.
        cases: test patients.
        scores: of each metric, mean and interval.
        versus_standard: beside standard augmentation, None where that was not run, or is this.
        versus_rival: beside the best of the cheap rivals, None where none was run, or is this.
        verdict: ``helps``, ``hurts``, ``not shown`` or ``not judged``; empty for real data alone.
        seconds: mean of a subset, with all that the arm rests on.
        images: mean of a subset, by what was done with them.
        skipped: why there is nothing, where that is so.
    """

    n: int | None
    arm: str
    summary: str
    role: str
    subsets: int
    cases: int
    scores: Mapping[str, Interval]
    versus_standard: Comparison | None
    versus_rival: Comparison | None
    verdict: str
    seconds: float
    images: Mapping[str, float]
    skipped: str


@dataclass(frozen=True)
class Table:
    """All rows, n by n, and how to read them."""

    rows: Sequence[TableRow]
    notes: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)

    @property
    def helping(self) -> list[TableRow]:
        """The rows whose verdict is ``helps``."""
        return [row for row in self.rows if row.verdict == "helps"]

    def markdown(self) -> str:
        """The table for a reader, on a page or in a terminal."""
        heads = ["N", "arm", "Dice", "HD95 mm", "surface Dice", "over standard", "best rival",
                 "over rival", "hurt", "s", "verdict"]  # fmt: skip
        body = [_cells(row) for row in self.rows]
        widths = [max(len(cells[k]) for cells in (heads, *body)) for k in range(len(heads))]
        lines = [heads, ["-" * width for width in widths], *body]
        rows = [
            "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"
            for cells in lines
        ]
        skipped = [f"{_n(row.n)}, {row.arm}: {row.skipped}." for row in self.rows if row.skipped]
        return "\n".join([*rows, "", *self.notes, *skipped]) + "\n"


def _cells(row: TableRow) -> list[str]:
    scores = [_figure(row.scores.get(name), 1 if name == "hd95" else 3) for name in METRICS]
    standard, rival = row.versus_standard, row.versus_rival
    return [
        _n(row.n),
        row.arm,
        *scores,
        _difference(standard),
        rival.against if rival else "",
        _difference(rival),
        f"{standard.hurt}/{standard.cases}" if standard else "",
        f"{row.seconds:.0f}",
        "skipped" if row.skipped and not row.subsets else row.verdict,
    ]


def _main(found: Comparison | None) -> Interval | None:
    return None if found is None else found.differences[MAIN]


def _n(n: int | None) -> str:
    return "all" if n is None else str(n)


def _figure(found: Interval | None, digits: int) -> str:
    return "" if found is None else f"{found.mean:.{digits}f}"


def _difference(found: Comparison | None) -> str:
    if found is None:
        return ""
    change = found.differences[MAIN]
    return f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def load(path: Path) -> Table:
    """The table of a ``downstream.json``.

    Raises:
        DataError: no such file, or something else.
    """
    try:
        return table(parse_json(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no result of a downstream study") from error


def table(content: Mapping[str, Any]) -> Table:
    """The table of the rows in ``content``, as ``downstream.json`` holds them.

    An arm's rows are compared over the subsets that both sides have.  The best rival is that of the
    highest mean Dice, chosen on the same test patients, which favours the rival.
    """
    study = content["settings"]["downstream"]
    done: dict[tuple[int | None, str], list[Row]] = {}
    for row in content["rows"]:
        done.setdefault((row["n"], row["arm"]), []).append(row)
    order = list(ARMS)
    keys = sorted(done, key=lambda key: (key[0] is None, key[0] or 0, order.index(key[1])))
    rows = [_summed(key, done, content["seconds"], study) for key in keys]
    return Table(rows, _notes(study, rows))


def _summed(
    key: tuple[int | None, str],
    done: Mapping[tuple[int | None, str], Sequence[Row]],
    seconds: Mapping[str, float],
    study: Mapping[str, Any],
) -> TableRow:
    n, arm = key[0], ARMS[key[1]]
    taught = [row for row in done[key] if row["skipped"] is None]
    scores = {}
    cases = sorted(taught[0]["cases"]) if taught else []
    for metric in METRICS if taught else ():
        scores[metric] = _interval(_values(taught, metric), study)
    standard = rival = None
    if taught and n is not None and arm.name != BASELINE:
        standard = _compared(taught, done.get((n, BASELINE), ()), study)
        if arm.role == "synthetic":
            rival = _compared(taught, _best(arm, n, done), study)
    judged = ""
    if arm.role == "synthetic" and taught:
        judged = verdict(_main(standard), _main(rival))
    kinds = sorted({kind for row in taught for kind in row["images"]})
    return TableRow(
        n=n,
        arm=arm.name,
        summary=arm.summary,
        role=arm.role,
        subsets=len(taught),
        cases=len(cases),
        scores=scores,
        versus_standard=standard,
        versus_rival=rival,
        verdict=judged,
        seconds=_mean(sum(seconds[name] for name in set(row["used"])) for row in taught),
        images={kind: _mean(row["images"].get(kind, 0) for row in taught) for kind in kinds},
        skipped=next((row["skipped"] for row in done[key] if row["skipped"] is not None), ""),
    )


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values) if values else 0.0


def _values(rows: Sequence[Row], metric: str) -> npt.NDArray[np.float64]:
    """A metric (subsets, cases), both in their order; every test patient shows a label."""
    return np.array(
        [
            [mean_scores(row["cases"][name])[metric] for name in sorted(row["cases"])]
            for row in sorted(rows, key=lambda row: int(row["subset"]))
        ]
    )


def _interval(values: npt.NDArray[np.float64], study: Mapping[str, Any]) -> Interval:
    return interval(values, study["seed"], study["resamples"])


def _best(arm: Arm, n: int, done: Mapping[tuple[int | None, str], Sequence[Row]]) -> Sequence[Row]:
    """The rows of the rival with the highest mean Dice."""
    rivals = [[row for row in done.get((n, name), ()) if row["skipped"] is None]
              for name in arm.rivals]  # fmt: skip
    there = [rows for rows in rivals if rows]
    return max(there, key=lambda rows: float(_values(rows, MAIN).mean()), default=())


def _compared(
    mine: Sequence[Row], others: Sequence[Row], study: Mapping[str, Any]
) -> Comparison | None:
    """An arm beside another over the subsets of both; None where there are none."""
    theirs = {row["subset"]: row for row in others if row["skipped"] is None}
    mine = [row for row in mine if row["subset"] in theirs]
    if not mine:
        return None
    paired = [theirs[row["subset"]] for row in mine]
    apart = {metric: _values(mine, metric) - _values(paired, metric) for metric in METRICS}
    return Comparison(
        paired[0]["arm"],
        {metric: _interval(values, study) for metric, values in apart.items()},
        hurt(apart[MAIN], study["hurt"]),
        apart[MAIN].shape[1],
        len(mine),
    )


def _notes(study: Mapping[str, Any], rows: Sequence[TableRow]) -> list[str]:
    """How to read the table, in sentences."""
    cases = max((row.cases for row in rows), default=0)
    subsets = max((row.subsets for row in rows), default=0)
    over = "patient and choice, with 95 % bootstrap intervals over both"
    if subsets == 1:
        over = (
            "patient, with 95 % bootstrap intervals over patients alone: nothing is said of "
            "another choice of labelled patients"
        )
    return [
        f"Every arm taught the same U-Net for {study['steps']} steps of {study['batch']} slices "
        f"and was tested on the same {cases} unseen patients; N patients are labelled, chosen "
        f"{'once' if subsets == 1 else f'{subsets} times'}.",
        f"Differences are of Dice, paired by {over}. Helps: the intervals over standard "
        "augmentation and over the best cheap rival both lie above 0.",
        f"Hurt: patients that lose more than {100 * study['hurt']:g} points of Dice against "
        "standard augmentation. Seconds are of all that the arm rests on.",
    ]
