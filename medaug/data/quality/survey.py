"""Every scan of a source judged: its verdict, the reasons, and pictures of it."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset

from medaug.core import geometry
from medaug.core.errors import DataError
from medaug.core.modality import modality_of
from medaug.core.types import Case, Problem
from medaug.data.cache.duplicates import Known, others, same_as, twins
from medaug.data.cache.fill import nameless
from medaug.data.cache.slicing import load
from medaug.data.checks import Finding, Verdict, battery, reduce, worst
from medaug.data.checks.likeness import likeness
from medaug.data.quality.montage import Picture, montage
from medaug.data.source import Scans
from medaug.data.sources.unlabeled import digest
from medaug.runtime.progress import progress

_SCREEN_ONLY = "its files cannot be read as a scan; the command line says which and why"


@dataclass(frozen=True)
class Judged:
    """One scan and what the checks say of it.

    Attributes:
        case: its id.
        findings: of every check that was made.
        size: its voxels and their mm, in words; empty where it cannot be read.
        pictures: named pictures of it.
        kept: its reasons without the names of the user's files, by check.
        place: its folder, where the id does not say; for the user's screen alone.
    """

    case: str
    findings: tuple[Finding, ...]
    size: str = ""
    pictures: tuple[tuple[str, Picture], ...] = ()
    kept: Mapping[str, str] | None = None
    place: str = ""

    @property
    def handed_on(self) -> str:
        """What it is called on a page: one that was not read may be called like a user's file."""
        unread = (self.kept or {}).get("files") == _SCREEN_ONLY
        return f"unread-{digest(self.case)}" if unread else self.case

    @property
    def verdict(self) -> Verdict:
        """The worst of its findings."""
        return worst(self.findings)

    @property
    def reasons(self) -> list[str]:
        """What is not in order, in sentences."""
        return [str(finding) for finding in self.findings if finding.verdict != "ok"]

    @property
    def nameless(self) -> list[str]:
        """The reasons without the names of files, for a page that may be handed on."""
        kept = self.kept or {}
        return [
            str(replace(finding, reason=kept.get(finding.check, finding.reason)))
            for finding in self.findings
            if finding.verdict != "ok"
        ]


class _Look:
    """Loads and judges one case."""

    def __init__(self, labels: Mapping[str, int], modality: str) -> None:
        self.labels, self.modality = dict(labels), modality_of(modality)

    def __call__(self, case: Case) -> tuple[Judged, Known | None]:
        try:
            loaded = load(case, self.labels, self.modality)
        except DataError as error:
            files = Finding(case.id, "files", "refused", str(error))
            return Judged(case.id, (files,), kept={"files": nameless(case, str(error))}), None
        image, labels, affine = loaded.image, loaded.labels, loaded.affine
        reduced = reduce(image, affine, self.modality)
        found = [Finding(case.id, "files", "ok")]
        told = loaded.lossy, loaded.unknown
        found += battery(case.id, image, labels, affine, reduced, self.modality, *told)
        digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
        shape = " x ".join(str(n) for n in image.shape)
        pitch = " x ".join(f"{p:.3g}" for p in geometry.spacing(affine))
        pictures = tuple(montage(image, labels, affine, reduced, self.modality.window))
        judged = Judged(case.id, tuple(found), f"{shape}, {pitch} mm", pictures)
        return judged, Known(digest, likeness(reduced))


def survey(
    source: Scans, workers: int = 0, against: Iterable[Path] = ()
) -> tuple[list[Judged], dict[str, str]]:
    """Every scan of ``source`` judged, in name order, and those left out by name, with the reason.

    Args:
        source: from `medaug.data.open_source`.
        workers: processes besides this one.
        against: caches; a scan that is in one of them is refused.

    Raises:
        DataError: nothing in the source is a scan.
        CacheError: ``against`` names a folder that is no finished cache.
    """
    apart = others(against)
    cases, problems = source.cases()
    judged = [_unread(problem) for problem in problems]
    scans: dict[str, Known] = {}
    loader = DataLoader(
        Dataset(cases, _Look(source.labels, source.modality)),
        num_workers=workers,
        batch_size=None,
        collate_fn=_only,
        generator=torch.Generator(),
    )
    with progress("inspect", len(cases), "scans") as bar:
        for seen, known in loader:
            judged.append(seen)
            if known is not None and seen.verdict != "refused":
                scans[seen.case] = known
            bar.advance(note=seen.case)
    doubles = twins(scans, (), apart)
    places: Mapping[str, str] = getattr(source, "places", {})
    judged = [replace(one, place=places.get(one.case, "")) for one in judged]
    return (
        sorted((_compared(one, scans, doubles) for one in judged), key=lambda one: one.case),
        dict(getattr(source, "excluded", {})),
    )


def _only(seen: tuple[Judged, Known | None]) -> tuple[Judged, Known | None]:
    return seen


def _unread(problem: Problem) -> Judged:
    files = Finding(problem.case, "files", "refused", problem.reason)
    return Judged(problem.case, (files,), kept={"files": _SCREEN_ONLY})


def _compared(one: Judged, scans: Mapping[str, Known], doubles: Mapping[str, str]) -> Judged:
    if one.case not in scans:
        return one
    verdict: Verdict = "refused" if one.case in doubles else "ok"
    reason = same_as(doubles[one.case]) if one.case in doubles else ""
    return replace(one, findings=(*one.findings, Finding(one.case, "likeness", verdict, reason)))


def table(judged: Sequence[Judged], excluded: Mapping[str, str]) -> str:
    """The verdicts as text, a scan in each row."""
    rows = [("scan", "verdict", "size", "why")]
    for one in judged:
        where = [f"({one.place})"] if one.place else []
        rows.append((one.case, one.verdict, one.size, "; ".join(one.reasons + where)))
    rows += [(case, "left out", "", why) for case, why in excluded.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
