"""Reads every index file of a repository, and finds what they say that cannot be.

What an index says of a pack determines the pack's header to the byte, and so its size. Two index files that list one
pack differently are damage: of blobs that only one of them lists, a program that reads the other knows nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from snappy.errors import Corrupt, Damaged, NotFound, SnappyError
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import PackId
from snappy.repository.index import decode_index
from snappy.repository.index_table import GatheredTable, encode_row
from snappy.repository.pack import PackedBlob, encode_header, end_size
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.store import File, FileType

Packs = dict[PackId, list[PackedBlob]]

_READERS = 4
_AT_ONCE = 16
"""Index files whose contents may be in memory together; each is some megabytes."""


class Listing(NamedTuple):
    """What the index says of a pack: its size and that of its plain header in bytes, and that header's digest."""

    size: int
    header_size: int
    header: bytes


class IndexChecker:
    """Fills the repository's index in memory from its index files, and none that a cache may hold.

    ``is_whole`` once all of them could be read: else what they do not list says nothing.
    """

    def __init__(self, repo: Repository, findings: Findings, cancelled: Cancelled) -> None:
        self._repo, self._findings, self._cancelled = repo, findings, cancelled
        self._table = GatheredTable()
        self._reported: set[PackId] = set()
        self.listings: dict[PackId, Listing | None] = {}
        """Of each pack that is listed; None where that cannot be right."""
        self.files: dict[str, list[PackId]] = {}
        """Of each index file that could be read, the packs that it lists."""
        self.unreadable: list[str] = []
        """The index files that could not."""

    @property
    def is_whole(self) -> bool:
        """Whether all files could be read."""
        return not self.unreadable

    def check(self) -> None:
        """Raises StorageError."""
        for name, found in self._contents(self._repo.store.list(FileType.INDEX)):
            self._cancelled()
            if isinstance(found, SnappyError):
                self.unreadable.append(name)
                self._findings.add(Kind.INDEX_DAMAGED, name, found.message)
            else:
                self.files[name] = list(found)
                self._take(found)
        self._repo.index.join([self._table.settled()])

    def _contents(self, files: list[File]) -> Iterator[tuple[str, Packs | SnappyError]]:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as pool:
            for start in range(0, len(files), _AT_ONCE):
                yield from pool.map(self._read, files[start : start + _AT_ONCE])

    def _read(self, file: File) -> tuple[str, Packs | SnappyError]:
        """All that the file says, or why nothing of it can be believed."""
        name, size = file
        try:
            return name, decode_index(self._repo.documents.load(FileType.INDEX, name, size)).packs()
        except (Damaged, NotFound, Corrupt) as error:
            return name, error

    def _take(self, packs: Packs) -> None:
        for pack, blobs in packs.items():
            self._note(pack, blobs)
            number = self._table.pack_number(pack)
            self._table.add(
                encode_row(blob.id, number, blob.kind, blob.offset, blob.length, blob.uncompressed_length)
                for blob in blobs
            )

    def _note(self, pack: PackId, blobs: list[PackedBlob]) -> None:
        listing = listing_of(blobs)
        if listing is None:
            self._wrong(pack, "an index file lists its blobs with gaps between them, or one over the other")
        elif pack not in self.listings:
            self.listings[pack] = listing
        elif self.listings[pack] == listing:
            self._findings.add(Kind.PACK_REPEATED, pack, "several index files list it, all alike")
        else:
            self._wrong(pack, "two index files list it differently")

    def _wrong(self, pack: PackId, message: str) -> None:
        self.listings[pack] = None
        if pack not in self._reported:
            self._reported.add(pack)
            self._findings.add(Kind.PACK_LISTING, pack, message)


def listing_of(blobs: Iterable[PackedBlob]) -> Listing | None:
    """What blobs that the index lists say of their pack; None where the blobs do not lie one after the other."""
    ordered = sorted(blobs, key=lambda blob: blob.offset)
    end = 0
    for blob in ordered:
        if blob.offset != end:
            return None
        end += blob.length
    header = encode_header(ordered)
    return Listing(end + end_size(len(header)), len(header), hashlib.sha256(header).digest())
