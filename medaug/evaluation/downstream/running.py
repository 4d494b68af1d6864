"""Run a study: every arm for every choice of patients, each kept as soon as it is done.

out/
  study.json               the settings and the cache, so that none are mixed
  caches/ generators/      of the patients of one choice and nobody else
  filters/ samples/        what their generators drew, and which of it is kept
  students/                the network of each arm
  rows/n4-s0-standard.json patients, every case's scores, images; the same bytes each time
  seconds/                 what each piece of work took
  downstream.json .md      all of it, and the table
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medaug.core.errors import DataError, OutputError
from medaug.core.seeds import derive
from medaug.data.cache.store import SliceCache
from medaug.evaluation.downstream import nnunet
from medaug.evaluation.downstream.arms import Arm, chosen
from medaug.evaluation.downstream.lesson import PatientSubset, seconds
from medaug.evaluation.downstream.material import Unseen, choose, labelled, plain_codec, unseen
from medaug.evaluation.downstream.scores import case_scores
from medaug.evaluation.downstream.settings import FREE, StudyConfig
from medaug.evaluation.downstream.table import Table, table
from medaug.runtime.files import exclusive, parse_json, remove_parts, write_bytes, write_json
from medaug.training.run import flatten

VERSION = 1
"""Of ``downstream.json``."""
INDEX = "study.json"
RESULT = "downstream.json"


@dataclass(frozen=True)
class Task:
    """One row to be: an arm for ``n`` patients, None for all of them, in one subset."""

    arm: Arm
    n: int | None
    subset: int

    @property
    def lesson(self) -> str:
        """The choice of patients, by name."""
        return f"{'all' if self.n is None else f'n{self.n}'}-s{self.subset}"

    @property
    def name(self) -> str:
        """What its row is called."""
        return f"{self.lesson}-{self.arm.name}"


@dataclass(frozen=True)
class StudyPlan:
    """What ``run`` would do: the rows asked for, and those that are missing."""

    out: Path
    rows: list[str]
    missing: list[str]


def tasks(config: StudyConfig) -> list[Task]:
    """Every row, subset by subset, so that a study broken off covers each n."""
    study, found = config.study, []
    for subset in range(study.subsets):
        for n in study.n:
            found += [Task(arm, n, subset) for arm in chosen(study.arms) if not arm.whole]
        found += [Task(arm, None, subset) for arm in chosen(study.arms) if arm.whole]
    return found


def check(cache: SliceCache, config: StudyConfig) -> None:
    """Refuse what cannot be run, before anything is written.

    Raises:
        ConfigError: an arm that is not known, more patients than there are, no labels, or nnU-Net
            where it is not installed or not of use.
        CacheError: nobody to test on.
    """
    chosen(config.study.arms)
    data = config.generator.data
    codec = plain_codec(cache, data)
    choose(labelled(cache, data, codec.labels), config.study.n[-1], 0, 0)
    unseen(cache, data, codec.labels, config.study.test_slices)
    if config.study.trainer == "nnunet":
        nnunet.check()


def plan(cache: SliceCache, config: StudyConfig, out: Path) -> StudyPlan:
    """See ``StudyPlan``; nothing is written.

    Raises:
        ConfigError, CacheError: see ``check``.
    """
    check(cache, config)
    names = [task.name for task in tasks(config)]
    return StudyPlan(out, names, [name for name in names if not _row_path(out, name).exists()])


def run(cache: SliceCache, config: StudyConfig, out: str | Path, device: str = "auto") -> Table:
    """Fill the table; called again, it goes on, and rows that are there stay as they are.

    Args:
        cache: CT slices with patients held out, who are tested on.
        config: from ``resolve_study``.
        out: a folder, new or of an earlier call with the same settings.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError, CacheError: see ``check``.
        OutputError: the folder is of another study, or the disk does not take it.
    """
    out = Path(out)
    check(cache, config)
    data = config.generator.data
    codec = plain_codec(cache, data)
    tested = unseen(cache, data, codec.labels, config.study.test_slices)
    with exclusive(out):
        _claim(out, cache, config)
        remove_parts(out)
        for task in tasks(config):
            path = _row_path(out, task.name)
            if not path.exists():
                lesson = _lesson(task, cache, config, out, device)
                write_json(path, _row(task, lesson, tested))
                _publish(out, config)
        return _publish(out, config)


def _lesson(
    task: Task, cache: SliceCache, config: StudyConfig, out: Path, device: str
) -> PatientSubset:
    study, data = config.study, config.generator.data
    codec = plain_codec(cache, data)
    ids = labelled(cache, data, codec.labels)
    patients = ids
    if task.n is not None:
        patients = choose(ids, task.n, study.seed, task.subset)
    others = [name for name in cache.split["train"] if name not in patients]
    if study.unlabeled_patients is not None and others:
        count = min(study.unlabeled_patients, len(others))
        others = choose(others, count, derive(study.seed, "others"), task.subset)
    seed = derive(study.seed, "lesson", task.lesson) % 2**31
    return PatientSubset(
        task.lesson, cache, patients, others, config, codec, out, device, seed
    )  # fmt: skip


def _row(task: Task, lesson: PatientSubset, tested: list[Unseen]) -> dict[str, Any]:
    """Teach an arm and test it; an arm that cannot be had says why."""
    study, codec = lesson.config.study, lesson.codec
    row: dict[str, Any] = {
        "arm": task.arm.name,
        "n": task.n,
        "subset": task.subset,
        "patients": lesson.patients,
        "cases": {},
        "skipped": None,
    }
    tolerance = study.tolerance_mm or lesson.pixel_mm
    try:
        stream = task.arm.stream(lesson)
        if study.trainer == "nnunet":
            found = nnunet.taught(task.name, task.arm, stream, lesson, tested)
        else:
            network = lesson.student(task.arm.name, stream, standard=task.arm.standard)
            found = {case.name: network.predict(case.images, batch=16) for case in tested}
        for case in tested:
            row["cases"][case.name] = case_scores(
                found[case.name], case.labels, codec.labels, case.spacing_mm, tolerance
            )
    except DataError as error:
        row["skipped"] = _nameless(str(error), lesson)
    return row | {"used": lesson.used, "images": lesson.images}


def _nameless(reason: str, lesson: PatientSubset) -> str:
    """``reason`` without the user's folders, which may be named after patients."""
    for place, told in ((lesson.out, "the study"), (lesson.cache.path, "the cache")):
        reason = reason.replace(str(place), told)
    return reason


def _claim(out: Path, cache: SliceCache, config: StudyConfig) -> None:
    """Refuse a folder of another study, or make this one its study."""
    asked = config.dump()
    asked["downstream"] = {k: v for k, v in asked["downstream"].items() if k not in FREE}
    content = {"version": VERSION, "cache": cache.fingerprint, "settings": asked}
    path = out / INDEX
    if not path.exists():
        write_json(path, content)
        return
    try:
        before = flatten(parse_json(path.read_text()))
    except ValueError as error:
        raise OutputError(f"{path}: damaged; choose another folder") from error
    for name, value in flatten(json.loads(json.dumps(content))).items():
        if before.get(name) != value:
            raise OutputError(
                f"{out}: holds a study with {name.removeprefix('settings.')} {before.get(name)}, "
                f"asked for {value}; give the same, or another folder"
            )


def _row_path(out: Path, name: str) -> Path:
    return out / "rows" / f"{name}.json"


def _there(out: Path, config: StudyConfig) -> Iterator[dict[str, Any]]:
    for task in tasks(config):
        path = _row_path(out, task.name)
        if path.exists():
            yield parse_json(path.read_text())


def _publish(out: Path, config: StudyConfig) -> Table:
    """Write ``downstream.json`` and ``downstream.md`` of the rows there are."""
    rows = list(_there(out, config))
    used = sorted({name for row in rows for name in row["used"]})
    took = {name: round(seconds(out / "seconds" / f"{name}.json"), 3) for name in used}
    content = {
        "version": VERSION,
        "settings": config.dump(),
        "rows": rows,
        "seconds": took,
    }
    made = table(content)
    write_json(out / RESULT, content | {"table": made.plain()})
    write_bytes(out / "downstream.md", made.markdown().encode())
    return made
