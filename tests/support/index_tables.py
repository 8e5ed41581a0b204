"""Tables of an index for tests, and blobs to put into them."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.index_table import FixedTable, GatheredTable, GrowingTable, Rows, encode_row, write


def places(count: int, seed: int = 1) -> list[BlobLocation]:
    """As many blobs, three to a pack, every fourth a tree."""
    random = Random(seed)
    packs = [random.randbytes(32) for _ in range(count // 3 + 1)]
    kinds = [BlobType.TREE, BlobType.DATA, BlobType.DATA, BlobType.DATA]
    return [
        BlobLocation(kinds[number % 4], random.randbytes(32), packs[number // 3], number, 40 + number, number % 2)
        for number in range(count)
    ]


def grown(blobs: Iterable[BlobLocation]) -> GrowingTable:
    """A table that grew by them."""
    table = GrowingTable()
    table.add(rows(table, blobs))
    return table


def gathered(blobs: Iterable[BlobLocation]) -> GatheredTable:
    """A table that only gathers them."""
    table = GatheredTable()
    table.add(rows(table, blobs))
    return table


def rows(table: GatheredTable | GrowingTable, blobs: Iterable[BlobLocation]) -> Iterator[bytes]:
    """Of these blobs, for ``table``."""
    for blob in blobs:
        number = table.pack_number(blob.pack)
        yield encode_row(blob.id, number, blob.kind, blob.offset, blob.length, blob.uncompressed_length)


def fixed(tables: Sequence[Rows]) -> FixedTable:
    """One table in a file, with the rows of all."""
    with tempfile.TemporaryFile() as file:
        shape = write(tables, file.write)
        file.flush()
        assert file.tell() == shape.size
        return FixedTable(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), shape)
