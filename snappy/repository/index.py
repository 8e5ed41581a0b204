"""Which blob lies where: the index files of a repository, and the table in memory made from them.

An index file is JSON: packs, and for each the blobs in it. Source: restic's ``doc/design.rst``, "Indexing".
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Annotated

import msgspec
from msgspec import Meta

from snappy.repository.format import (
    BlobId,
    BlobLocation,
    BlobType,
    PackId,
    decode_json,
    encode_json,
    parse_id,
)
from snappy.repository.index_table import (
    GrowingTable,
    Table,
    all_locations,
    encode_row,
    first_bits,
    locations,
    pack_ids,
)
from snappy.repository.pack import PackedBlob

BLOBS_IN_A_FILE = 25_000
"""About how many blobs one index file lists: some 3 MiB, half of what restic aims for, since the memory that a file is
made in is several times as large."""


_Number = Annotated[int, Meta(ge=0, lt=1 << 32)]


class _Blob(msgspec.Struct, omit_defaults=True, gc=False):
    id: str
    type: BlobType
    offset: _Number
    length: _Number
    uncompressed_length: _Number = 0


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

    def rows(self, pack_number: Callable[[PackId], int]) -> Iterator[bytes]:
        """The rows of a table for every blob it lists, where ``pack_number`` gives the numbers of packs. Raises
        :class:`Damaged` at an entry that cannot be."""
        for pack in self._file.packs or ():
            number = pack_number(parse_id(pack.id))
            for blob in pack.blobs:
                yield encode_row(
                    parse_id(blob.id), number, blob.type, blob.offset, blob.length, blob.uncompressed_length
                )

    def packs(self) -> dict[PackId, list[PackedBlob]]:
        """What it lists, by pack. Raises :class:`Damaged` at an entry that cannot be."""
        found: dict[PackId, list[PackedBlob]] = {}
        for pack in self._file.packs or ():
            found.setdefault(parse_id(pack.id), []).extend(
                PackedBlob(blob.type, parse_id(blob.id), blob.offset, blob.length, blob.uncompressed_length)
                for blob in pack.blobs
            )
        return found


def decode_index(data: bytes) -> IndexContent:
    """Read an index file's JSON. Raises :class:`Damaged`."""
    return IndexContent(decode_json(data, _IndexFile, "an index file"))


def encode_index(blobs: Iterable[BlobLocation]) -> bytes:
    """The JSON of an index file that lists these blobs, grouped by pack in the order given."""
    packs: dict[PackId, bytearray] = {}
    for kind, blob, pack, *place in blobs:
        listed = packs.get(pack)
        if listed is None:
            listed = packs[pack] = bytearray()
        else:
            listed += b","
        listed += encode_json(_Blob(blob.hex(), kind, *place))  # as objects all of them take three times as much
    named = (b'{"id":"%s","blobs":[%s]}' % (pack.hex().encode(), listed) for pack, listed in packs.items())
    return b'{"packs":[' + b",".join(named) + b"]}"


def in_files(blobs: Iterable[BlobLocation]) -> Iterator[list[BlobLocation]]:
    """What each index file lists; a pack's blobs stand together. A pack is never cut in two: restic takes one that two
    files list differently for damaged."""
    listed: list[BlobLocation] = []
    for _, pack in itertools.groupby(blobs, key=attrgetter("pack")):
        listed += pack
        if len(listed) >= BLOBS_IN_A_FILE:
            yield listed
            listed = []
    if listed:
        yield listed


class MemoryIndex:
    """All blobs that the index files list and those stored since, at 50 to 80 bytes each. Any thread may call any
    method; to look takes no lock, and finds what is being added meanwhile, or not yet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._growing = GrowingTable()
        self._tables: tuple[Table, ...] = ()

    def add(self, blobs: Iterable[BlobLocation]) -> None:
        """Take the blobs in; one that is known at the same place may be given again."""
        with self._lock:
            if self._growing not in self._tables:  # an empty table costs time too
                self._tables = (*self._tables, self._growing)
            number = self._growing.pack_number
            self._growing.add(
                encode_row(blob.id, number(blob.pack), blob.kind, blob.offset, blob.length, blob.uncompressed_length)
                for blob in blobs
            )

    def join(self, tables: Sequence[Table]) -> None:
        """Take whole tables in, which nobody changes any more."""
        with self._lock:
            self._tables = (*tables, *self._tables)

    def has(self, kind: BlobType, blob: BlobId) -> bool:
        """Whether a copy is known."""
        return self.has_all(kind, (blob,))

    def has_all(self, kind: BlobType, blobs: Iterable[BlobId]) -> bool:
        """The same of all of them."""
        for blob in blobs:
            (first,) = first_bits(blob)
            for table in self._tables:
                if table.has(first, kind, blob):
                    break
            else:
                return False
        return True

    def location(self, kind: BlobType, blob: BlobId) -> BlobLocation | None:
        """One copy, if any is known."""
        for table in self._tables:
            for place in locations(table, kind, blob):
                return place
        return None

    def locations(self, kind: BlobType, blob: BlobId) -> list[BlobLocation]:
        """All copies."""
        found = [place for table in self._tables for place in locations(table, kind, blob)]
        return list(dict.fromkeys(found))  # two index files, taken in apart, may list one place

    def packs(self) -> set[PackId]:
        """The packs that hold any known blob."""
        return {pack for table in self._tables for pack in pack_ids(table)}

    def __iter__(self) -> Iterator[BlobLocation]:
        """Every copy of every blob; nothing may be added meanwhile."""
        for number, table in enumerate(self._tables):
            earlier = self._tables[:number]
            for place in all_locations(table):
                if not any(place in locations(other, place.kind, place.id) for other in earlier):
                    yield place
