"""Keeps a process small that moves megabytes through many threads, and quick at it.

The C library's allocator learns from the first large blocks that are freed to serve such blocks from its heaps. Where
few threads pass whole objects on, that is right: a block that comes from the kernel each time costs a page fault a
page, half a CPU second per GiB. Where many threads fill packs of all sizes the heaps fragment: a backup of 5 GB was
seen to hold 410 MB. So each says from which size on blocks are large, and the smallest word holds.
"""

from __future__ import annotations

import ctypes
import gc

TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
ARENA_MAX = -8
"""Parameters of glibc's ``mallopt`` (its malloc.h); other C libraries have no such function."""

KEPT = 64 << 20
ARENAS = 1
FOR_PACKS = 4 << 20
FOR_FRAMES = 32 << 20
"""The most that glibc takes."""

COLLECT_EVERY = 50_000
"""Objects after which Python looks for cycles; its own choice is 700. A walk makes millions, and hardly a cycle."""

_said: list[int] = []


def tune(large: int) -> bool:
    """Have blocks of ``large`` bytes and more go back to the system at once, unless less was said before. Whether the
    allocator listened: there is no ``mallopt`` outside glibc."""
    if _said and large >= min(_said):
        return True
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    _said.append(large)
    return all([mallopt(MMAP_THRESHOLD, large), mallopt(TRIM_THRESHOLD, KEPT), mallopt(ARENA_MAX, ARENAS)])


def give_back() -> None:
    """Have the allocator return what is free to the system, where it can: much was in use, and will not be soon."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def let_go() -> None:
    """Much that was in use is not referred to any more, but by itself: have it freed, and given back to the system."""
    gc.collect()
    give_back()


def collect_seldom() -> None:
    """For a process whose many objects go as soon as nobody refers to them: look for cycles seldom."""
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
