"""Stores what is used of some packs again, so that they can be deleted."""

from __future__ import annotations

from array import array
from collections.abc import Collection

from snappy.repository.carrier import Carrier, Rows
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.progress import Cancelled, Progress
from snappy.repository.repo import Repository


class Repacker:
    """Of one prune."""

    def __init__(self, repo: Repository, blobs: ListedBlobs, progress: Progress, cancelled: Cancelled) -> None:
        self._repo, self._blobs, self._progress = repo, blobs, progress
        self._carrier = Carrier(repo, blobs, repo.save_unsealed_again, self._count, cancelled)

    def repack(self, packs: Collection[int], leaving: Collection[int]) -> None:
        """Store what is used of ``packs`` and lies in no other that stays, ``leaving`` being all that go, and list it.

        Raises :class:`snappy.errors.Damaged` where a blob cannot be read anywhere, and StorageError.
        """
        self._carrier.carry(self._wanted(packs, leaving))
        self._repo.flush()

    def _wanted(self, packs: Collection[int], leaving: Collection[int]) -> dict[int, Rows]:
        """The rows to copy, by pack."""
        stays = self._blobs.kept_without(leaving)
        wanted: dict[int, Rows] = {pack: array("I") for pack in packs}
        for row, (first, pack) in enumerate(self._blobs.places()):
            if pack in wanted and self._blobs.used[first] and not stays[first]:
                wanted[pack].append(row)
                stays[first] = 1
        return wanted

    def _count(self, pack: int, rows: Rows) -> None:
        self._progress.add(files=1, size=self._blobs.size(pack))
