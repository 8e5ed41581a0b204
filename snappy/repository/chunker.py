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


class Readable(Protocol):
    """A file or stream of bytes; ``read`` may return fewer bytes than asked, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


class _Resumed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        part, self._head = self._head[:size], self._head[size:]
        return part


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
    for chunk in cutter.cut_stream(_Resumed(head, file)):
        yield bytes(chunk.data)


def _read_up_to(file: Readable, size: int) -> bytes:
    parts: list[bytes] = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
