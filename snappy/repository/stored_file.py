"""A file of a snapshot, to be read at any offset: only the blobs that hold what is asked for are fetched."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

from snappy.errors import Damaged
from snappy.repository.blob_shelf import BlobShelf
from snappy.repository.browsable import Browsable
from snappy.repository.entries import Node
from snappy.repository.format import MIB, BlobLocation, BlobType
from snappy.repository.restored_file import plain_length

WINDOW = 8 * MIB
"""So many bytes are fetched at a time where much is asked for."""


class StoredFile:
    """Any thread may call any method. Raises :class:`Damaged` where a blob of the file is in no index."""

    def __init__(self, library: Browsable, shelf: BlobShelf, node: Node) -> None:
        self._shelf = shelf
        self._places: list[BlobLocation] = []
        blobs = node.content or []
        for blob, place in zip(blobs, library.locate(BlobType.DATA, blobs), strict=True):
            if place is None:
                raise Damaged(f"the data blob {blob.hex()[:8]} is in no index")
            self._places.append(place)
        self._ends = list(accumulate(map(plain_length, self._places)))
        self.size = self._ends[-1] if self._ends else 0
        """Bytes that there are, whatever the snapshot says."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, or as many as there are. Raises :class:`Damaged` and StorageError."""
        end = min(offset + length, self.size)
        return b"".join(self._window(start, min(start + WINDOW, end)) for start in range(offset, end, WINDOW))

    def stream(self, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` to ``end`` in pieces; the next is fetched while one is used."""
        last = self.size if end is None else min(end, self.size)
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
