"""Compressed pixels before they are decoded: what a decoder would fill in without a word.

JPEG: ITU-T T.81, annex B; JPEG-LS: T.87, annex C; JPEG 2000: T.800, annex A.
"""

from medaug.data.syntaxes import is_jpeg, is_jpeg_2000, is_jpeg_ls

_LOST_BYTES = 512
_NO_FRAME = {0xC4, 0xC8, 0xCC}  # tables between the start-of-frame markers C0 to CF


def is_sound(stream: bytes, uid: str, rows: int, columns: int) -> bool:
    """Whether the pixels of one slice, packed as ``uid``, can be what their header says.

    A JPEG ends with its end marker, but for padding.  The coded bits of JPEG 2000 hold no long run
    of zeros, which is what a lost piece of a file reads as.  All of them give their size, which a
    decoder reserves memory for.
    """
    written = stream.rstrip(b"\0")
    if is_jpeg(uid) and not written.endswith(b"\xff\xd9"):
        return False
    if is_jpeg(uid) or is_jpeg_ls(uid):
        return _jpeg_size(stream) == (rows, columns)
    if is_jpeg_2000(uid):
        return bytes(_LOST_BYTES) not in written and _jpeg_2000_size(stream) == (rows, columns)
    return True


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns by the start of the frame, or None without one of a single component."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            size = _number(stream, at + 5, 2), _number(stream, at + 7, 2)
            return size if _number(stream, at + 9, 1) == 1 else None
        at += 2 + _number(stream, at + 2, 2)
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    """Rows and columns by the first marker segment, or None without one of a single component."""
    if stream[:4] != b"\xff\x4f\xff\x51" or len(stream) < 42:
        return None
    if _number(stream, 40, 2) != 1:
        return None
    right, bottom, left, top = (_number(stream, at, 4) for at in (8, 12, 16, 20))
    return bottom - top, right - left


def _number(stream: bytes, at: int, length: int) -> int:
    return int.from_bytes(stream[at : at + length], "big")
