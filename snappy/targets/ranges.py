"""A range of an object in an object store, as it is sent on: no byte is fetched that is not asked for.

fsspec's own files read ahead, as they do not know where their reader will stop: of an S3 object up to 50 MiB, which for
a part of a pack is all the rest of it, each time.
"""

from __future__ import annotations

from collections.abc import Callable

from fsspec import AbstractFileSystem
from fsspec.spec import AbstractBufferedFile

BLOCK = 16 << 20
"""Bytes of one request, which are kept until the next."""


def bounds(start: int | None, end: int | None, size: Callable[[], int]) -> tuple[int, int | None]:
    """Both ends from the start of an object of ``size`` bytes; those of fsspec's ``cat_file`` may be from its end."""
    first = max(0, size() + start) if start is not None and start < 0 else start or 0
    return first, max(0, size() + end) if end is not None and end < 0 else end


class RemoteRange:
    """The bytes of the object at ``path`` from ``start`` to ``end``, for who reads them in order, or some again.
    For one thread at a time."""

    def __init__(self, fs: AbstractFileSystem, path: str, start: int, end: int) -> None:
        self._fs, self._path, self._place, self._end = fs, path, start, end
        self._begin, self._block = start, memoryview(b"")

    def seek(self, place: int) -> None:
        self._place = place

    def read(self, size: int) -> bytes:
        """``size`` bytes; fewer only where the object ends."""
        found = self._next(size)
        while found and len(found) < size and (more := self._next(size - len(found))):
            found += more
        return found

    def close(self) -> None:
        self._block = memoryview(b"")

    def _next(self, size: int) -> bytes:
        """Some of them, out of one block."""
        if not self._begin <= self._place < self._begin + len(self._block):
            self._begin = self._place
            end = min(self._end, self._place + BLOCK)
            self._block = memoryview(self._fetch(end) if end > self._place else b"")
        at = self._place - self._begin
        found = bytes(self._block[at : at + size])
        self._place += len(found)
        return found

    def _fetch(self, end: int) -> bytes:
        found: bytes = self._fs.cat_file(self._path, start=self._place, end=end)
        return found


class RangedFile(AbstractBufferedFile):
    """An object that is read in order, by ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start, end)
        return found
