"""All that the index files of a repository list, and of each blob whether a snapshot uses it: what a prune goes by.

A blob has one mark however many copies of it there are, that of the first row with its id; some 60 bytes a copy.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

from snappy.errors import Damaged
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId
from snappy.repository.index import decode_index
from snappy.repository.index_checker import Listing, listing_of
from snappy.repository.index_table import FixedTable, GatheredTable, encode_row
from snappy.repository.pack import PackedBlob, end_size
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.store import File, FileType

Packs = dict[PackId, list[PackedBlob]]

_READERS = 2
"""Index files that are read at a time; what is made of one has 30 MB."""
_NUMBER: Literal["I"] = "I"
_KINDS = (BlobType.DATA, BlobType.TREE)


class Copy(NamedTuple):
    """One copy of a blob: ``first`` is the number of the blob's first row, ``pack`` that of its pack."""

    first: int
    pack: int
    location: BlobLocation


class _Part(NamedTuple):
    """A table, and how many rows and packs the tables before it have."""

    table: FixedTable
    rows: int
    packs: int


class ListedBlobs:
    """Filled by :meth:`learn`, from the index files alone; the repository's index in memory learns the same.

    A pack has a number, its place in ``packs``. ``used`` and other marks of blobs are by the number of a first row.
    """

    def __init__(self, repo: Repository, cancelled: Cancelled) -> None:
        self._repo, self._cancelled = repo, cancelled
        self._parts: list[_Part] = []
        self._firsts, self._pack_of = array(_NUMBER), array(_NUMBER)
        self._numbers: dict[PackId, int] = {}
        self._listings: list[Listing] = []
        self.packs: list[PackId] = []
        self.files: dict[str, list[int]] = {}
        """The numbers of the packs that each index file lists, of those that are there."""
        self.used = bytearray()

    def __len__(self) -> int:
        """How many copies are listed."""
        return len(self._firsts)

    def learn(self) -> None:
        """Read the index files that are new, and forget what is listed by none any more. Raises :class:`Damaged`, also
        where two of them list one pack differently, and StorageError."""
        listed = self._repo.store.list(FileType.INDEX)
        there = {name for name, _ in listed}
        self.files = {name: packs for name, packs in self.files.items() if name in there}
        table = GatheredTable()
        base = len(self.packs)
        for name, packs in self._contents([file for file in listed if file[0] not in self.files]):
            self._cancelled()
            self.files[name] = [self._take(table, base, pack, blobs) for pack, blobs in packs.items()]
        if len(table):
            self._join(table.settled(), base)
            self._repo.learn_index(self._parts[-1].table, there)

    def size(self, pack: int) -> int:
        """The bytes that a pack must have."""
        return self._listings[pack].size

    def overhead(self, pack: int) -> int:
        """Those of them that are none of a blob's."""
        return end_size(self._listings[pack].header_size)

    def number(self, pack: PackId) -> int | None:
        """A pack's; None where no index file ever listed it."""
        return self._numbers.get(pack)

    def listed_packs(self) -> set[int]:
        """The packs that any index file lists now."""
        return {pack for packs in self.files.values() for pack in packs}

    def use(self, kind: BlobType, blob: BlobId) -> bool:
        """Mark a blob as used; whether it was not before. Raises :class:`Damaged` where no index file lists it."""
        first = self._find(kind, blob)
        if first < 0:
            raise Damaged(f"a snapshot needs the {kind.value} blob {blob.hex()[:8]}, and no index file lists it")
        new = not self.used[first]
        self.used[first] = 1
        return new

    def copies(self, packs: Collection[int] | None = None) -> Iterator[Copy]:
        """Every copy of every blob, or those in ``packs``."""
        at = 0
        for part in self._parts:
            for blob, pack, offset, length, plain in part.table.rows():
                number = part.packs + (pack >> 1)
                if packs is None or number in packs:
                    place = BlobLocation(_KINDS[pack & 1], blob, self.packs[number], offset, length, plain)
                    yield Copy(self._firsts[at], number, place)
                at += 1

    def places(self) -> Iterator[tuple[int, int]]:
        """Of every copy the first row and the pack, which is all that many questions need."""
        return zip(self._firsts, self._pack_of, strict=True)

    def location(self, row: int) -> BlobLocation:
        """The place of the copy of that number, counted as :meth:`places` gives them."""
        part = next(part for part in reversed(self._parts) if part.rows <= row)
        return part.table.location(row - part.rows)

    def kept_without(self, leaving: Collection[int]) -> bytearray:
        """Of each blob, by its first row, whether any index file lists a copy in a pack that is none of ``leaving``."""
        staying, kept = self.listed_packs().difference(leaving), bytearray(len(self))
        for first, pack in self.places():
            if pack in staying:
                kept[first] = 1
        return kept

    def _find(self, kind: BlobType, blob: BlobId) -> int:
        for part in self._parts:
            row = part.table.find(kind, blob)
            if row >= 0:
                return part.rows + row
        return -1

    def _join(self, table: FixedTable, packs: int) -> None:
        self._parts.append(_Part(table, len(self._firsts), packs))
        for blob, pack, *_ in table.rows():
            self._firsts.append(self._find(_KINDS[pack & 1], blob))
            self._pack_of.append(packs + (pack >> 1))
        self.used.extend(bytes(len(table)))

    def _contents(self, files: list[File]) -> Iterator[tuple[str, Packs]]:
        with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as pool:
            for start in range(0, len(files), _READERS):
                yield from pool.map(self._read, files[start : start + _READERS])

    def _read(self, file: File) -> tuple[str, Packs]:
        name, size = file
        return name, decode_index(self._repo.documents.load(FileType.INDEX, name, size)).packs()

    def _take(self, table: GatheredTable, base: int, pack: PackId, blobs: list[PackedBlob]) -> int:
        """The pack's number; one that was listed before must be listed alike."""
        listing = listing_of(blobs)
        known = self._numbers.get(pack)
        if listing is None or (known is not None and self._listings[known] != listing):
            raise Damaged(f"what index files say of pack {pack.hex()[:8]} cannot be right")
        if known is not None:
            return known
        number = self._numbers[pack] = len(self.packs)
        self.packs.append(pack)
        self._listings.append(listing)
        assert table.pack_number(pack) == number - base
        table.add(
            encode_row(blob.id, number - base, blob.kind, blob.offset, blob.length, blob.uncompressed_length)
            for blob in blobs
        )
        return number
