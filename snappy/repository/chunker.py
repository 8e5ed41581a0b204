"""Cutting files into chunks where their content says so (FastCDC), so that an insertion moves few of them.

A reader does not care where a file was cut; so this need not be restic's Rabin chunker to be restic's format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pyfastcdc import FastCDC

from snappy.repository.format import MIB

SMALLEST = MIB // 2
AVERAGE = MIB
LARGEST = 8 * MIB
WINDOW = 2 * LARGEST
"""Bytes of a file that are in memory at a time."""


class Readable(Protocol):
    """A file or stream of bytes; ``read`` may return fewer bytes than asked, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


def chunks(file: Readable, seed: int = 0) -> Iterator[bytes]:
    """Cut ``file`` from where it stands; memory stays near two of the largest chunks.

    ``seed`` makes the places of the cuts a secret of the repository (see :attr:`Repository.chunker_seed`), so that
    the sizes of chunks tell an onlooker less about which known file they come from. An empty file has no chunk.
    """
    head = _read_up_to(file, SMALLEST)
    if len(head) < SMALLEST:
        if head:
            yield head
        return
    cutter = FastCDC(AVERAGE, min_size=SMALLEST, max_size=LARGEST, seed=seed)
    window = memoryview(bytearray(WINDOW))
    window[: len(head)] = head
    full, at_end = len(head), False
    while not at_end:
        full += _fill(window[full:], file)
        at_end, done = full < WINDOW, 0
        # Where a chunk ends depends on no more than the largest chunk from its start on.
        for chunk in cutter.cut_buf(window[:full]):
            if not at_end and full - done < LARGEST:
                break
            yield bytes(chunk.data)
            done += chunk.length
        window[: full - done] = window[done:full]
        full -= done


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
