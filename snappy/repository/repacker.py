"""Stores what is used of some packs again, so that they can be deleted."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from snappy.repository.format import MIB, BlobType
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.pack_writer import NamedData
from snappy.repository.progress import Cancelled, Progress
from snappy.repository.repo import Repository

_READERS = 3
_WAITING = 2 * _READERS
_TOGETHER = MIB
"""Bytes of small blobs that are sealed together."""


class Repacker:
    """Reads a few packs at a time, each blob's bytes proven as in a restore."""

    def __init__(self, repo: Repository, blobs: ListedBlobs, progress: Progress, cancelled: Cancelled) -> None:
        self._repo, self._blobs, self._progress, self._cancelled = repo, blobs, progress, cancelled

    def repack(self, packs: Collection[int], leaving: Collection[int]) -> None:
        """Store what is used of ``packs`` and lies in no other that stays, ``leaving`` being all that go, and list it.

        Raises :class:`snappy.errors.Damaged` where a blob cannot be read anywhere, and StorageError.
        """
        wanted = self._wanted(packs, leaving)
        running: deque[Future[None]] = deque()
        threads = ThreadPoolExecutor(_READERS, thread_name_prefix="repack")
        try:
            while wanted:
                running.append(threads.submit(self._copy, *wanted.popitem()))
                if len(running) > _WAITING:
                    running.popleft().result()
            while running:
                running.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
        self._repo.flush()

    def _wanted(self, packs: Collection[int], leaving: Collection[int]) -> dict[int, array[int]]:
        """The rows to copy, by pack."""
        stays = self._blobs.kept_without(leaving)
        wanted: dict[int, array[int]] = {pack: array("I") for pack in packs}
        for row, (first, pack) in enumerate(self._blobs.places()):
            if pack in wanted and self._blobs.used[first] and not stays[first]:
                wanted[pack].append(row)
                stays[first] = 1
        return wanted

    def _copy(self, pack: int, rows: array[int]) -> None:
        together: list[NamedData] = []
        kind, size = BlobType.DATA, 0
        for place, data in self._repo.load_blobs(self._blobs.packs[pack], map(self._blobs.location, rows)):
            self._cancelled()
            if together and (place.kind is not kind or size >= _TOGETHER):
                self._repo.save_again(kind, together)
                together, size = [], 0
            kind, size = place.kind, size + len(data)
            together.append((place.id, data))
        if together:
            self._repo.save_again(kind, together)
        self._progress.add(files=1, size=self._blobs.size(pack))
