"""Damage to bytes, as disks, networks and hands do it; each a function of a random generator."""

import gzip
import struct
from collections.abc import Callable
from random import Random

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
_FLOATS = (0.0, -1.0, 1e-38, 1e38, float("inf"), float("-inf"), float("nan"))
_PAGE = b"<!DOCTYPE html><html><body>503 Service Unavailable</body></html>\n"
_HEADER = 512


def flip(raw: bytearray, rng: Random) -> str:
    """Turn some bits."""
    count = rng.choice((1, 1, 1, 2, 8, 64))
    for _ in range(count):
        raw[_place(raw, rng)] ^= 1 << rng.randrange(8)
    return f"{count} bits flipped"


def overwrite(raw: bytearray, rng: Random) -> str:
    """Put random bytes over some."""
    start, count = _span(raw, rng)
    raw[start : start + count] = rng.randbytes(count)
    return f"{count} bytes overwritten at {start}"


def zero(raw: bytearray, rng: Random) -> str:
    """Put zeros over a block, as a disk that lost it."""
    start, count = _span(raw, rng)
    raw[start : start + count] = bytes(count)
    return f"{count} bytes zeroed at {start}"


def truncate(raw: bytearray, rng: Random) -> str:
    """Cut the end off."""
    kept = rng.choice((0, 1, rng.randrange(len(raw)), len(raw) - 1, len(raw) - 1 - len(raw) // 50))
    del raw[max(kept, 0) :]
    return f"cut to {len(raw)} bytes"


def insert(raw: bytearray, rng: Random) -> str:
    """Put random bytes between others."""
    start, count = _span(raw, rng)
    raw[start:start] = rng.randbytes(count)
    return f"{count} bytes inserted at {start}"


def delete(raw: bytearray, rng: Random) -> str:
    """Take bytes out."""
    start, count = _span(raw, rng)
    del raw[start : start + count]
    return f"{count} bytes gone at {start}"


def duplicate(raw: bytearray, rng: Random) -> str:
    """Have a block twice, as a download that was resumed wrongly."""
    start, count = _span(raw, rng)
    raw[start:start] = raw[start : start + count]
    return f"{count} bytes twice at {start}"


def exchange(raw: bytearray, rng: Random) -> str:
    """Have two blocks in each other's place."""
    start, count = _span(raw, rng)
    other = rng.randrange(max(1, len(raw) - count))
    count = min(count, abs(other - start), len(raw) - start)
    block = raw[start : start + count]
    raw[start : start + count] = raw[other : other + count]
    raw[other : other + count] = block
    return f"{count} bytes exchanged between {start} and {other}"


def number(raw: bytearray, rng: Random) -> str:
    """Put an extreme number where one may be."""
    if rng.random() < 0.3:
        packed = struct.pack(rng.choice(("<f", ">f", "<d")), rng.choice(_FLOATS))
    else:
        width = rng.choice((1, 2, 4, 8))
        value = rng.choice(_EDGES) % 2 ** (8 * width)
        packed = value.to_bytes(width, rng.choice(("little", "big")))
    start = _place(raw, rng)
    raw[start : start + len(packed)] = packed
    return f"{packed.hex()} at {start}"


def append(raw: bytearray, rng: Random) -> str:
    """Put more behind the end."""
    count = rng.choice((1, 16, 4096))
    raw += rng.choice((bytes(count), rng.randbytes(count), bytes(raw)))
    return f"grown to {len(raw)} bytes"


def replace(raw: bytearray, rng: Random) -> str:
    """Have something else altogether, such as a server's page."""
    raw[:] = rng.choice((_PAGE, bytes(len(raw)), rng.randbytes(len(raw)), b"PK\x03\x04", b"\n"))
    return "replaced"


BYTES: tuple[Callable[[bytearray, Random], str], ...] = (
    *(flip, flip, overwrite, zero, truncate, insert, delete),
    *(duplicate, exchange, number, number, append, replace),
)  # fmt: skip


def damage(raw: bytes, rng: Random) -> tuple[bytes, str]:
    """``raw`` after one kind of damage, and what was done; what is packed may be damaged inside."""
    if raw[:2] == b"\x1f\x8b" and rng.random() < 0.4:
        inside, what = damage(gzip.decompress(raw), rng)
        return gzip.compress(inside, mtime=0), f"inside: {what}"
    changed = bytearray(raw or b"\n")
    return (bytes(changed), what) if (what := rng.choice(BYTES)(changed, rng)) else (raw, what)


def _place(raw: bytearray, rng: Random) -> int:
    """Any place, every second time near the start, where headers are."""
    return rng.randrange(min(len(raw), _HEADER) if rng.random() < 0.5 else len(raw))


def _span(raw: bytearray, rng: Random) -> tuple[int, int]:
    start = _place(raw, rng)
    count = rng.choice((1, 4, 64, 512, 4096, len(raw) // 3))
    return start, max(1, min(count, len(raw) - start))
