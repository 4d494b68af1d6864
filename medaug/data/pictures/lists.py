"""The text files beside pictures, which list them."""

from pathlib import Path

from medaug.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The lines of ``path``, in UTF-8, without their ends.

    Raises:
        DataError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text; get it again") from error
