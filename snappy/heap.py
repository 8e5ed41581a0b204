"""Keeps a process small that moves megabytes through many threads, and quick at it.

The C library's allocator learns from the first large blocks that are freed to serve such blocks from its heaps, which
then fragment: a backup of 5 GB was seen to hold 410 MB. With a fixed threshold large blocks go back at once; what is
smaller, the frames of a transfer above all, is kept for the next of its kind, which saves a page fault a page.
"""

from __future__ import annotations

import ctypes
from functools import cache

TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
ARENA_MAX = -8
"""Parameters of glibc's ``mallopt`` (its malloc.h); other C libraries have no such function."""

KEPT = 64 << 20
LARGE = 4 << 20
ARENAS = 2


@cache
def tune() -> bool:
    """Tell the allocator, once in a process. Whether it listened: there is no ``mallopt`` outside glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(MMAP_THRESHOLD, LARGE), mallopt(TRIM_THRESHOLD, KEPT), mallopt(ARENA_MAX, ARENAS)])
