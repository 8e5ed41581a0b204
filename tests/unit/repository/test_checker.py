"""A check finds each kind of damage, names it rightly, and imagines none."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import pytest

from snappy.errors import Damaged, JobCancelled, NotFound, Unavailable
from snappy.repository import pack_proof
from snappy.repository.checker import Checker, CheckResult
from snappy.repository.crypto import OVERHEAD, SealingKey
from snappy.repository.entries import Node
from snappy.repository.findings import Kind
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, blob_id
from snappy.repository.index import encode_index
from snappy.repository.pack import FinishedPack, PackBuilder, PackMemory
from snappy.repository.pack_writer import Options
from snappy.repository.portion import EVERYTHING, Portion
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, PASSWORD, Interposed, flip, memory_store, new_repository
from tests.support.snapshots import fill, save_snapshot


@pytest.fixture
def repository() -> Repository:
    made = new_repository(options=Options(pack_size=8000))
    fill(made)
    return made


def check(store: Store, portion: Portion | None = EVERYTHING, **more: Any) -> CheckResult:
    with Repository.open(store, PASSWORD) as repository:
        return Checker(repository, **more).check(portion)


def kinds(done: CheckResult) -> list[Kind]:
    assert len(done.findings) == done.damage + done.hints
    assert sum(finding.is_damage for finding in done.findings) == done.damage
    assert (done.failure() is not None) == bool(done.damage)
    return sorted({finding.kind for finding in done.findings}, key=lambda kind: kind.name)


def packs_of(repository: Repository, kind: BlobType) -> list[str]:
    return sorted({place.pack.hex() for place in repository.index if place.kind is kind})


def path_of(pack: str) -> str:
    return f"data/{pack[:2]}/{pack}"


def overwrite(store: Store, path: str, change: Callable[[bytes], bytes]) -> None:
    """Beside the store's back."""
    store._fs.pipe_file(f"/repo/{path}", change(store._fs.cat_file(f"/repo/{path}")))


def build(repository: Repository, *blobs: tuple[BlobId, bytes]) -> FinishedPack:
    """A pack in the store that holds these bytes under these ids; no index lists it."""
    builder = PackBuilder(PackMemory(MIB).take())
    for blob, data in blobs:
        builder.add(BlobType.DATA, blob, repository._master.seal(data), 0)
    pack = builder.finish(repository._master)
    repository.store.save(FileType.PACK, pack.id.hex(), pack.data)
    return pack


def list_it(repository: Repository, blobs: Iterable[BlobLocation]) -> str:
    """In an index file of its own."""
    return repository.documents.save(FileType.INDEX, encode_index(blobs))


# ---- what is whole ---------------------------------------------------------------------------------------------------


def test_a_whole_repository(repository: Repository) -> None:
    progress = Progress()
    done = check(repository.store, progress=progress)
    packs = repository.store.list(FileType.PACK)
    assert kinds(done) == []
    assert (done.snapshots, done.trees) == (1, 2)
    assert done.packs == done.packs_read == len(packs) >= 3
    assert done.bytes_read == progress.bytes_done == progress.bytes_total == sum(size for _, size in packs)


def test_an_empty_repository() -> None:
    done = check(new_repository().store)
    assert (kinds(done), done.snapshots, done.packs) == ([], 0, 0)


def test_a_tree_that_snapshots_share_is_read_once(repository: Repository) -> None:
    save_snapshot(repository, next(iter(repository.snapshots())).tree_id)
    done = check(repository.store)
    assert (done.snapshots, done.trees, done.damage) == (2, 2, 0)


def test_without_data_no_pack_is_read_whole(repository: Repository) -> None:
    (pack, *_) = packs_of(repository, BlobType.DATA)
    flip(repository.store, path_of(pack), 50)
    done = check(repository.store, None)
    assert (kinds(done), done.packs_read) == ([], 0)


def test_parts_read_each_pack_once(repository: Repository) -> None:
    done = [check(repository.store, Portion(part, 3)) for part in (1, 2, 3)]
    assert sum(part.packs_read for part in done) == done[0].packs


def test_what_a_backup_writes_meanwhile_is_not_missing() -> None:
    begun: list[str] = []

    def write_more(method: str, path: str) -> None:
        if method == "cat_file" and "/index/" in path and not begun:
            begun.append(path)
            with Repository.open(store, PASSWORD) as other:
                other.load_index()
                fill(other, b"other")

    fs = Interposed(lambda _method, _path: None)
    store = memory_store(fs)
    fill(new_repository(store))
    fs.before = write_more
    done = check(store)
    assert begun
    assert {finding.kind for finding in done.findings} == {Kind.PACK_UNLISTED}
    assert done.failure() is None


def test_bytes_that_are_harmed_on_their_way_once(repository: Repository) -> None:
    class Wrong(Store):
        harmed = 0

        def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
            data = super().load(kind, name, offset, length)
            if kind is FileType.PACK and offset == 0 and not Wrong.harmed:
                Wrong.harmed += 1
                return bytes([data[0] ^ 1]) + data[1:]
            return data

    assert kinds(check(Wrong(repository.store._fs, "/repo"))) == []
    assert Wrong.harmed == 1


def test_packs_are_read_in_parts_so_that_they_may_be_of_any_size(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(Store):
        lengths: ClassVar[list[int]] = []

        def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
            data = super().load(kind, name, offset, length)
            if kind is FileType.PACK:
                Counting.lengths.append(len(data))
            return data

    monkeypatch.setattr(pack_proof, "PART", 4000)
    done = check(Counting(repository.store._fs, "/repo"))
    assert kinds(done) == []
    assert max(Counting.lengths) <= 4000 < max(size for _, size in repository.store.list(FileType.PACK))
    assert sum(Counting.lengths) >= done.bytes_read


@pytest.mark.parametrize("part", [1000, 4000, 7000, 1 << 20])
def test_damage_is_found_wherever_a_pack_is_cut(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(pack_proof, "PART", part)
    (pack, *_) = packs_of(repository, BlobType.DATA)
    for place in [blob for blob in repository.index if blob.pack.hex() == pack]:
        for position in (place.offset, place.offset + place.length - 1):
            flip(repository.store, path_of(pack), position)
            (found,) = check(repository.store).findings
            flip(repository.store, path_of(pack), position)
            assert (found.kind, found.id) == (Kind.PACK_CHANGED, pack)
            assert f"damaged blobs in it: 1 ({place.id.hex()[:8]})" in found.message


# ---- packs -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_blob(repository: Repository) -> None:
    (pack, *_) = packs_of(repository, BlobType.DATA)
    flip(repository.store, path_of(pack), 50)
    done = check(repository.store)
    assert kinds(done) == [Kind.PACK_CHANGED]
    assert done.findings[0].id == pack
    assert "damaged blobs in it: 1" in done.findings[0].message
    failure = done.failure()
    assert isinstance(failure, Damaged)
    assert failure.hint == Kind.PACK_CHANGED.value.remedy
    assert pack[:8] in failure.message


@pytest.mark.parametrize("from_end", [1, 4, 5, 60])
def test_a_flipped_bit_in_a_header(repository: Repository, from_end: int) -> None:
    (pack, *_) = packs_of(repository, BlobType.DATA)
    flip(repository.store, path_of(pack), -from_end)
    assert kinds(check(repository.store)) == [Kind.PACK_CHANGED]


def test_a_pack_cut_short(repository: Repository) -> None:
    (pack, *_) = packs_of(repository, BlobType.DATA)
    overwrite(repository.store, path_of(pack), lambda data: data[:-1])
    for portion in (None, EVERYTHING):
        done = check(repository.store, portion)
        assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_SIZE, pack)]


def test_a_pack_that_is_gone(repository: Repository) -> None:
    (pack, *_) = packs_of(repository, BlobType.DATA)
    repository.store.remove(FileType.PACK, pack)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_MISSING, pack)]


def test_a_pack_of_trees_that_is_gone(repository: Repository) -> None:
    (pack,) = packs_of(repository, BlobType.TREE)
    repository.store.remove(FileType.PACK, pack)
    assert kinds(check(repository.store, None)) == [Kind.PACK_MISSING, Kind.TREE_DAMAGED]


def test_a_pack_that_goes_while_it_is_read(repository: Repository) -> None:
    class Going(Store):
        def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if kind is FileType.PACK and name == pack:
                raise NotFound("gone")
            return super().load(kind, name, offset, length)

    (pack, *_) = packs_of(repository, BlobType.DATA)
    assert kinds(check(Going(repository.store._fs, "/repo"))) == [Kind.PACK_MISSING]


def test_two_packs_exchanged(repository: Repository) -> None:
    one, other, *_ = packs_of(repository, BlobType.DATA)
    data = repository.store._fs.cat_file(f"/repo/{path_of(other)}")
    overwrite(repository.store, path_of(one), lambda _: data)
    found = {finding.id: finding.kind for finding in check(repository.store).findings}
    assert set(found) == {one}
    assert found[one] in (Kind.PACK_CHANGED, Kind.PACK_SIZE)


def test_a_header_that_says_otherwise_than_the_index(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"))
    list_it(repository, [next(pack.blobs())._replace(id=blob_id(b"other"))])
    assert kinds(check(repository.store, None)) == []
    assert kinds(check(repository.store)) == [Kind.PACK_LISTING]


def test_a_header_that_was_sealed_under_another_key(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"))
    other = PackBuilder(PackMemory(MIB).take())
    other.add(BlobType.DATA, blob_id(b"one"), repository._master.seal(b"one"), 0)
    foreign = other.finish(SealingKey.generate())
    repository.store.save(FileType.PACK, foreign.id.hex(), foreign.data)
    list_it(repository, [place._replace(pack=foreign.id) for place in pack.blobs()] + list(pack.blobs()))
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_HEADER, foreign.id.hex())]


def test_a_blob_that_was_sealed_under_a_wrong_name(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"), (blob_id(b"two"), b"three"))
    list_it(repository, pack.blobs())
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.BLOB_DAMAGED, blob_id(b"two").hex())]


# ---- index files -----------------------------------------------------------------------------------------------------


def test_a_pack_that_no_index_lists_is_a_hint(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"))
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_UNLISTED, pack.id.hex())]
    assert done.failure() is None


def test_a_pack_cut_in_two_by_index_files(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"), (blob_id(b"two"), b"two"))
    for blob in pack.blobs():
        list_it(repository, [blob])
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.PACK_LISTING, pack.id.hex())]


def test_a_pack_listed_alike_by_two_index_files_is_a_hint(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"), (blob_id(b"two"), b"two"))
    list_it(repository, pack.blobs())
    list_it(repository, list(pack.blobs())[::-1])
    assert kinds(check(repository.store)) == [Kind.PACK_REPEATED]


@pytest.mark.parametrize("shift", [-1, 1])
def test_blobs_with_gaps_or_over_one_another(repository: Repository, shift: int) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"), (blob_id(b"two"), b"two"))
    one, two = pack.blobs()
    list_it(repository, [one, two._replace(offset=two.offset + shift)])
    assert kinds(check(repository.store)) == [Kind.PACK_LISTING]


def test_an_index_that_says_another_length(repository: Repository) -> None:
    pack = build(repository, (blob_id(b"one"), b"one"))
    list_it(repository, [next(pack.blobs())._replace(length=len(b"longer") + OVERHEAD)])
    assert kinds(check(repository.store, None)) == [Kind.PACK_SIZE]
    assert kinds(check(repository.store)) == [Kind.PACK_LISTING]  # who read the pack knows that it is whole


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:], lambda _: b""]
)
def test_a_damaged_index_file_is_told_alone(repository: Repository, change: Callable[[bytes], bytes]) -> None:
    """What it listed is not known, rather than missing."""
    (name, _), *_ = repository.store.list(FileType.INDEX)
    overwrite(repository.store, f"index/{name}", change)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.INDEX_DAMAGED, name)]


def test_an_index_file_with_an_entry_that_cannot_be(repository: Repository) -> None:
    name = repository.documents.save(FileType.INDEX, b'{"packs":[{"id":"no id","blobs":[]}]}')
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.INDEX_DAMAGED, name)]


# ---- trees, snapshots, keys ------------------------------------------------------------------------------------------


def test_a_key_file_that_is_none(repository: Repository) -> None:
    name = hashlib.sha256(b"no key").hexdigest()
    repository.store.save(FileType.KEY, name, b"no key")
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.KEY_DAMAGED, name)]


def test_a_pack_on_the_shelf_of_another_is_nobodys(repository: Repository) -> None:
    """Nobody would look for it there, nor does its size say anything of the one in its place."""
    (pack, *_) = packs_of(repository, BlobType.DATA)
    shelf = "00" if pack[:2] != "00" else "01"
    repository.store._fs.pipe_file(f"/repo/data/{shelf}/{pack}", b"half of it")
    assert kinds(check(repository.store)) == []
    repository.store.remove(FileType.PACK, pack)
    assert kinds(check(repository.store, None)) == [Kind.PACK_MISSING]


def test_an_index_file_that_is_gone(repository: Repository) -> None:
    for name, _ in repository.store.list(FileType.INDEX):
        repository.store.remove(FileType.INDEX, name)
    assert kinds(check(repository.store)) == [Kind.PACK_UNLISTED, Kind.TREE_MISSING]


def test_a_tree_that_is_missing(repository: Repository) -> None:
    save_snapshot(repository, b"\1" * 32)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.TREE_MISSING, "01" * 32)]


def test_a_blob_that_is_missing_is_told_once(repository: Repository) -> None:
    nodes = [Node(name=b"%d" % number, type="file", size=1, content=[b"\1" * 32]) for number in range(2)]
    root = repository.save_tree(nodes)
    repository.flush()
    save_snapshot(repository, root.id)
    done = check(repository.store, None)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.BLOB_MISSING, "01" * 32)]
    assert root.id.hex() in done.findings[0].message


@pytest.mark.parametrize(
    "tree",
    [
        b"no JSON",
        b'{"nodes":[{"name":"a","type":"dir"}]}',
        b'{"nodes":[{"name":"","type":"symlink"}]}',
        b'{"nodes":[{"name":"a","type":"dir","subtree":"short"}]}',
        b'{"nodes":[{"name":"a","type":"file","content":["short"]}]}',
    ],
)
def test_a_tree_that_is_none(repository: Repository, tree: bytes) -> None:
    blob = repository.save_blob(BlobType.TREE, tree).id
    repository.flush()
    save_snapshot(repository, blob)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.TREE_DAMAGED, blob.hex())]


def test_a_damaged_snapshot(repository: Repository) -> None:
    ((name, _),) = repository.store.list(FileType.SNAPSHOT)
    flip(repository.store, f"snapshots/{name}", 20)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.SNAPSHOT_DAMAGED, name)]
    assert done.snapshots == 0


def test_a_damaged_key_of_another(repository: Repository) -> None:
    name = repository.keys(CHEAP).add("another")
    flip(repository.store, f"keys/{name}", 20)
    done = check(repository.store)
    assert [(finding.kind, finding.id) for finding in done.findings] == [(Kind.KEY_DAMAGED, name)]


# ---- what is no finding ----------------------------------------------------------------------------------------------


def test_a_store_that_does_not_answer_is_no_damage(repository: Repository) -> None:
    class Away(Store):
        def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
            if kind is FileType.PACK and length and length > 4000:
                raise Unavailable()
            return super().load(kind, name, offset, length)

    with pytest.raises(Unavailable):
        check(Away(repository.store._fs, "/repo"))


def test_a_check_can_be_cancelled_amid_its_packs(repository: Repository) -> None:
    def cancelled() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise JobCancelled()  # only a reader of packs has a thread of its own

    with pytest.raises(JobCancelled):
        check(repository.store, cancelled=cancelled)
