"""A folder belongs to one family of samples: ``run.json`` says which, and refuses the others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medaug.errors import OutputError
from medaug.files import parse_json, sealed, unsealed, write_json
from medaug.rows import spell


def claimed(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``run.json`` of the folder ``out``, or None where it is free to take.

    Raises:
        OutputError: the folder holds something else, or samples made with other ``settings``.
    """
    path = out / "run.json"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, and a folder is wanted")
    if not path.exists():
        foreign = sorted(p.name for p in out.iterdir() if p.name[0] != ".") if out.exists() else []
        if foreign:
            raise OutputError(
                f"{out}: holds files that medaug did not write, such as {foreign[0]}; "
                "choose a new or empty folder"
            )
        return None
    try:
        run = unsealed(parse_json(path.read_bytes()))
        command, there = run["command"], dict(run["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{out}: its run.json is damaged, or was not written by medaug synthesize; "
            "choose a new or empty folder"
        ) from error
    if command != "synthesize":
        raise OutputError(
            f"{out}: holds the result of medaug {command}; choose a new or empty folder"
        )
    for name, asked in settings.items():
        if there.get(name) != asked:
            seen, wanted = (_spelt(name, value) for value in (there.get(name), asked))
            raise OutputError(
                f"{out}: holds samples made with {name} {seen}, asked for {name} {wanted}; "
                "choose another folder, or the settings it was made with"
            )
    return dict(run)


def claim(out: Path, settings: Mapping[str, Any], n: int, about: Mapping[str, Any]) -> None:
    """Take ``out`` for ``n`` samples made with ``settings``; a larger number there stays.

    Args:
        out: the folder, which exists.
        settings: what the samples depend on.
        n: how many samples the folder is to hold.
        about: what else the first to come says of the folder.

    Raises:
        OutputError: as `claimed`.
    """
    run = claimed(out, settings)
    if run is None:
        run = {**about, "command": "synthesize", "settings": settings, "n": 0}
    if run["n"] < n:
        write_json(out / "run.json", sealed(run | {"n": n}))


def _spelt(name: str, value: Any) -> Any:
    if name == "condition":
        return spell(value or {}) or "none"
    if name in ("weights", "real_slices") and value is not None:
        return str(value)[:12]
    return "none" if value is None else value
