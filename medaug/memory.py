"""Memory that stays with the process: training asks for the same large pieces again at every step.

The C library gives a freed piece of some megabytes back to the system, which hands it out again
page by page, zeroed; on the CPU a third of a step may go there.

All threads then share one heap.  A thread that found no address space for a heap of its own would
have no memory at all, however much lay free in the first one.
"""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
"""Parameters of glibc's ``mallopt``, as malloc.h numbers them."""
PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """From now on freed memory is used again, not given back; whether that could be arranged.

    It cannot where the C library is not glibc.  What the process holds at most stays the same.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1), (TOP_PAD, PAD), (ARENA_MAX, 1))
    return all(library.mallopt(name, value) == 1 for name, value in settings)
