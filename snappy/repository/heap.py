"""Keeps a process small that moves megabytes through many threads.

The C library's allocator learns from the first large blocks that are freed to serve such blocks from its heaps, which
then fragment: a backup of 5 GB was seen to hold 410 MB. With a fixed threshold large blocks go back at once.
"""

from __future__ import annotations

import ctypes
from functools import cache

MMAP_THRESHOLD = -3
ARENA_MAX = -8
"""Parameters of glibc's ``mallopt`` (its malloc.h); other C libraries have no such function."""

LARGE = 4 << 20
ARENAS = 2


@cache
def keep_small() -> None:
    """Tell the allocator, once in a process; does nothing where there is no ``mallopt``."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE)
        mallopt(ARENA_MAX, ARENAS)
