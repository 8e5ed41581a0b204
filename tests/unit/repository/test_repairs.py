"""Repairs: what they name, what a dry run leaves alone, what a death in the middle costs, and who may not delete."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import pytest

from snappy.errors import AccessDenied, Damaged, NotFound, SnapshotNotFound, Unavailable
from snappy.repository.entries import Node
from snappy.repository.findings import Kind
from snappy.repository.format import BlobLocation, BlobType, PackId, blob_id
from snappy.repository.index import encode_index
from snappy.repository.index_repair import IndexRepair
from snappy.repository.mending import Repaired
from snappy.repository.pack_repair import PackRepair
from snappy.repository.repo import Repository
from snappy.repository.snapshot_repair import SnapshotRepair
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from tests.support import plants, survivors
from tests.support.engine import PASSWORD, Interposed, memory_store, new_repository
from tests.support.plants import Blob, Files, Oracle, Original, files_of, pack_path, store_of
from tests.support.snapshots import save_snapshot

PLANTED = 8


@functools.cache
def original() -> Original:
    return plants.make()


@functools.cache
def damaged() -> list[Files]:
    """Some plants of which a check finds something."""
    oracles = (Oracle(original(), plants.planted(original(), seed).files) for seed in itertools.count())
    return [oracle.files for oracle in itertools.islice(filter(_is_damaged, oracles), PLANTED)]


def _is_damaged(oracle: Oracle) -> bool:
    return oracle.opens and any(kind != "key-damaged" for kind, _ in oracle.expected().damage)


def repaired(store: Store, make: Callable[[Repository], Repaired]) -> Repaired:
    with Repository.open(store, PASSWORD) as repository:
        return make(repository)


def index_repaired(store: Store, *, dry_run: bool = False, read_all_packs: bool = False) -> Repaired:
    return repaired(store, lambda repo: IndexRepair(repo, dry_run=dry_run).repair(read_all_packs=read_all_packs))


def packs_repaired(store: Store, *packs: PackId, dry_run: bool = False) -> Repaired:
    return repaired(store, lambda repo: PackRepair(repo, dry_run=dry_run).repair(packs))


def snapshots_repaired(store: Store, *ids: str, dry_run: bool = False, forget: bool = False) -> Repaired:
    return repaired(store, lambda repo: SnapshotRepair(repo, dry_run=dry_run, forget=forget).repair(ids))


def kinds(done: Repaired) -> set[Kind]:
    return {finding.kind for finding in done.findings}


def without(*paths: str) -> Files:
    return {path: data for path, data in original().files.items() if path not in paths}


def pack_of(kind: BlobType) -> str:
    """The one with most blobs of that kind."""
    packs = original().packs
    return max(packs, key=lambda pack: sum(place.blob[0] is kind for place in packs[pack]))


def flipped(pack: str, position: int) -> Files:
    data = bytearray(original().files[pack_path(pack)])
    data[position] ^= 1
    return original().files | {pack_path(pack): bytes(data)}


# ---- nothing to do ---------------------------------------------------------------------------------------------------


def test_what_is_whole_stays_as_it_is() -> None:
    store = store_of(original().files)
    for done in (index_repaired(store, read_all_packs=True), packs_repaired(store), snapshots_repaired(store)):
        assert (done.written, done.removed, done.findings, done.lost) == (0, 0, [], [])
    assert files_of(store) == original().files


@pytest.mark.parametrize("number", range(PLANTED))
def test_a_dry_run_changes_nothing(number: int) -> None:
    store = store_of(damaged()[number])
    before = files_of(store)
    index_repaired(store, dry_run=True)
    with suppress(Damaged):  # an index that was not repaired
        packs_repaired(store, dry_run=True)
        snapshots_repaired(store, dry_run=True, forget=True)
    assert files_of(store) == before


# ---- the index -------------------------------------------------------------------------------------------------------


def test_without_any_index_all_packs_are_listed_again() -> None:
    store = store_of(without(*original().of("index")))
    done = index_repaired(store)
    assert kinds(done) == {Kind.PACK_UNLISTED}
    assert (done.written, done.finding_count) == (1, len(original().packs))
    assert survivors.check(store).findings == []


def lied_to(store: Store) -> BlobLocation:
    """Have the index list another blob in the place of one, which lies nowhere else."""
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        places = list(repository.index)
        lie = next(place for place in places if len(repository.locations(place.kind, place.id)) == 1)
        for name, _ in store.list(FileType.INDEX):
            store.remove(FileType.INDEX, name)
        told = [place._replace(id=blob_id(b"a lie")) if place == lie else place for place in places]
        repository.documents.save(FileType.INDEX, encode_index(sorted(told, key=lambda place: place[2:4])))
    return lie


def test_an_index_that_lies_is_found_where_all_headers_are_read() -> None:
    store = store_of(original().files)
    lie = lied_to(store)
    assert index_repaired(store).findings == []
    done = index_repaired(store, read_all_packs=True)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_LISTING, lie.pack.hex())]
    assert survivors.check(store).findings == []


def test_a_pack_that_nobody_lists_and_nobody_can_read_is_named() -> None:
    pack = pack_of(BlobType.DATA)
    lists = [path for path in original().of("index") if pack in original().lists[path.rpartition("/")[2]]]
    files = {path: data for path, data in flipped(pack, -1).items() if path not in lists}
    done = index_repaired(store_of(files))
    assert (Kind.PACK_LOST, pack) in [(finding.kind, finding.id) for finding in done.findings]


# ---- packs -----------------------------------------------------------------------------------------------------------


def test_of_a_damaged_pack_all_but_the_damaged_blob_is_saved() -> None:
    pack = pack_of(BlobType.DATA)
    hurt = original().packs[pack][0]
    store = store_of(flipped(pack, hurt.offset))
    copies = [place for places in original().packs.values() for place in places if place.blob == hurt.blob]
    done = packs_repaired(store)
    lost = [finding.id for finding in done.findings if finding.kind is Kind.BLOB_LOST]
    assert lost == ([] if len(copies) > 1 else [hurt.blob[1].hex()])
    assert (Kind.PACK_CHANGED, pack) in [(finding.kind, finding.id) for finding in done.findings]
    assert not store.exists(FileType.PACK, pack)
    assert done.written == 1


def test_only_the_pack_that_is_named_is_repaired() -> None:
    one, other = sorted(original().packs)[:2]
    store = store_of(flipped(one, 0) | {pack_path(other): flipped(other, 0)[pack_path(other)]})
    packs_repaired(store, bytes.fromhex(one))
    assert not store.exists(FileType.PACK, one)
    assert {finding.id for finding in survivors.check(store).findings if finding.kind is Kind.PACK_CHANGED} == {other}


def test_a_whole_pack_that_is_named_moves() -> None:
    pack = pack_of(BlobType.TREE)
    store = store_of(original().files)
    assert packs_repaired(store, bytes.fromhex(pack)).findings == []
    assert not store.exists(FileType.PACK, pack)
    assert survivors.check(store).findings == []


def test_what_only_a_packs_own_header_lists_is_saved_too() -> None:
    store = store_of(original().files)
    lie = lied_to(store)
    done = packs_repaired(store, lie.pack)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.BLOB_LOST, blob_id(b"a lie").hex())]
    assert survivors.check(store).findings == []


def test_a_pack_that_nobody_knows() -> None:
    with pytest.raises(NotFound):
        packs_repaired(store_of(original().files), b"\1" * 32)


def test_packs_are_not_repaired_by_half_an_index() -> None:
    files = original().files | {original().of("index")[0]: b"damaged"}
    with pytest.raises(Damaged) as caught:
        packs_repaired(store_of(files))
    assert "repair index" in caught.value.hint


# ---- snapshots -------------------------------------------------------------------------------------------------------


def test_without_forget_the_old_snapshot_stays_beside_the_new_one() -> None:
    store = store_of(without(pack_path(pack_of(BlobType.DATA))))
    index_repaired(store)
    before = {name for name, _ in store.list(FileType.SNAPSHOT)}
    done = snapshots_repaired(store)
    with Repository.open(store, PASSWORD) as repository:
        new = [one for one in repository.snapshots() if one.id not in before]
    assert len(new) == done.written > 0
    assert {one.original for one in new} <= before <= {name for name, _ in store.list(FileType.SNAPSHOT)}
    assert all(one.tags == ["repaired"] for one in new)
    assert done.lost_count == len(done.lost) > 0
    assert snapshots_repaired(store).written == 0  # they are there


def test_what_is_lost_is_named_by_its_path() -> None:
    made = new_repository()
    with made as repository:
        there = repository.save_blob(BlobType.DATA, b"there").id
        file = Node(name=b"f\xff", type="file", size=10, content=[there, b"\1" * 32])
        below = repository.save_tree([file, Node(name=b"e", type="dir", subtree=b"\2" * 32)])
        root = repository.save_tree([Node(name=b"below", type="dir", subtree=below.id)])
        repository.flush()
        name = save_snapshot(repository, root.id)
    done = snapshots_repaired(made.store, forget=True)
    assert sorted(problem.path for problem in done.lost) == [b"/below/e", b"/below/f\xff"]
    assert kinds(done) == {Kind.TREE_MISSING}
    assert survivors.shapes_in(made.store, {there: b"there"}) == {name: {b"below": {b"e": {}, b"f\xff": (5, [there])}}}


def test_what_only_others_understand_stays() -> None:
    made = new_repository()
    with made as repository:
        node = {"name": "f", "type": "file", "mode": 420, "content": ["01" * 32], "generic_attributes": {"x": [1, "é"]}}
        other = {"name": "o", "type": "file", "unheard_of": None, "content": None}
        root = repository.save_blob(BlobType.TREE, msgspec.json.encode({"nodes": [node, other]}) + b"\n")
        repository.flush()
        save_snapshot(repository, root.id)
    snapshots_repaired(made.store, forget=True)
    with Repository.open(made.store, PASSWORD) as repository:
        tree = repository.find_snapshot("latest").tree_id
        repository.load_index()
        nodes = msgspec.json.decode(repository.load_blob(BlobType.TREE, tree))["nodes"]
    assert nodes == [node | {"content": []}, other]


def test_a_tree_of_any_depth() -> None:
    made = new_repository()
    with made as repository:
        tree = repository.save_tree([Node(name=b"f", type="file", size=1, content=[b"\1" * 32])]).id
        for _ in range(1100):
            tree = repository.save_tree([Node(name=b"d", type="dir", subtree=tree)]).id
        repository.flush()
        save_snapshot(repository, tree)
    done = snapshots_repaired(made.store, forget=True)
    assert [problem.path for problem in done.lost] == [b"/d" * 1100 + b"/f"]
    assert survivors.check(made.store).damage == 0


def test_a_snapshot_without_a_root_goes_only_if_it_is_named() -> None:
    made = new_repository()
    with made as repository:
        name = save_snapshot(repository, b"\1" * 32)
    assert kinds(snapshots_repaired(made.store, forget=True)) == {Kind.TREE_MISSING, Kind.SNAPSHOT_LOST}
    assert kinds(snapshots_repaired(made.store, name[:10])) == {Kind.TREE_MISSING, Kind.SNAPSHOT_LOST}
    assert made.store.exists(FileType.SNAPSHOT, name)
    assert snapshots_repaired(made.store, name[:10], forget=True).removed == 1
    assert not made.store.exists(FileType.SNAPSHOT, name)


def test_a_snapshot_that_nobody_knows() -> None:
    with pytest.raises(SnapshotNotFound):
        snapshots_repaired(store_of(original().files), "abcdef0123")


def test_only_the_snapshot_that_is_named_is_repaired() -> None:
    of_data = [name for name, places in original().packs.items() if all(_is_data(place.blob) for place in places)]
    store = store_of(without(*map(pack_path, of_data)))
    index_repaired(store)
    assert snapshots_repaired(store, dry_run=True).written == len(original().roots)
    assert snapshots_repaired(store, next(iter(original().roots))).written == 1


def _is_data(blob: Blob) -> bool:
    return blob[0] is BlobType.DATA


# ---- death and rights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(PLANTED))
def test_a_death_at_any_write_costs_nothing(number: int) -> None:
    files = damaged()[number]
    expected = survivors.surviving_snapshots(Oracle(original(), files))
    survived = writes = 0
    while survived <= writes:
        store, writes = _dying(files, survived)
        survivors.repair_all(store)
        assert survivors.shapes_in(store, original().contents) == expected, survived
        assert {one.kind for one in survivors.check(store).findings if one.is_damage} <= {Kind.KEY_DAMAGED}
        survived += 1
    assert survived > 1


def _dying(files: Files, number: int) -> tuple[Store, int]:
    """The store after a repair that died after so many writes, and how many it tried."""
    writes = 0

    def die(method: str, _path: str) -> None:
        nonlocal writes
        if method in ("pipe_file", "rm_file"):
            writes += 1
            if writes > number:
                raise Unavailable("dead")

    store = _interposed(files, die)
    with suppress(Unavailable):
        survivors.repair_all(store)
    assert isinstance(store._fs, Interposed)
    store._fs.before = lambda _method, _path: None
    return store, writes


def _interposed(files: Files, before: Callable[[str, str], None]) -> Store:
    fs = Interposed(lambda _method, _path: None)
    for path, data in files.items():
        fs.pipe_file(f"/repo/{path}", data)
    fs.before = before
    return memory_store(fs)


def test_who_may_not_delete_adds_what_is_missing_and_names_what_stays() -> None:
    def refuse(method: str, _path: str) -> None:
        if method == "rm_file":
            raise AccessDenied("append-only")

    pack = pack_of(BlobType.DATA)
    hurt = original().packs[pack][0]
    store = _interposed(flipped(pack, hurt.offset), refuse)
    index_repaired(store)
    done = packs_repaired(store)
    assert Kind.INDEX_LEFT in kinds(done)
    assert store.exists(FileType.PACK, pack)
    before = len(store.list(FileType.INDEX)), len(store.list(FileType.PACK))
    again = packs_repaired(store)
    assert (len(store.list(FileType.INDEX)), len(store.list(FileType.PACK))) == before  # it does not grow
    assert (again.written, again.removed) == (0, 0)
    with Repository.open(store, PASSWORD) as repository:
        repository.load_index()
        for place in original().packs[pack][1:]:
            assert repository.load_blob(*place.blob)


def test_a_successor_says_what_it_was() -> None:
    made = new_repository()
    with made as repository:
        root = repository.save_tree([Node(name=b"f", type="file", size=1, content=[b"\1" * 32])])
        repository.flush()
        old = Snapshot(
            time=datetime(2026, 2, 3, tzinfo=UTC), tree=root.id.hex(), paths=["/x"], hostname="here", tags=["a"]
        )
        name = repository.save_snapshot(old)
    assert snapshots_repaired(made.store, forget=True).removed == 1
    with Repository.open(made.store, PASSWORD) as repository:
        (new,) = repository.snapshots()
    assert msgspec.structs.replace(new, tree=old.tree, original=None, id="") == msgspec.structs.replace(old, id="")
    assert new.original == name
