"""Folds for nnU-Net in which synthetic cases help training and judge nothing."""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from medaug.core import seeds
from medaug.core.errors import ConfigError, DataError
from medaug.runtime.files import parse_json, write_bytes

SPLITS = "splits_final.json"

_SYNTHETIC = re.compile(r"syn_\d{6,}")
_REAL_SLICE = re.compile(r"real_(.+)_z\d{3,}")


@dataclass(frozen=True)
class SplitsReport:
    """What `nnunet_splits` wrote, or would write, and how many patients and cases it dealt."""

    path: Path
    folds: int
    patients: int
    real: int
    synthetic: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.folds} folds over {self.patients} patients ({self.real} real "
            f"cases); {self.synthetic} synthetic cases in every training part and no validation "
            "part; copy it into nnU-Net's preprocessed folder of this data set"
        )


def nnunet_splits(
    folder: Path, folds: int = 5, seed: int = 0, *, dry_run: bool = False
) -> SplitsReport:
    """Write ``splits_final.json`` into a folder of nnU-Net v2's raw layout.

    A case called ``syn_NNNNNN`` is synthetic: it is in the training part of every fold and in no
    validation part.  Real slices called ``real_PATIENT_zNNN`` go with their patient; any other case
    is a patient of its own.  Patients are dealt out in an order that depends on ``seed`` and their
    names alone, so that folds differ by at most one patient.

    Args:
        folder: holds ``dataset.json``, ``imagesTr`` and ``labelsTr``; written by
            ``medaug synthesize``, by others, or mixed.
        folds: how many.
        seed: of the deal.
        dry_run: count and check, and write nothing.

    Raises:
        ConfigError: fewer than 2 folds, or fewer patients than folds.
        DataError: not such a folder, a case without label, an unfinished folder, or no real case.
        OutputError: the file cannot be written.
    """
    folder = Path(folder)
    if folds < 2:
        raise ConfigError(f"folds must be at least 2, got {folds}")
    cases = _cases(folder)
    synthetic = [case for case in cases if _SYNTHETIC.fullmatch(case)]
    _check_finished(folder, len(synthetic), len(cases) - len(synthetic))
    of_patient: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if not _SYNTHETIC.fullmatch(case):
            match = _REAL_SLICE.fullmatch(case)
            of_patient[match[1] if match else case].append(case)
    if not of_patient:
        raise DataError(
            f"{folder}: holds no real case to validate on; write some beside the synthetic ones "
            "with medaug synthesize --with-real CACHE, or copy yours there"
        )
    if len(of_patient) < folds:
        raise ConfigError(
            f"folds: {folds} asked, and {folder} holds real cases of {len(of_patient)} patients"
        )
    ranked = sorted(of_patient, key=lambda patient: seeds.derive(seed, "fold", patient))
    real = sorted(case for part in of_patient.values() for case in part)
    splits = []
    for number in range(folds):
        val = {case for patient in ranked[number::folds] for case in of_patient[patient]}
        train = [case for case in real if case not in val] + synthetic
        splits.append({"train": train, "val": sorted(val)})
    path = folder / SPLITS
    if not dry_run:
        write_bytes(path, (json.dumps(splits, indent=1) + "\n").encode())
    return SplitsReport(path, folds, len(of_patient), len(real), len(synthetic))


def _cases(folder: Path) -> list[str]:
    """The case names in ``imagesTr``, sorted; each has its label."""
    try:
        ending = str(parse_json((folder / "dataset.json").read_bytes())["file_ending"])
        images = [path.name for path in (folder / "imagesTr").iterdir()]
        labels = {path.name for path in (folder / "labelsTr").iterdir()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: not in nnU-Net's raw layout, which has dataset.json with its file_ending, "
            "imagesTr and labelsTr"
        ) from error
    channel = re.compile(rf"([^.].*)_\d{{4}}{re.escape(ending)}")
    cases = sorted({match[1] for name in images if (match := channel.fullmatch(name))})
    for case in cases:
        if case + ending not in labels:
            raise DataError(f"{folder}: the case {case} has an image and no label in labelsTr")
    return cases


def _check_finished(folder: Path, synthetic: int, real: int) -> None:
    """Refuse a folder that ``medaug synthesize`` has not finished: its folds would miss cases."""
    try:
        run = parse_json((folder / "run.json").read_bytes())
        wanted = int(run["n"]), int(run.get("real", 0))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return
    for what, there, asked in (
        ("samples", synthetic, wanted[0]),
        ("real slices", real, wanted[1]),
    ):
        if there < asked:
            raise DataError(
                f"{folder}: holds {there} of {asked} {what}; run its medaug synthesize command "
                "again to finish it"
            )
