"""Cutting files into chunks where their content says so (FastCDC), so that an insertion moves few of them.

A reader does not care where a file was cut; so this need not be restic's Rabin chunker to be restic's format.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from pyfastcdc import FastCDC

from snappy.repository.format import MIB, BlobId, blob_id

SMALLEST = MIB // 2
AVERAGE = MIB
LARGEST = 8 * MIB
KEPT = 2 * MIB
"""Of a window, after a file that was cut by itself: most that follow are smaller."""
ZEROS = bytes(LARGEST)
"""The chunk that long stretches of zeros are cut into. Nobody writes to it: the kernel has one page for all of it."""


class Readable(Protocol):
    """A file or stream of bytes; ``read`` may return fewer bytes than asked, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


class Chunker:
    """Cuts files. Any thread may call any method.

    ``seed`` makes the places of the cuts a secret of the repository (see :attr:`Repository.chunker_seed`), so that
    the sizes of chunks tell an onlooker less about which known file they come from.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._windows: list[mmap.mmap] = []  # to be used again: a new one costs a page fault a page

    def spare(self) -> None:
        """Give back the memory that no thread is using."""
        self._windows.clear()

    def chunks(self, file: Readable) -> Iterator[bytes]:
        """Cut ``file`` from where it stands; memory stays near two of the largest chunks. An empty file has none."""
        head = _read_up_to(file, SMALLEST)
        if len(head) < SMALLEST:
            return iter((head,) if head else ())
        return self._cut(head, file)

    def part(self, file: Readable) -> tuple[list[bytes], bool]:
        """The first of those chunks, some megabytes, and whether they are all. Whoever goes on where they end gets the
        others."""
        with self._window() as window:
            full = _fill(window, file)
            is_all = full < len(window)
            return list(_settled(self._cutter(), window[:full], is_all)), is_all

    def _cut(self, head: bytes, file: Readable) -> Iterator[bytes]:
        with self._window(keeps=KEPT) as window:
            window[: len(head)] = head
            yield from _cut(self._cutter(), window, len(head), file)

    def _cutter(self) -> FastCDC:
        return FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, seed=self._seed)

    @contextmanager
    def _window(self, keeps: int = LARGEST) -> Iterator[memoryview]:
        memory = self._windows.pop() if self._windows else mmap.mmap(-1, LARGEST, flags=mmap.MAP_PRIVATE)
        try:
            yield memoryview(memory)
        finally:
            if keeps < LARGEST:
                memory.madvise(mmap.MADV_DONTNEED, keeps)
            self._windows.append(memory)


def _cut(cutter: FastCDC, window: memoryview, full: int, file: Readable) -> Iterator[bytes]:
    """The chunks of the ``full`` bytes in ``window`` and what ``file`` still gives; a window holds the largest."""
    at_end = False
    while not at_end:
        full += _fill(window[full:], file)
        at_end, done = full < len(window), 0
        for chunk in _settled(cutter, window[:full], at_end):
            yield chunk
            done += len(chunk)
        window[: full - done] = window[done:full]
        full -= done


def _settled(cutter: FastCDC, window: memoryview, at_end: bool) -> Iterator[bytes]:
    """The chunks that end where they would in the whole file, of which ``window`` is a part, maybe its last."""
    done = 0
    for chunk in cutter.cut_buf(window):
        done += chunk.length
        if done == len(window) and not at_end and chunk.length < LARGEST:
            return  # cut by the window's end alone
        yield ZEROS if chunk.length == LARGEST and ZEROS.startswith(chunk.data) else bytes(chunk.data)


def name_of(chunk: bytes) -> BlobId:
    """The blob's id. That of the zeros in a disk image's holes is computed once."""
    return _zeros_id() if chunk is ZEROS else blob_id(chunk)


@cache
def _zeros_id() -> BlobId:
    return blob_id(ZEROS)


def _fill(window: memoryview, file: Readable) -> int:
    """How many bytes were read into ``window``: fewer than it holds only at the end."""
    into = getattr(file, "readinto", None)
    full = 0
    while full < len(window):
        if into:
            size = into(window[full:]) or 0
        else:
            part = file.read(len(window) - full)
            size = len(part)
            window[full : full + size] = part
        if not size:
            break
        full += size
    return full


def _read_up_to(file: Readable, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
