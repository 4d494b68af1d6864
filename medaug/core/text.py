"""Make foreign text safe to print, to put in a table, and to use in names of files.

Patients, series, files and labels may have any name: with escape sequences that a terminal obeys,
letters that change the reading direction, formulas that a spreadsheet computes, bytes that are not
text.  Plain names stay as they are.
"""

import hashlib
import sys
import unicodedata

LONGEST_NAME = 160
"""Most bytes of a name, to which files add prefixes and suffixes; file systems take 255."""
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
    """Replace all that is not printable, except line ends and tabs, by escapes like ``\\x1b``.

    Not printable are control characters, changes of the reading direction, characters without
    width, and what stands for bytes that are not text.
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
    """Print a line for the user on standard error."""
    print(visible(text), file=sys.stderr, flush=True)


def cell(text: str) -> str:
    """Return ``text`` as a value of a CSV table: no comma, quote or line end, never a formula.

    What a spreadsheet would compute (OWASP, CSV injection) gets a leading apostrophe, which marks
    it as text; numbers stay numbers.
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
    """Return ``name`` if `is_file_name`, else a substitute for it.

    A substitute ends in a hash of the name, so that different names stay different.
    """
    if is_file_name(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    plain = "".join(c if c.isprintable() and c not in _ELSEWHERE else "-" for c in name)
    short = plain.encode()[: LONGEST_NAME // 2].decode(errors="ignore").strip(". -")
    substitute = f"{short}-{digest}" if short else f"scan-{digest}"
    return substitute if is_file_name(substitute) else f"scan-{substitute}"
