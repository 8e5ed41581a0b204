"""Carries blobs out of packs to where they are stored next: each proven as in a restore, and still compressed."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from snappy.repository.format import MIB, BlobType
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.pack import Unsealed
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository

_READERS = 3
_WAITING = 2 * _READERS
_TOGETHER = MIB
"""Bytes of small blobs that are sealed together."""

Rows: TypeAlias = "array[int]"
"""Numbers of copies, as :meth:`ListedBlobs.places` counts them."""
Save = Callable[[BlobType, list[Unsealed]], None]
Carried = Callable[[int, Rows], None]
"""Hears that these rows of that pack are done."""


class Carrier:
    """Reads a few packs of ``repo`` at a time and hands what it is sent for to ``save``, in several threads."""

    def __init__(
        self, repo: Repository, blobs: ListedBlobs, save: Save, carried: Carried, cancelled: Cancelled
    ) -> None:
        self._repo, self._blobs, self._save = repo, blobs, save
        self._carried, self._cancelled = carried, cancelled

    def carry(self, wanted: dict[int, Rows]) -> None:
        """The rows of each pack. Empties ``wanted``. Raises :class:`snappy.errors.Damaged` where a blob cannot be read
        anywhere, StorageError, and what ``save`` raises."""
        running: deque[Future[None]] = deque()
        threads = ThreadPoolExecutor(_READERS, thread_name_prefix="carry")
        try:
            while wanted:
                running.append(threads.submit(self._carry, *wanted.popitem()))
                if len(running) > _WAITING:
                    running.popleft().result()
            while running:
                running.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _carry(self, pack: int, rows: Rows) -> None:
        together: list[Unsealed] = []
        kind, size = BlobType.DATA, 0
        for place, blob in self._repo.load_unsealed(self._blobs.packs[pack], map(self._blobs.location, rows)):
            self._cancelled()
            if together and (place.kind is not kind or size >= _TOGETHER):
                self._save(kind, together)
                together, size = [], 0
            kind, size = place.kind, size + blob.plain_length
            together.append(blob)
        if together:
            self._save(kind, together)
        self._carried(pack, rows)
