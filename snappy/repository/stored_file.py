"""A file of a snapshot, to be read at any offset: only the blobs that hold what is asked for are fetched."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

from snappy.repository.blob_shelf import BlobShelf
from snappy.repository.format import MIB, BlobLocation
from snappy.repository.restored_file import plain_length

WINDOW = 8 * MIB
"""So many bytes are fetched at a time where much is asked for."""


class StoredFile:
    """Any thread may call any method. ``places``: where its blobs lie, in order."""

    def __init__(self, shelf: BlobShelf, places: list[BlobLocation]) -> None:
        self._shelf, self._places = shelf, places
        self._ends = list(accumulate(map(plain_length, places)))
        self.size = self._ends[-1] if self._ends else 0
        """Bytes that there are, whatever the snapshot says."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, or as many as there are. Raises Damaged and StorageError."""
        end = min(offset + length, self.size)
        return b"".join(self._window(start, min(start + WINDOW, end)) for start in range(offset, end, WINDOW))

    def stream(self, offset: int = 0, end: int | None = None) -> Generator[bytes, None, None]:
        """The bytes from ``offset`` to ``end`` in pieces; the next is fetched while one is used."""
        last = self.size if end is None else min(end, self.size)
        if last - offset <= WINDOW:
            yield self.read(offset, last - offset)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as ahead:
            coming = None
            for start in range(offset, last, WINDOW):
                following = ahead.submit(self._window, start, min(start + WINDOW, last))
                if coming:
                    yield coming.result()
                coming = following
            if coming:
                yield coming.result()

    def _window(self, start: int, end: int) -> bytes:
        first, last = bisect_right(self._ends, start), bisect_right(self._ends, end - 1)
        places = self._places[first : last + 1]
        found = self._shelf.take(places)
        before = self._ends[first - 1] if first else 0
        return b"".join([found[place.id] for place in places])[start - before : end - before]
