from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from tracemalloc import get_traced_memory, start, stop

import pytest

from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.index import MemoryIndex
from snappy.repository.index_table import (
    ROW,
    ROW_SIZE,
    GatheredTable,
    GrowingTable,
    Table,
    all_locations,
    bits_for,
    locations,
    pack_ids,
)
from tests.support.index_tables import fixed, gathered, grown, places

MANY = places(30_000)
FORMS: dict[str, Callable[[list[BlobLocation]], Table]] = {
    "growing": grown,
    "fixed": lambda blobs: fixed([grown(blobs)]),
    "settled": lambda blobs: gathered(blobs).settled(),
}


@pytest.fixture(scope="module", params=FORMS)
def table(request: pytest.FixtureRequest) -> Table:
    return FORMS[request.param](MANY)


def index_of(*tables: Table) -> MemoryIndex:
    index = MemoryIndex()
    index.join(tables)
    return index


def test_all_is_found_and_nothing_else(table: Table) -> None:
    index = index_of(table)
    assert len(table) == len(MANY)
    for place in MANY:
        other = BlobType.DATA if place.kind is BlobType.TREE else BlobType.TREE
        assert index.has(place.kind, place.id)
        assert locations(table, place.kind, place.id) == [place]
        assert not index.has(other, place.id)
        assert locations(table, other, place.id) == []
    assert not any(index.has(place.kind, place.id) for place in places(10_000, seed=2))


def test_all_are_told_once(table: Table) -> None:
    assert sorted(all_locations(table), key=lambda place: place.offset) == MANY
    assert set(pack_ids(table)) == {place.pack for place in MANY}


@pytest.mark.parametrize("bits", [8, 9, bits_for(len(MANY)), 15])
def test_buckets_of_any_number_hold_the_same(table: Table, bits: int) -> None:
    buckets = list(table.buckets(bits))
    assert len(buckets) == 1 << bits
    assert sum(map(len, buckets)) == ROW_SIZE * len(MANY)
    for number, bucket in enumerate(buckets):
        ids = [bucket[start : start + 4] for start in range(0, len(bucket), ROW_SIZE)]
        assert all(int.from_bytes(first, "big") >> (32 - bits) == number for first in ids)


@pytest.mark.parametrize("bits", [8, 11, 14])
def test_what_was_gathered_is_sorted_into_buckets_as_what_grew(bits: int) -> None:
    for one, other in zip(gathered(MANY).buckets(bits), grown(MANY).buckets(bits), strict=True):
        assert sorted(ROW.iter_unpack(one)) == sorted(ROW.iter_unpack(other))


def test_what_settled_has_moved() -> None:
    table = gathered(MANY)
    assert len(table.settled()) == len(MANY)
    assert len(table) == 0


def test_buckets_stay_small() -> None:
    sizes = [len(bucket) // ROW_SIZE for bucket in fixed([grown(MANY)]).buckets(bits_for(len(MANY)))]
    assert 3 < sum(sizes) / len(sizes) <= 8
    assert max(sizes) < 30


def test_one_id_may_be_a_tree_and_data() -> None:
    tree, data = (BlobLocation(kind, b"\x05" * 32, b"p" * 32, 1, 2, 3) for kind in (BlobType.TREE, BlobType.DATA))
    for table in (grown([tree, data]), fixed([grown([data]), grown([tree])])):
        assert locations(table, BlobType.TREE, tree.id) == [tree]
        assert locations(table, BlobType.DATA, tree.id) == [data]


@pytest.mark.parametrize("form", FORMS)
def test_an_id_that_stands_across_a_row_is_not_there(form: str) -> None:
    place = BlobLocation(BlobType.DATA, b"\x07" * 32, b"p" * 32, 1, 2, 3)
    across = grown([place]).bucket(0x07070707)[16:]
    table = FORMS[form]([place])
    assert across in table.bucket(int.from_bytes(across[:4], "big"))
    assert not index_of(table).has(BlobType.DATA, across)
    assert locations(table, BlobType.DATA, across) == []


def test_tables_are_merged_whatever_their_order_and_sizes() -> None:
    parts = [MANY[:100], MANY[100:101], MANY[101:20_000], MANY[20_000:], []]
    random.Random(5).shuffle(parts)
    tables = [make(part) for make, part in zip([grown, gathered, grown, gathered, grown], parts, strict=True)]
    merged = fixed([fixed(tables[:3]), *tables[3:]])
    assert sorted(all_locations(merged), key=lambda place: place.offset) == MANY


def test_an_empty_table_is_one() -> None:
    for table in (GrowingTable(), fixed([GrowingTable()]), GatheredTable().settled()):
        assert (len(table), list(all_locations(table)), list(pack_ids(table))) == (0, [], [])
        assert not index_of(table).has(BlobType.DATA, b"\x01" * 32)


def test_a_blob_is_found_whole_while_others_are_added() -> None:
    """What has been seen is never lost sight of while the buckets double."""
    index = MemoryIndex()
    seen: list[BlobLocation] = []

    def watched() -> Iterator[BlobLocation]:
        for number, place in enumerate(MANY):
            yield place
            seen.append(place)
            for known in seen[:: max(1, number // 3)]:
                assert index.locations(known.kind, known.id) == [known]

    index.add(watched())
    assert len(seen) == len(MANY)


def test_few_bytes_a_blob() -> None:
    blobs = places(50_000, seed=9)
    start()
    try:
        table = grown(blobs)
        held, _ = get_traced_memory()
    finally:
        stop()
    packs = len(table.packs())
    assert (held - packs) / len(blobs) < 75


def test_a_fixed_table_takes_its_rows_and_a_byte_more() -> None:
    table = fixed([grown(MANY)])
    assert (table._shape.size - len(table.packs())) / len(MANY) < ROW_SIZE + 1
