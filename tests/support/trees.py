"""What lies below a folder, to compare one with another."""

import hashlib
from pathlib import Path


def tree(folder: Path, but: str = "") -> dict[str, str]:
    """Every file below ``folder``, hidden ones too, with a digest of its content.

    Args:
        but: a file name that is left out wherever it stands.
    """
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != but
    }
