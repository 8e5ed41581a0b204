"""Reads packs whole and proves all that is in them: their names, their headers, and every blob."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.findings import Finding, Findings, Kind
from snappy.repository.format import MIB, PackId
from snappy.repository.index_checker import Listing, header_digest
from snappy.repository.pack import PackedBlob
from snappy.repository.progress import Cancelled, Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType

READERS = 3
BYTES_AT_ONCE = 64 * MIB
"""Of packs that are in memory together; one larger than that is read alone."""
_NAMED = 20
"""Damaged blobs of a pack that a finding names."""


class CheckedPack(NamedTuple):
    """A pack to be read: ``size`` bytes; ``listing`` is what the index says, None where that cannot be right."""

    id: PackId
    size: int
    listing: Listing | None


class PackChecker:
    """Checks packs, several at a time."""

    def __init__(self, repo: Repository, findings: Findings, progress: Progress, cancelled: Cancelled) -> None:
        self._repo, self._findings, self._progress, self._cancelled = repo, findings, progress, cancelled

    def check(self, packs: Iterable[CheckedPack]) -> None:
        """Raises StorageError, and what ``cancelled`` raises."""
        running: deque[tuple[int, Future[None]]] = deque()
        in_memory = 0
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="packs")
        try:
            for pack in packs:
                while running and in_memory + pack.size > BYTES_AT_ONCE:
                    in_memory -= _settle(running)
                running.append((pack.size, pool.submit(self._check, pack)))
                in_memory += pack.size
            while running:
                _settle(running)
        finally:
            pool.shutdown(cancel_futures=True)

    def _check(self, pack: CheckedPack) -> None:
        """What seems damaged is read again: bytes may be harmed on their way out of a storage that holds them whole."""
        self._cancelled()
        if self._examine(pack):
            for finding in self._examine(pack):
                self._findings.add(finding.kind, finding.id, finding.message)
        self._progress.add(files=1, size=pack.size)

    def _examine(self, pack: CheckedPack) -> list[Finding]:
        try:
            data = self._repo.store.load(FileType.PACK, pack.id.hex(), 0, pack.size)
        except NotFound as error:
            return [Finding(Kind.PACK_MISSING, pack.id.hex(), error.message)]
        except Corrupt as error:
            return [Finding(Kind.PACK_SIZE, pack.id.hex(), error.message)]
        changed = hashlib.sha256(data).digest() != pack.id
        try:
            blobs = self._header(data, pack.listing)
        except Damaged as error:
            return [Finding(Kind.PACK_CHANGED if changed else Kind.PACK_HEADER, pack.id.hex(), error.message)]
        damaged = self._damaged(blobs, memoryview(data))
        if changed:
            return [Finding(Kind.PACK_CHANGED, pack.id.hex(), _changed(damaged))]
        place = f"in pack {pack.id.hex()}"
        return [Finding(Kind.BLOB_DAMAGED, blob.id.hex(), f"{place}: {error.message}") for blob, error in damaged]

    def _header(self, data: bytes, listing: Listing | None) -> list[PackedBlob]:
        blobs = self._repo.blobs_in(data)
        if listing and header_digest(blobs) != listing.header:
            raise Damaged("its header and the index list different blobs")
        return blobs

    def _damaged(self, blobs: Iterable[PackedBlob], data: memoryview) -> list[tuple[PackedBlob, Damaged]]:
        damaged: list[tuple[PackedBlob, Damaged]] = []
        for blob in blobs:
            try:
                self._repo.open_blob(blob, data[blob.offset : blob.offset + blob.length])
            except Damaged as error:
                damaged.append((blob, error))
        return damaged


def _settle(running: deque[tuple[int, Future[None]]]) -> int:
    """Wait for the oldest; its bytes."""
    size, future = running.popleft()
    future.result()
    return size


def _changed(damaged: list[tuple[PackedBlob, Damaged]]) -> str:
    if not damaged:
        return "its SHA-256 is not its name, though all that is in it is whole"
    named = ", ".join(blob.id.hex()[:8] for blob, _ in damaged[:_NAMED])
    more = ", ..." if len(damaged) > _NAMED else ""
    return f"its SHA-256 is not its name; damaged blobs in it: {len(damaged)} ({named}{more})"
