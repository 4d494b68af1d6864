"""Is a file what was published?"""

import hashlib
from pathlib import Path

from medaug.downloads.http import SpoiledError


def digest_of(path: Path, kind: str) -> str:
    """The digest of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def agrees(path: Path, wanted: str) -> bool:
    """Whether ``path`` has the digest ``wanted``: MD5 or SHA-256, by its length."""
    return digest_of(path, _kind(wanted)) == wanted


def check(path: Path, wanted: str | None) -> None:
    """Compare ``path`` with its digest, if there is one.

    Raises:
        SpoiledError: they differ.
    """
    if wanted is not None and (found := digest_of(path, _kind(wanted))) != wanted:
        name = "MD5" if len(wanted) == 32 else "SHA-256"
        raise SpoiledError(
            f"what arrived has the {name} {found}, published is {wanted}; if the address is one "
            "you trust, set download.checksums"
        )


def _kind(wanted: str) -> str:
    return "md5" if len(wanted) == 32 else "sha256"
