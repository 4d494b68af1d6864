"""Describe a path, be it source, cache, run, weight file or output, and check it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medaug.core.errors import DataError, MedaugError, reason
from medaug.runtime.files import parse_json, unsealed
from medaug.runtime.progress import progress
from medaug.synthesis import journal
from medaug.synthesis.manifest import Row, differing, found_crc32
from medaug.synthesis.writers import ROLES, inside
from medaug.training.checkpoint import read_header, read_tensors, state_path
from medaug.training.run import weights_path

if TYPE_CHECKING:
    from medaug.data.checks import Verdict
    from medaug.data.quality import Judged


def describe(
    path: Path, page: Path | None = None, against: Sequence[Path] = (), workers: int = 0
) -> dict[str, Any]:
    """Describe ``path``: ``what`` names it, ``problems`` lists what is not sound.

    Args:
        path: a file or folder.
        page: HTML file for the verdicts on a folder of scans; None writes nothing.
        against: caches; a scan of the folder that one of them holds is not sound.
        workers: processes that read scans besides this one.

    Raises:
        DataError: no such path, or nothing that medaug knows.
        CacheError: ``against`` names a folder that is no finished cache.
        OutputError: the page cannot be written.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_file():
        return _file(path)
    if (path / "cache.json").exists():
        return _cache(path)
    if (path / "run.json").exists():
        command = _content(path / "run.json").get("command")
        if command == "evaluate":
            return _report(path)
        return _output(path) if command == "synthesize" else _run(path)
    return _source(path, page, against, workers)


def _file(path: Path) -> dict[str, Any]:
    if path.name.endswith((".nii", ".nii.gz")):
        return _nifti(path)
    if path.suffix == ".dcm":
        return _source(path.parent, None, (), 0)
    if path.suffix.lower() == ".zip":
        return _source(path, None, (), 0)
    return _weights(path)


def _nifti(path: Path) -> dict[str, Any]:
    import nibabel as nib

    from medaug.data.formats.volumes import DAMAGE, open_nifti, voxels

    try:
        image = open_nifti(path)
        values = voxels(image)
    except DAMAGE as error:
        raise DataError(f"{path}: not a NIfTI image ({reason(error)})") from error
    return {
        "what": "NIfTI image",
        "shape": list(image.shape),
        "spacing_mm": [round(float(s), 4) for s in image.header.get_zooms()],
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "dtype": str(image.get_data_dtype()),
        "range": [float(values.min()), float(values.max())],
        "problems": [],
    }


def _weights(path: Path) -> dict[str, Any]:
    tensors, header, checksum = read_tensors(path)
    return {
        "what": "training state" if "config" not in header else "weight file",
        "fingerprint": checksum,
        "weights": sum(t.numel() for t in tensors.values()),
        "bytes": path.stat().st_size,
        **{key: value for key, value in header.items() if key not in ("version", "conditions")},
        "problems": [],
    }


def _cache(path: Path) -> dict[str, Any]:
    from medaug.data.cache.prepare import SliceCache

    cache = SliceCache.open(path)
    index = _content(path / "cache.json")
    return {
        "what": "slice cache",
        "source": cache.source,
        "kind": cache.kind,
        "cases": len(cache.cases),
        "slices": sum(len(case.image) for case in cache.cases.values()),
        "labelled_slices": {
            name: int(sum((c.label_pixels[name] > 0).sum() for c in cache.cases.values()))
            for name in cache.labels
        },
        "settings": index["settings"],
        **({"attributes": list(cache.attributes)} if cache.attributes else {}),
        "split": cache.split,
        "fingerprint": cache.fingerprint,
        "doubtful": [
            f"{case.id}: {check}: {reason}"
            for case in cache.cases.values()
            for check, reason in case.doubts.items()
        ],
        "problems": [f"{case}: {reason}" for case, reason in index["failed"].items()]
        + [
            f"{case.id}, picture {place}: {reason}"
            for case in cache.cases.values()
            for place, reason in case.left_out.items()
        ],
    }


def _run(path: Path) -> dict[str, Any]:
    problems, states = [], []
    for file in sorted(state_path(path, 0).parent.glob("state-*.safetensors")):
        try:
            states.append(int(read_tensors(file)[1]["images"]))
        except MedaugError as error:
            problems.append(str(error))
    content: dict[str, Any] = {"what": "run", "checkpoints": states}
    file = weights_path(path)
    if file.exists():
        try:
            read_tensors(file)
            header = read_header(file)
            content |= {
                key: header[key] for key in ("images", "privacy", "config") if key in header
            }
        except MedaugError as error:
            problems.append(str(error))
    else:
        problems.append(f"{file}: not there yet; it appears at the first snapshot")
    return {**content, "problems": problems}


def _output(path: Path) -> dict[str, Any]:
    manifest = path / "manifest.csv"
    rows = journal.read(path)
    problems = []
    with progress("inspect", len(rows) + len(rows.real), "samples") as bar:
        for row in chain(rows.values(), rows.real.values()):
            problems += _wrong_files(path, row)
            bar.advance()
    if not manifest.exists():
        problems.append(f"{manifest}: not there; run the same synthesize command again")
    settings = _content(path / "run.json")
    n = settings.get("n")
    if isinstance(n, int) and len(rows) < n:
        problems.append(f"{manifest}: lists {len(rows)} of {n} samples; synthesize them again")
    return {"what": "synthesised folder", "samples": len(rows), **settings, "problems": problems}


def _wrong_files(folder: Path, row: Row) -> list[str]:
    """Say what is wrong with the files that a row names."""
    gone = [
        f"{folder / row[role]}: named in the manifest but not there"
        for role in ROLES
        if row[role] and not inside(folder, row[role]).is_file()
    ]
    if gone or found_crc32(folder, row) == row["files_crc32"]:
        return gone
    return [f"{folder}: {differing(row)}"]


def _report(path: Path) -> dict[str, Any]:
    settings = _content(path / "run.json")
    file = path / "report.json"
    if not file.is_file():
        problem = f"{file}: not there; run the same evaluate command again"
        return {"what": "report", "judged": settings.get("judged"), "problems": [problem]}
    content = _content(file)
    shown = {key: content.get(key) for key in ("schema", "passed", "verdict", "failed", "judged")}
    if None in (shown["schema"], shown["verdict"], shown["judged"]):
        raise DataError(f"{file}: damaged, its verdict is not in it; delete it and evaluate again")
    return {"what": "report", **shown, "problems": []}


def _content(file: Path) -> dict[str, Any]:
    """Read the mapping in a JSON file that medaug wrote.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return unsealed(parse_json(file.read_text()))
    except ValueError as error:
        raise DataError(f"{file}: damaged, {reason(error)}") from error


def _source(path: Path, page: Path | None, against: Sequence[Path], workers: int) -> dict[str, Any]:
    from medaug.data import open_source

    source = open_source(str(path))
    if source.kind == "image":
        return {
            "what": "picture source",
            "name": source.name,
            "parts": source.counts(),
            "classes": list(source.classes),
            "attributes": list(source.attributes),
            "excluded": dict(getattr(source, "excluded", {})),
            "problems": [str(problem) for problem in source.problems],
        }
    from medaug.data.quality import render, survey, table
    from medaug.runtime.files import write_bytes

    judged, excluded = survey(source, workers, against)
    if page is not None:
        write_bytes(page, render(source.name, judged, excluded).encode())
    return {
        "what": "scan source",
        "name": source.name,
        "labels": dict(source.labels),
        "cases": [one.case for one in judged if one.verdict != "refused"],
        "excluded": excluded,
        "verdicts": {
            one.case: {finding.check: finding.verdict for finding in one.findings} for one in judged
        },
        "doubtful": _reasons(judged, "doubtful"),
        "problems": _reasons(judged, "refused"),
        "table": table(judged, excluded),
        "page": page,
    }


def _reasons(judged: Sequence["Judged"], verdict: "Verdict") -> list[str]:
    return [
        f"{finding.case}: {finding.reason}"
        for one in judged
        for finding in one.findings
        if finding.verdict == verdict
    ]
