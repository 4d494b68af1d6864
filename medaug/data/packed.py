"""Archives that are not read in place: how to unpack each, in one sentence.

Zip archives of Pancreas-CT are (see `medaug.data.archives`).  A tar has no table of contents, and a
compressed one cannot be read from the middle; 7z and rar need programs of their own.
"""

import lzma
import shlex
import tarfile
import zlib
from pathlib import Path, PurePosixPath

TOOLS = {
    **dict.fromkeys((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"), "tar -xf {file} -C {to}"),
    ".7z": "7z x {file} -o{to}",
    ".rar": "unrar x {file} {to}",
    ".zip": "unzip {file} -d {to}",
}
_TARS = tuple(ending for ending, tool in TOOLS.items() if tool.startswith("tar"))
_LOOKED_AT = 50
"""Entries of a tar until one tells its folder: macOS puts hidden files first."""


def is_packed(path: Path) -> bool:
    """Whether ``path`` is called an archive and is a file."""
    return path.name.lower().endswith(tuple(TOOLS)) and path.is_file()


def how_to_unpack(path: Path) -> str:
    """What to do with the archive ``path``, with the command and the path to name afterwards."""
    ending = next(e for e in TOOLS if path.name.lower().endswith(e))
    folder = path.with_name(path.name[: -len(ending)])
    inside = None
    if ending in _TARS:
        try:
            inside = _top(path)
        except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
            return f"{path}: not a whole tar archive; download it again"
    to, then = (folder, folder) if inside is None else (path.parent, path.parent / inside)
    command = TOOLS[ending].format(file=shlex.quote(str(path)), to=shlex.quote(str(to)))
    made = f"mkdir -p {shlex.quote(str(to))} && " if inside is None and ending in _TARS else ""
    return f"{path}: an archive, and folders are opened; run {made}{command}, then name {then}"


def _top(path: Path) -> str | None:
    """The one folder that all of a tar seems to be in, or None."""
    with tarfile.open(path) as packed:
        for _, entry in zip(range(_LOOKED_AT), packed, strict=False):
            parts = PurePosixPath(entry.name).parts
            if not parts or any(part.startswith(".") for part in parts):
                continue
            return parts[0] if len(parts) > 1 or entry.isdir() else None
    return None
