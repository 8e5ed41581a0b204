"""The index in memory, and its cache, say what a plain dictionary says, whatever came before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from snappy.repository import index_cache
from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.index import MemoryIndex, encode_index
from snappy.repository.index_table import Table, all_locations, pack_ids
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from tests.support.engine import CHEAP, PASSWORD, memory_store
from tests.support.index_tables import fixed, gathered, grown

FEW = st.sampled_from([bytes([first, *[second] * 31]) for first in (0, 1, 255) for second in (0, 1, 7, 255)])
"""Ids that crowd a few buckets, and come again."""
IDS = FEW | st.binary(min_size=32, max_size=32)
WORDS = st.integers(0, (1 << 32) - 1)
PLACES = st.builds(BlobLocation, st.sampled_from(BlobType), IDS, IDS, WORDS, WORDS, WORDS)
GROUPS = st.lists(st.lists(PLACES, max_size=40), min_size=1, max_size=5)
MAKERS = st.sampled_from([grown, lambda blobs: fixed([gathered(blobs)]), lambda blobs: gathered(blobs).settled()])

Model = dict[tuple[BlobType, bytes], set[BlobLocation]]


def model_of(blobs: list[BlobLocation]) -> Model:
    model: Model = {}
    for blob in blobs:
        model.setdefault((blob.kind, blob.id), set()).add(blob)
    return model


def check(index: MemoryIndex, model: Model, asked: list[bytes]) -> None:
    told = list(index)
    assert len(told) == len(set(told))
    assert model_of(told) == model
    assert index.packs() >= {blob.pack for blob in told}
    for blob in {*asked, *(blob for _, blob in model)}:
        for kind in BlobType:
            places = index.locations(kind, blob)
            assert len(places) == len(set(places))
            assert set(places) == model.get((kind, blob), set())
            assert index.has(kind, blob) == ((kind, blob) in model)


@given(GROUPS, st.lists(MAKERS, min_size=5, max_size=5), st.lists(PLACES, max_size=10), st.lists(IDS, max_size=10))
def test_tables_and_additions(groups: list[list[BlobLocation]], makers: list, added: list, asked: list) -> None:
    index = MemoryIndex()
    index.add(added[::2])
    index.join([make(group) for make, group in zip(makers, groups, strict=False)])
    index.add(added[1::2])
    check(index, model_of([*added, *(blob for group in groups for blob in group)]), asked)


@given(GROUPS, st.lists(MAKERS, min_size=5, max_size=5), st.integers(8, 12))
def test_merged_tables(groups: list[list[BlobLocation]], makers: list, bits: int) -> None:
    tables: list[Table] = [make(group) for make, group in zip(makers, groups, strict=False)]
    merged = fixed(tables)
    assert len(merged) == sum(map(len, groups))
    assert model_of(list(all_locations(merged))) == model_of([blob for group in groups for blob in group])
    assert set(pack_ids(merged)) == {blob.pack for group in groups for blob in group}
    assert sum(map(len, merged.buckets(bits))) == 48 * len(merged)


class CachedIndex(RuleBasedStateMachine):
    """Jobs write and remove index files and spoil tables; each that opens finds what the index files say."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.cache = Path(self.folder.name)
        self.repository = Repository.init(memory_store(), PASSWORD, cost=CHEAP)
        self.files: dict[str, list[BlobLocation]] = {}
        self.sizes = patch.multiple(index_cache, _SMALL=4, _FACTOR=3)
        self.sizes.start()

    def teardown(self) -> None:
        if hasattr(self, "sizes"):
            self.sizes.stop()
            self.folder.cleanup()

    @rule(blobs=st.lists(PLACES, max_size=30))
    def add(self, blobs: list[BlobLocation]) -> None:
        self.files[self.repository.documents.save(FileType.INDEX, encode_index(blobs))] = blobs

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 99))
    def remove(self, which: int) -> None:
        name = list(self.files)[which % len(self.files)]
        self.repository.store.remove(FileType.INDEX, name)
        del self.files[name]

    @rule(which=st.integers(0, 99), where=st.integers(0, 1 << 16), bit=st.integers(0, 7))
    def spoil(self, which: int, where: int, bit: int) -> None:
        tables = sorted(self.cache.glob("*/*"), key=lambda path: path.stat().st_size)
        if tables:
            path = tables[which % len(tables)]
            data = bytearray(path.read_bytes())
            data[where % len(data)] ^= 1 << bit
            path.write_bytes(data)

    @rule()
    def open(self) -> None:
        with Repository.open(self.repository.store, PASSWORD, cache=self.cache) as repository:
            repository.load_index()
            check(repository.index, model_of([blob for blobs in self.files.values() for blob in blobs]), [])

    @invariant()
    def tables_are_few(self) -> None:
        assert len(list(self.cache.glob("*/*")) if hasattr(self, "cache") else ()) <= 6


TestCachedIndex = CachedIndex.TestCase
TestCachedIndex.settings = settings(max_examples=60, stateful_step_count=25)
