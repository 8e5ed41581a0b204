"""Tables of blobs in few bytes: one that grows, and one that lies in a file and is only looked at.

A row is 48 bytes: a blob's id, and where one copy of it lies. The rows whose ids begin with the same bits stand
together in a *bucket*, a handful of rows; to look a blob up is to search its id among a bucket's bytes. Ids are
hashes, so that buckets fill evenly.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from struct import Struct
from typing import Literal, Protocol, Self

import msgspec

from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId

ROW = Struct(">32sIIII")
"""Id, the number of the pack in its table doubled (and 1 more for a tree), offset, length, uncompressed length."""

ROW_SIZE = ROW.size
first_bits = Struct(">I").unpack_from
"""The first 32 bits of an id, or of a row, as the one number of a tuple."""

ID_SIZE = 32
_KIND_AT = ID_SIZE + 3
_START: Literal["I"] = "I"
_START_SIZE = array(_START).itemsize
_WRITTEN_TOGETHER = 4096
"""Buckets."""
_PARTS = 256
_PART_BITS = 8
_BLOCK_SIZE = 4096 * ROW_SIZE
_FULL = mmap.mmap(-1, 1)
_ROWS_IN_A_BUCKET = 8
"""At most, on average; half of that after the buckets were doubled."""

_TREE = BlobType.TREE

_Part = tuple[int, list[bytes]]
"""The buckets of all ids with one first byte. The bits behind it, ``24 - shift`` of them, number a bucket."""


class Rows(Protocol):
    """Rows in buckets, and the packs that they speak of."""

    def __len__(self) -> int:
        """How many rows there are."""

    def buckets(self, bits: int) -> Iterator[bytes]:
        """All rows, as ``1 << bits`` buckets, those of the smallest ids first; ``bits`` is 8 at least."""

    def packs(self) -> bytes:
        """The ids of all packs, one after the other by number; one may stand there twice."""


class Table(Rows, Protocol):
    """Rows that can be looked up, by a blob's id and its first 32 bits."""

    def has(self, first: int, kind: BlobType, blob: BlobId) -> bool:
        """Whether there is a row for the blob."""

    def bucket(self, first: int) -> bytes:
        """The bucket with the rows of blobs that begin with these 32 bits."""

    def pack(self, number: int) -> PackId:
        """The pack of that number."""


def locations(table: Table, kind: BlobType, blob: BlobId) -> list[BlobLocation]:
    """The places of the blob that ``table`` knows."""
    bucket = table.bucket(first_bits(blob)[0])
    found: list[BlobLocation] = []
    at = bucket.find(blob)
    while at >= 0:
        if _is_row(bucket, at, kind):
            found.append(_location(table, bucket[at : at + ROW_SIZE]))
        at = bucket.find(blob, at + 1)
    return list(dict.fromkeys(found)) if len(found) > 1 else found


def all_locations(table: Table) -> Iterator[BlobLocation]:
    """The places of all blobs in ``table``."""
    for bucket in table.buckets(_PART_BITS):
        yield from dict.fromkeys(_location(table, row) for row in _split(bucket))


def pack_ids(table: Table) -> Iterator[PackId]:
    """The packs that ``table`` speaks of."""
    packs = table.packs()
    return (packs[start : start + ID_SIZE] for start in range(0, len(packs), ID_SIZE))


def encode_row(blob: BlobId, pack: int, kind: BlobType, offset: int, length: int, uncompressed: int) -> bytes:
    """The row that says so, in a table where the pack has that number."""
    return ROW.pack(blob, pack << 1 | (kind is _TREE), offset, length, uncompressed)


def _location(table: Table, row: bytes) -> BlobLocation:
    blob, pack, *place = ROW.unpack(row)
    return BlobLocation(_TREE if pack & 1 else BlobType.DATA, blob, table.pack(pack >> 1), *place)


def _is_row(rows: bytes | mmap.mmap, at: int, kind: BlobType) -> bool:
    """Whether one of that kind begins there. An id may first stand across two rows, or in one of the other kind: that
    hardly ever happens."""
    return not at % ROW_SIZE and rows[at + _KIND_AT] & 1 == (kind is _TREE)


def _split(bucket: bytes) -> list[bytes]:
    return [bucket[start : start + ROW_SIZE] for start in range(0, len(bucket), ROW_SIZE)]


def bits_for(rows: int) -> int:
    """How many bits tell apart the buckets of so many rows."""
    return max(_PART_BITS, (rows // _ROWS_IN_A_BUCKET).bit_length())


class _Packs:
    """The packs of a table that is being made."""

    def __init__(self) -> None:
        self._packs = bytearray()

    def pack(self, number: int) -> PackId:
        return bytes(self._packs[number * ID_SIZE : (number + 1) * ID_SIZE])

    def packs(self) -> bytes:
        return bytes(self._packs)

    def pack_number(self, pack: PackId) -> int:
        """A number for the pack; it has that of the last one asked for if it is the same."""
        if self._packs[-ID_SIZE:] != pack:
            self._packs += pack
        return len(self._packs) // ID_SIZE - 1


class GatheredTable(_Packs):
    """Rows as they come, about 50 bytes each, to be made a :class:`FixedTable` of: nothing is looked up in it.

    They lie in blocks of the system's own, which go back to it at once; the C library keeps what is freed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[list[mmap.mmap]] = [[] for _ in range(_PARTS)]
        self._open = [_FULL] * _PARTS
        self._spent = False

    def __len__(self) -> int:
        return sum(block.tell() for blocks in self._parts for block in blocks) // ROW_SIZE

    def add(self, rows: Iterable[bytes]) -> None:
        """Take the rows in."""
        blocks = self._open
        for row in rows:
            try:
                blocks[row[0]].write(row)
            except ValueError:  # it is full
                self._begin(row[0]).write(row)

    def _begin(self, part: int) -> mmap.mmap:
        block = mmap.mmap(-1, _BLOCK_SIZE, access=mmap.ACCESS_COPY)
        self._open[part] = block
        self._parts[part].append(block)
        return block

    def buckets(self, bits: int) -> Iterator[bytes]:
        for blocks in self._parts:
            yield from _sorted(b"".join([block[: block.tell()] for block in blocks]), bits)
            if self._spent:
                blocks.clear()

    def settled(self) -> FixedTable:
        """All rows as a table in memory. They move: this one is of no use then, and the memory is not needed twice."""
        shape = Shape.of([self])
        memory = mmap.mmap(-1, shape.size)
        self._spent, self._open = True, []
        write([self], memory.write)
        return FixedTable(memory, shape)


class GrowingTable(_Packs):
    """Takes in rows at 60 to 80 bytes each; one thread at a time may do so, while any others look.

    Each part doubles its buckets by itself, so that growing neither takes long nor needs the memory twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[_Part] = [(24, [b""]) for _ in range(_PARTS)]
        self._rows = [0] * _PARTS

    def __len__(self) -> int:
        return sum(self._rows)

    def bucket(self, first: int) -> bytes:
        shift, buckets = self._parts[first >> 24]
        return buckets[(first & 0xFFFFFF) >> shift]

    def has(self, first: int, kind: BlobType, blob: BlobId) -> bool:
        shift, buckets = self._parts[first >> 24]
        bucket = buckets[(first & 0xFFFFFF) >> shift]
        at = bucket.find(blob)
        if at < 0:
            return False
        return _is_row(bucket, at, kind) or bool(locations(self, kind, blob))

    def buckets(self, bits: int) -> Iterator[bytes]:
        for shift, buckets in self._parts:
            yield from _regrouped(buckets, 32 - shift, bits)

    def add(self, rows: Iterable[bytes]) -> None:
        """Take the rows in."""
        parts, counts = self._parts, self._rows
        for row in rows:
            (first,) = first_bits(row)
            part = first >> 24
            shift, buckets = parts[part]
            number = (first & 0xFFFFFF) >> shift
            buckets[number] += row
            counts[part] += 1
            if counts[part] > _ROWS_IN_A_BUCKET * len(buckets):
                parts[part] = shift - 1, list(_regrouped(buckets, 32 - shift, 33 - shift))


class Shape(msgspec.Struct, frozen=True):
    """What one has to know of a table in a file: how many rows, ``1 << bits`` buckets, and packs."""

    rows: int
    bits: int
    packs: int

    @classmethod
    def of(cls, tables: Sequence[Rows]) -> Self:
        """Of the one table that is made of all of these."""
        rows = sum(map(len, tables))
        return cls(rows, bits_for(rows), sum(len(table.packs()) for table in tables) // ID_SIZE)

    @property
    def size(self) -> int:
        """The bytes of the table."""
        return self.rows * ROW_SIZE + ((1 << self.bits) + 1) * _START_SIZE + self.packs * ID_SIZE


class FixedTable:
    """Rows in a file that :func:`write` made, which is mapped into memory; the table is at its front."""

    def __init__(self, file: mmap.mmap, shape: Shape) -> None:
        self._file = file
        self._shape = shape
        self._shift = 32 - shape.bits
        starts = shape.rows * ROW_SIZE
        self._packs_at = shape.size - shape.packs * ID_SIZE
        self._starts = memoryview(file)[starts : self._packs_at].cast(_START)

    def __len__(self) -> int:
        return self._shape.rows

    def bucket(self, first: int) -> bytes:
        number = first >> self._shift
        return self._file[self._starts[number] * ROW_SIZE : self._starts[number + 1] * ROW_SIZE]

    def has(self, first: int, kind: BlobType, blob: BlobId) -> bool:
        number = first >> self._shift
        at = self._file.find(blob, self._starts[number] * ROW_SIZE, self._starts[number + 1] * ROW_SIZE)
        if at < 0:
            return False
        return _is_row(self._file, at, kind) or bool(locations(self, kind, blob))

    def find(self, kind: BlobType, blob: BlobId) -> int:
        """The number of the first row for the blob; -1 if there is none."""
        number = first_bits(blob)[0] >> self._shift
        start, end = self._starts[number] * ROW_SIZE, self._starts[number + 1] * ROW_SIZE
        at = self._file.find(blob, start, end)
        while at >= 0 and not _is_row(self._file, at, kind):
            at = self._file.find(blob, at + 1, end)
        return at // ROW_SIZE

    def location(self, row: int) -> BlobLocation:
        """What the row of that number says."""
        return _location(self, self._file[row * ROW_SIZE : (row + 1) * ROW_SIZE])

    def rows(self) -> Iterator[tuple[bytes, int, int, int, int]]:
        """All rows in their order, as :data:`ROW` has them."""
        end = self._shape.rows * ROW_SIZE
        for start in range(0, end, _BLOCK_SIZE):
            yield from ROW.iter_unpack(self._file[start : min(start + _BLOCK_SIZE, end)])

    def buckets(self, bits: int) -> Iterator[bytes]:
        fewer = min(bits, self._shape.bits)
        borders = self._starts[:: 1 << (self._shape.bits - fewer)]
        joined = (self._file[start * ROW_SIZE : end * ROW_SIZE] for start, end in pairwise(borders))
        return _regrouped(joined, fewer, bits)

    def pack(self, number: int) -> PackId:
        start = self._packs_at + number * ID_SIZE
        return self._file[start : start + ID_SIZE]

    def packs(self) -> bytes:
        return self._file[self._packs_at : self._shape.size]


def write(tables: Sequence[Rows], out: Callable[[bytes], object]) -> Shape:
    """Give all rows of ``tables``, as one table, to ``out``: the buckets; the number of the row with which each begins,
    and of all rows; the packs."""
    ordered = sorted(tables, key=len, reverse=True)  # the largest keeps its numbers of packs
    shape = Shape.of(ordered)
    merged, starts = _merged(ordered, shape.bits), array(_START, [0])
    while together := list(islice(merged, _WRITTEN_TOGETHER)):
        for bucket in together:
            starts.append(starts[-1] + len(bucket) // ROW_SIZE)
        out(b"".join(together))
    out(starts.tobytes())
    for table in ordered:
        out(table.packs())
    return shape


def _merged(tables: Sequence[Rows], bits: int) -> Iterator[bytes]:
    packs = 0
    sources: list[Iterator[bytes]] = []
    for table in tables:
        sources.append(_renumbered(table.buckets(bits), packs) if packs else table.buckets(bits))
        packs += len(table.packs()) // ID_SIZE
    return map(b"".join, zip(*sources, strict=True))


def _renumbered(buckets: Iterable[bytes], packs: int) -> Iterator[bytes]:
    """The same with ``packs`` added to each number of a pack."""
    for bucket in buckets:
        rows = ROW.iter_unpack(bucket)
        yield b"".join([ROW.pack(blob, pack + 2 * packs, *place) for blob, pack, *place in rows])


def _sorted(rows: bytes, bits: int) -> Iterator[bytes]:
    """The buckets of rows whose ids begin with the same byte."""
    found: list[list[bytes]] = [[] for _ in range(1 << (bits - _PART_BITS))]
    shift, mask = 32 - bits, len(found) - 1
    for start in range(0, len(rows), ROW_SIZE):
        found[first_bits(rows, start)[0] >> shift & mask].append(rows[start : start + ROW_SIZE])
    return map(b"".join, found)


def _regrouped(buckets: Iterable[bytes], have: int, want: int) -> Iterator[bytes]:
    """``1 << have`` buckets as ``1 << want`` (or as many of either as belong to one part)."""
    for bit in range(have, want):
        buckets = _doubled(buckets, bit)
    source = iter(buckets)
    return map(b"".join, zip(*[source] * (1 << max(0, have - want)), strict=True))


def _doubled(buckets: Iterable[bytes], bit: int) -> Iterator[bytes]:
    """Two for each: the rows without that bit, the most significant of an id being 0, and the rows with it."""
    at, mask = bit // 8, 0x80 >> bit % 8
    for bucket in buckets:
        halves: tuple[list[bytes], list[bytes]] = ([], [])
        for start in range(0, len(bucket), ROW_SIZE):
            halves[bucket[start + at] & mask != 0].append(bucket[start : start + ROW_SIZE])
        yield from map(b"".join, halves)
