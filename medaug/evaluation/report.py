"""``evaluate``: synthetic slices against real ones, part by part, to one JSON file and one page.

OUT/
  index.html       for a reader; needs no other file
  report.json      every figure, bound and verdict; `SCHEMA` names its form
  run.json         what was asked
  parts/           what each part found; a killed evaluation goes on from there
"""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import medaug
from medaug.core.errors import OutputError
from medaug.evaluation import saved_parts
from medaug.evaluation.families import Measure, Subject, chosen
from medaug.evaluation.figures import Family, FamilyName
from medaug.evaluation.page import render
from medaug.evaluation.page.overview import overview
from medaug.evaluation.page.training_curves import training_curves
from medaug.evaluation.settings import EvaluateConfig
from medaug.evaluation.slices.evidence import Evidence, real_slices
from medaug.evaluation.subject import Setting, settle
from medaug.evaluation.verdict import Verdict, check_bounds, held_to, of_all, of_family
from medaug.runtime.files import exclusive, parse_json, remove_parts, write_bytes, write_json
from medaug.runtime.progress import progress

SCHEMA = "medaug-report/1"
OURS = {"index.html", "report.json", "run.json", "parts"}
OVERVIEW = "overview"


@dataclass(frozen=True)
class EvaluationPlan:
    """What ``evaluate`` would do; ``there`` names the parts that are measured already."""

    out: Path
    families: list[str]
    there: list[str]
    about: dict[str, Any]

    def __str__(self) -> str:
        kept = f" ({', '.join(self.there)} measured already)" if self.there else ""
        return (
            f"would measure {', '.join(self.families)} of {self.about['judged']['what']} against "
            f"slices of {self.about['against']['source']} and write {self.out / 'index.html'}{kept}"
        )


@dataclass(frozen=True)
class EvaluationReport:
    """What ``evaluate`` found.

    Attributes:
        out: the folder.
        passed: whether all bounds hold; None where no figure has one.
        verdict: the same in one sentence.
        failed: names of the figures whose bound does not hold.
        content: all of ``report.json``.
        seconds: that it took.
    """

    out: Path
    passed: bool | None
    verdict: str
    failed: list[str]
    content: dict[str, Any]
    seconds: float

    def __str__(self) -> str:
        return f"{self.verdict}\nlook at {self.out / 'index.html'}"


def plan(
    out: str | Path,
    *,
    run: str | Path | None = None,
    synthetic: str | Path | None = None,
    against: str | Path | None = None,
    n: int = 1000,
    seed: int = 0,
    uncertainty: int = 8,
    families: Sequence[str] | None = None,
    config: EvaluateConfig | None = None,
    downstream: str | Path | None = None,
    device: str = "auto",
) -> EvaluationPlan:
    """What ``evaluate`` with the same arguments would do; nothing is written.

    Raises:
        MedaugError: as ``evaluate`` would, before it measures.
    """
    out, wanted = Path(out), chosen(families)
    _free(out)
    setting = settle(
        _path(run), _path(synthetic), _path(against), n, seed, uncertainty,
        config or EvaluateConfig(), device,
    )  # fmt: skip
    _downstream(_path(downstream))
    there = [
        name for name in wanted if saved_parts.load(out / "parts", name, setting.key) is not None
    ]
    return EvaluationPlan(out, list(wanted), there, setting.about())


def evaluate(
    out: str | Path,
    *,
    run: str | Path | None = None,
    synthetic: str | Path | None = None,
    against: str | Path | None = None,
    n: int = 1000,
    seed: int = 0,
    uncertainty: int = 8,
    families: Sequence[str] | None = None,
    config: EvaluateConfig | None = None,
    downstream: str | Path | None = None,
    device: str = "auto",
) -> EvaluationReport:
    """Measure synthetic slices against real ones and write one page and one JSON file.

    Killed at any moment and called again, it goes on with the part it was at.  Called for other
    slices, the folder is written anew.

    Args:
        out: the folder for the report: new, empty, or one of an earlier report.
        run: a run, whose draws are judged; beside ``synthetic``, the run that drew the folder.
        synthetic: a folder of synthetic slices: one by ``medaug.synthesize``, or NIfTI images in
            HU, or MR in thousandths of its range, by any tool, with masks or without.
        against: a slice cache with patients for training and held out; that of the run by default.
        n: how many slices are drawn from a run.
        seed: of those, and of every draw in the evaluation.
        uncertainty: alternatives of each slice drawn from a run.
        families: the parts to measure, such as ``["fidelity", "privacy"]``; all by default.
        config: cap, window, labels and bounds.
        downstream: the JSON file of ``medaug downstream``, whose table joins the page.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        MedaugError: anything the user can correct: a folder that holds something else, sides that
            do not fit each other, nobody held out, a bound on a figure that does not exist.
    """
    started = time.monotonic()
    out, wanted = Path(out), chosen(families)
    _free(out)
    asked = _path(run), _path(synthetic), _path(against)
    setting = settle(*asked, n, seed, uncertainty, config or EvaluateConfig(), device)
    table = _downstream(_path(downstream))
    facts = {
        **setting.about(),
        "versions": {"medaug": medaug.__version__, "torch": version("torch")},
        "reproduce": _command(setting, asked, n, uncertainty, families, downstream),
    }
    with exclusive(out):
        remove_parts(out)
        write_json(out / "run.json", saved_parts.as_json({"command": "evaluate", **facts}))
        measured, shown = _measured(setting, wanted, out / "parts")
        bounds = setting.config.bounds
        check_bounds(measured, bounds)
        final = [held_to(family, bounds) for family in measured]
        verdicts: dict[str, Verdict] = {family.name: of_family(family) for family in final}
        whole = of_all(verdicts)
        content = saved_parts.as_json(
            {
                "schema": SCHEMA,
                "passed": whole.passed,
                "verdict": whole.sentence,
                "failed": whole.failed,
                "parts": {
                    family.name: {
                        "passed": verdicts[family.name].passed,
                        "verdict": verdicts[family.name].sentence,
                        "skipped": family.skipped,
                        "details": family.details,
                    }
                    for family in final
                },
                "figures": [
                    {**vars(figure), "ratio": figure.ratio, "passed": figure.passed}
                    for family in final
                    for figure in family.figures
                ],
                "downstream": table,
                **facts,
            }
        )
        training = training_curves(setting.run)
        page = render(content, final, shown.pictures, training)
        write_json(out / "report.json", content)
        write_bytes(out / "index.html", page.encode())
    seconds = time.monotonic() - started
    return EvaluationReport(out, whole.passed, whole.sentence, list(whole.failed), content, seconds)


def _measured(
    setting: Setting, wanted: Mapping[str, Measure], folder: Path
) -> tuple[list[Family], Family]:
    """What each part found, now or earlier, and the pictures of the slices themselves."""
    found = {name: saved_parts.load(folder, name, setting.key) for name in (OVERVIEW, *wanted)}
    missing = [name for name, family in found.items() if family is None]
    if missing:
        subject = Subject(gather(setting, folder), setting, folder / "features")
        with progress("measure", len(found), "parts", done=len(found) - len(missing)) as bar:
            for name in missing:
                if name == OVERVIEW:
                    family = Family(cast(FamilyName, OVERVIEW), [], overview(subject.evidence))
                else:
                    family = wanted[name](subject)
                saved_parts.save(folder, name, setting.key, family)
                found[name] = family
                bar.advance(note=name)
    ready = {name: family for name, family in found.items() if family is not None}
    return [ready[name] for name in wanted], ready[OVERVIEW]


def gather(setting: Setting, scratch: Path) -> Evidence:
    """The slices of both sides in memory, at most ``config.slices`` of each kind.

    Raises:
        DataError, CacheError: slices that do not fit, or none.
    """
    frame, seed, most = setting.frame, setting.seed, setting.config.slices
    scratch.mkdir(parents=True, exist_ok=True)
    synthetic = setting.synthetic.load(frame, scratch)
    real = {
        split: real_slices(setting.cache, split, frame.window_hu, setting.labels, frame.least)
        for split in ("train", "heldout")
    }
    sets = {
        name: slices.some(most, seed) if len(slices) > most else slices
        for name, slices in {"synthetic": synthetic, **real}.items()
    }
    return Evidence(**sets, window_hu=frame.window_hu, seed=seed)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _free(out: Path) -> None:
    """Refuse a folder that holds anything but a report.

    Raises:
        OutputError: naming what is there.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, and a folder is wanted")
    there = {path.name for path in out.iterdir() if path.name[0] != "."} if out.exists() else set()
    if not there:
        return
    try:
        ours = parse_json((out / "run.json").read_text())["command"] == "evaluate"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours or there - OURS:
        first = sorted(there - OURS or there)[0]
        raise OutputError(f"{out}: holds {first}, which is no report; choose a new or empty folder")


def _downstream(path: Path | None) -> Any:
    """The table of a study by ``medaug downstream``, as plain values.

    Raises:
        DataError: no such file, or something else.
    """
    if path is None:
        return None
    from medaug.evaluation.downstream.table import load

    return load(path).plain()


def _command(
    setting: Setting,
    asked: tuple[Path | None, Path | None, Path | None],
    n: int,
    uncertainty: int,
    families: Sequence[str] | None,
    downstream: str | Path | None,
) -> str:
    """The command line that makes this report.

    Folders are words in capitals: they are the user's, and may be named after patients.
    """
    run, synthetic, _ = asked
    words = ["medaug", "evaluate", "--out", "OUT"]
    words += ["--run", "RUN"] if run else []
    words += ["--synthetic", "SYNTHETIC"] if synthetic else []
    words += ["--against", "CACHE"]
    words += [] if synthetic else ["-n", str(n), "--uncertainty", str(uncertainty)]
    words += ["--seed", str(setting.seed)]
    words += ["--families", ",".join(families)] if families is not None else []
    words += ["--downstream", "DOWNSTREAM"] if downstream else []
    for key, value in setting.config.model_dump(exclude_unset=True).items():
        if key == "extractors":
            value = [path.name for path in value]
        if key != "bounds":
            words += ["--set", f"evaluate.{key}={json.dumps(value)}"]
    for name, bound in setting.config.bounds.items():
        told = None if bound is None else bound.model_dump(exclude_unset=True)
        words += ["--set", f"evaluate.bounds.{name}={json.dumps(told)}"]
    return shlex.join(words)
