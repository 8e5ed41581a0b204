from __future__ import annotations

import json

import pytest

from snappy.errors import Damaged
from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.index import MemoryIndex, decode_index, encode_index
from snappy.repository.index_table import GrowingTable, all_locations
from tests.support.index_tables import grown


def location(blob: int, pack: int, offset: int = 0, kind: BlobType = BlobType.DATA, plain: int = 0) -> BlobLocation:
    return BlobLocation(kind, bytes([blob]) * 32, bytes([pack]) * 32, offset, 100, plain)


BLOBS = [location(1, 9), location(2, 9, 100, plain=500), location(3, 8, kind=BlobType.TREE)]


def test_the_file_is_restics() -> None:
    document = json.loads(encode_index(BLOBS))
    assert document == {
        "packs": [
            {
                "id": "09" * 32,
                "blobs": [
                    {"id": "01" * 32, "type": "data", "offset": 0, "length": 100},
                    {"id": "02" * 32, "type": "data", "offset": 100, "length": 100, "uncompressed_length": 500},
                ],
            },
            {"id": "08" * 32, "blobs": [{"id": "03" * 32, "type": "tree", "offset": 0, "length": 100}]},
        ]
    }


def read(document: bytes) -> list[BlobLocation]:
    table = GrowingTable()
    table.add(decode_index(document).rows(table.pack_number))
    return list(all_locations(table))


def test_round_trip() -> None:
    assert read(encode_index(BLOBS)) == BLOBS
    assert decode_index(encode_index(BLOBS)).supersedes == set()


def test_old_files_say_what_they_replace() -> None:
    assert decode_index(b'{"supersedes":["ab"],"packs":null}').supersedes == {"ab"}


def test_memory() -> None:
    index = MemoryIndex()
    index.add(BLOBS)
    assert set(index) == set(BLOBS)
    assert index.packs() == {b"\x09" * 32, b"\x08" * 32}
    for blob in BLOBS:
        assert index.has(blob.kind, blob.id)
        assert index.locations(blob.kind, blob.id) == [blob]
    assert not index.has(BlobType.TREE, BLOBS[0].id)
    assert index.locations(BlobType.TREE, BLOBS[0].id) == []


def test_copies_are_kept_once_each() -> None:
    index = MemoryIndex()
    copies = [location(1, 9), location(1, 8), location(1, 7, 5)]
    index.add(copies + copies)
    assert index.locations(BlobType.DATA, b"\x01" * 32) == copies
    assert sorted(index, key=str) == sorted(copies, key=str)
    assert set(index) == set(copies)


def test_tables_join_what_was_added_before_and_after() -> None:
    index, own = MemoryIndex(), location(5, 6)
    index.add([own])
    index.join([grown(BLOBS[:1]), grown(BLOBS[1:])])
    index.add([location(7, 6)])
    assert set(index) == {own, *BLOBS, location(7, 6)}
    assert index.packs() == {bytes([number]) * 32 for number in (6, 8, 9)}


def test_a_place_in_two_tables_is_one() -> None:
    index = MemoryIndex()
    index.add(BLOBS)
    index.join([grown(BLOBS)])
    assert sorted(index, key=str) == sorted(BLOBS, key=str)
    assert index.locations(BLOBS[0].kind, BLOBS[0].id) == BLOBS[:1]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"packs":{}}',
        b'{"packs":[{"id":"zz","blobs":[{"id":"zz","type":"data","offset":0,"length":0}]}]}',
        encode_index(BLOBS).replace(b'"data"', b'"date"'),
        encode_index(BLOBS).replace(b'"offset":0', b'"offset":-1'),
        encode_index(BLOBS).replace(b'"length":100', b'"length":4294967296'),
        encode_index(BLOBS).replace(b"0101", b"01ZZ"),
    ],
)
def test_damage(document: bytes) -> None:
    with pytest.raises(Damaged):
        read(document)
