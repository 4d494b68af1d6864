"""Words from elsewhere, made safe to show, to keep in a table and to call files by.

Patients, series, files and labels may be called anything: escape sequences that a terminal obeys,
letters that turn the reading direction, formulas that a spreadsheet computes, bytes that are no
text.  Plain names stay as they are.
"""

import hashlib
import sys
import unicodedata

LONGEST_NAME = 160
"""Bytes of a name for files, to which prefixes and suffixes are added; file systems take 255."""
_FORMULA = ("=", "+", "-", "@", "|", "%")
_CELL_ENDS = ',"\r\n'
_ELSEWHERE = '/\\<>:"|?*'
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789"),
}


def visible(text: str) -> str:
    """``text`` with all that is not printed, but for line ends and tabs, as escapes like ``\\x1b``.

    Control characters, changes of the reading direction, characters without width, and the
    stand-ins for bytes that are no text are not printed.
    """
    if text.isprintable():
        return text
    return "\n".join(map(_visible_line, text.split("\n")))


def _visible_line(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def tell(text: str) -> None:
    """A line for a reader, on standard error."""
    print(visible(text), file=sys.stderr, flush=True)


def cell(text: str) -> str:
    """``text`` as a value of a CSV table: no comma, quote or line end, and never a formula.

    What a spreadsheet would compute (OWASP, CSV injection) gets a leading apostrophe, which marks
    text there; numbers stay numbers.
    """
    plain = "".join("_" if c in _CELL_ENDS or not c.isprintable() else c for c in text)
    first = unicodedata.normalize("NFKC", plain.lstrip()[:1])
    if first in _FORMULA and first and not _is_number(plain):
        return f"'{plain}"
    return plain


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def is_file_name(name: object) -> bool:
    """Whether ``name`` stays in its folder on every system, is visible, and leaves room."""
    return (
        isinstance(name, str)
        and bool(name)
        and name.isprintable()
        and not set(name) & set(_ELSEWHERE)
        and not name.startswith((".", " "))
        and not name.endswith((".", " "))
        and name.partition(".")[0].rstrip().lower() not in _DEVICES
        and len(name.encode()) <= LONGEST_NAME
    )


def file_name(name: str) -> str:
    """``name``, or where it is none for a file (`is_file_name`), one that stands for it alone.

    Names that differ stay different: a substitute ends in a hash of the name.
    """
    if is_file_name(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = "".join(c if c.isprintable() and c not in _ELSEWHERE else "-" for c in name)
    short = plain.encode()[: LONGEST_NAME // 2].decode(errors="ignore").strip(". -")
    stands = f"{short}-{digest}" if short else f"scan-{digest}"
    return stands if is_file_name(stands) else f"scan-{stands}"
