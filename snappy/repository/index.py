"""Which blob lies where: the index files of a repository, and the table in memory made from them.

An index file is JSON: packs, and for each the blobs in it. Source: restic's ``doc/design.rst``, "Indexing".
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator

import msgspec

from snappy.errors import Damaged
from snappy.repository.format import (
    BlobId,
    BlobLocation,
    BlobType,
    PackId,
    decode_json,
    encode_json,
    parse_id,
)

BLOBS_IN_A_FILE = 50_000
"""About how many blobs one index file lists: keeps it below the 8 MiB that restic aims for."""


class _Blob(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    type: BlobType
    offset: int
    length: int
    uncompressed_length: int = 0


class _Pack(msgspec.Struct):
    id: str
    blobs: list[_Blob]


class _IndexFile(msgspec.Struct, omit_defaults=True):
    packs: list[_Pack] | None
    supersedes: list[str] = []


class IndexContent:
    """What one index file says: the blobs, and which older index files it stands for."""

    def __init__(self, file: _IndexFile) -> None:
        self._file = file
        self.supersedes = set(file.supersedes)

    def blobs(self) -> Iterator[BlobLocation]:
        """Every blob it lists. Raises :class:`Damaged` at an entry that cannot be."""
        for pack in self._file.packs or ():
            pack_id = parse_id(pack.id)
            for blob in pack.blobs:
                yield _location(pack_id, blob)


def _location(pack: PackId, blob: _Blob) -> BlobLocation:
    numbers = (blob.offset, blob.length, blob.uncompressed_length)
    if min(numbers) < 0 or max(numbers) >= 1 << 32:
        raise Damaged(f"an index file places blob {blob.id[:8]} where nothing can be")
    return BlobLocation(blob.type, parse_id(blob.id), pack, *numbers)


def decode_index(data: bytes) -> IndexContent:
    """Read an index file's JSON. Raises :class:`Damaged`."""
    return IndexContent(decode_json(data, _IndexFile, "an index file"))


def encode_index(blobs: Iterable[BlobLocation]) -> bytes:
    """The JSON of an index file that lists these blobs, grouped by pack in the order given."""
    packs: dict[PackId, _Pack] = {}
    for blob in blobs:
        pack = packs.setdefault(blob.pack, _Pack(blob.pack.hex(), []))
        pack.blobs.append(_Blob(blob.id.hex(), blob.kind, blob.offset, blob.length, blob.uncompressed_length))
    return encode_json(_IndexFile(list(packs.values())))


class MemoryIndex:
    """All blobs that the index files list and those stored since. Any thread may call any method.

    A blob costs about 200 bytes: its place is a row of four 32-bit numbers, found by id. Further copies of a blob
    (two writers may both have stored it) are kept beside.
    """

    def __init__(self) -> None:
        self._rows: dict[BlobType, dict[BlobId, int]] = {kind: {} for kind in BlobType}
        self._copies: dict[tuple[BlobType, BlobId], list[int]] = {}
        self._columns = tuple(array("I") for _ in range(4))
        self._packs: list[PackId] = []
        self._pack_numbers: dict[PackId, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def add(self, blobs: Iterable[BlobLocation]) -> None:
        """Take the blobs in; one that is known at the same place is skipped."""
        with self._lock:
            for blob in blobs:
                self._add(blob)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            for rows in self._rows.values():
                rows.clear()
            self._copies.clear()
            self._pack_numbers.clear()
            self._columns = tuple(array("I") for _ in range(4))
            self._packs.clear()

    def has(self, kind: BlobType, blob: BlobId) -> bool:
        """Whether a copy is known."""
        return blob in self._rows[kind]

    def locations(self, kind: BlobType, blob: BlobId) -> list[BlobLocation]:
        """All copies, the one known first in front."""
        first = self._rows[kind].get(blob)
        if first is None:
            return []
        rows = (first, *self._copies.get((kind, blob), ()))
        return [self._location(kind, blob, row) for row in rows]

    def packs(self) -> set[PackId]:
        """The packs that hold any known blob."""
        return set(self._pack_numbers)

    def __iter__(self) -> Iterator[BlobLocation]:
        """Every copy of every blob; nothing may be added meanwhile."""
        for kind, rows in self._rows.items():
            for blob in rows:
                yield from self.locations(kind, blob)

    def _add(self, blob: BlobLocation) -> None:
        known = self.locations(blob.kind, blob.id)
        if blob in known:
            return
        row = len(self._columns[0])
        values = (self._pack_number(blob.pack), blob.offset, blob.length, blob.uncompressed_length)
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        if known:
            self._copies.setdefault((blob.kind, blob.id), []).append(row)
        else:
            self._rows[blob.kind][blob.id] = row

    def _pack_number(self, pack: PackId) -> int:
        number = self._pack_numbers.setdefault(pack, len(self._packs))
        if number == len(self._packs):
            self._packs.append(pack)
        return number

    def _location(self, kind: BlobType, blob: BlobId, row: int) -> BlobLocation:
        pack, offset, length, uncompressed = (column[row] for column in self._columns)
        return BlobLocation(kind, blob, self._packs[pack], offset, length, uncompressed)
