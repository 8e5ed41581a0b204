from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import msgspec
import pytest

from snappy.errors import Damaged, RepositoryExists, RepositoryLocked, WrongPassword
from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.locks import LockFile
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, OWNER, PASSWORD, flip, new_repository, reopened

NODES = [Node(name=b"file", type="file", content=[b"\x01" * 32], size=3), Node(name=b"pipe", type="fifo")]


def test_a_backup_and_its_restore_on_disk(tmp_path: Path) -> None:
    store = Store(fsspec.filesystem("file"), str(tmp_path / "deep" / "repository"))
    data = os.urandom(3 << 20)
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository, repository.lock(owner=OWNER, settle=0):
        content = [repository.save_blob(BlobType.DATA, part).id for part in repository.chunks(io.BytesIO(data))]
        root = repository.save_tree([Node(name=b"file", type="file", size=len(data), content=content)])
        repository.flush()
        repository.save_snapshot(Snapshot(time=datetime.now(UTC), tree=root.id.hex(), paths=["/file"]))
    with Repository.open(store, PASSWORD) as again:
        snapshot = again.find_snapshot("latest")
        again.load_index()
        (node,) = again.load_tree(snapshot.tree_id)
        assert b"".join(again.load_blob(BlobType.DATA, blob) for blob in node.content or ()) == data
    assert sorted(path.name for path in (tmp_path / "deep" / "repository").iterdir()) == [
        "config",
        "data",
        "index",
        "keys",
        "locks",
        "snapshots",
    ]


def test_a_second_process_finds_what_was_flushed_and_no_more() -> None:
    repository = new_repository()
    kept = repository.save_tree(NODES)
    repository.flush()
    lost = repository.save_blob(BlobType.DATA, b"never flushed")
    again = reopened(repository)
    assert again.id == repository.id
    assert again.has_blob(BlobType.TREE, kept.id)
    assert again.load_tree(kept.id) == NODES
    assert not again.has_blob(BlobType.DATA, lost.id)
    assert not again.save_tree(NODES).new
    assert again.save_blob(BlobType.DATA, b"never flushed").new


def test_every_pack_describes_what_the_index_says_of_it() -> None:
    repository = new_repository()
    for number in range(100):
        repository.save_blob(BlobType.DATA, bytes([number]) * number)
    repository.flush()
    for name, size in repository.store.list(FileType.PACK):
        pack = bytes.fromhex(name)
        blobs = [blob.in_pack(pack) for blob in repository.pack_blobs(pack, size)]
        assert blobs == sorted((blob for blob in repository.index if blob.pack == pack), key=lambda blob: blob.offset)


def test_what_was_saved_before_workers_take_the_files_is_sent_off() -> None:
    repository = new_repository()
    early = repository.save_blob(BlobType.DATA, b"early")
    repository.leave_files()
    deadline = time.monotonic() + 10
    while not repository.index.has(BlobType.DATA, early.id):
        assert time.monotonic() < deadline, "it was not sent off"
        time.sleep(0.01)
    late = repository.save_blob(BlobType.DATA, b"late")
    assert not repository.index.has(BlobType.DATA, late.id)
    repository.flush()
    again = reopened(repository)
    assert [again.load_blob(BlobType.DATA, one.id) for one in (early, late)] == [b"early", b"late"]


def test_several_index_files_are_one_index() -> None:
    repository = new_repository()
    for number in range(5):
        repository.save_blob(BlobType.DATA, bytes([number]))
        repository.flush()
    assert len(repository.store.list(FileType.INDEX)) == 5
    again = reopened(repository)
    again.load_index()
    assert set(again.index) == set(repository.index)


def test_superseded_index_files_are_passed_over() -> None:
    repository = new_repository()
    old = repository.save_blob(BlobType.DATA, b"old")
    repository.flush()
    ((name, _),) = repository.store.list(FileType.INDEX)
    kept = {"packs": [], "supersedes": [name]}
    repository.documents.save(FileType.INDEX, json.dumps(kept).encode())
    assert not reopened(repository).has_blob(BlobType.DATA, old.id)


def test_a_damaged_index_is_told() -> None:
    repository = new_repository()
    repository.save_blob(BlobType.DATA, b"x")
    repository.flush()
    ((name, _),) = repository.store.list(FileType.INDEX)
    flip(repository.store, f"index/{name}", 40)
    with pytest.raises(Damaged, match=name[:8]):
        reopened(repository)


def test_passwords() -> None:
    repository = new_repository()
    name = repository.keys(CHEAP).add("second")
    assert Repository.open(repository.store, "second").key_name == name
    assert Repository.open(repository.store, PASSWORD).key_name == repository.key_name
    with pytest.raises(WrongPassword):
        Repository.open(repository.store, "third")
    with pytest.raises(RepositoryExists):
        Repository.init(repository.store, PASSWORD, cost=CHEAP)


def test_each_repository_cuts_files_elsewhere() -> None:
    data = os.urandom(12 << 20)
    lengths = [
        [len(part) for part in repository.chunks(io.BytesIO(data))]
        for repository in (new_repository(), new_repository())
    ]
    assert lengths[0] != lengths[1]


def test_nothing_readable_lies_in_the_store() -> None:
    repository = new_repository()
    marker = os.urandom(64)
    repository.save_blob(BlobType.DATA, marker)
    repository.save_tree([Node(name=marker.hex().encode(), type="file", link_target=marker)])
    repository.flush()
    repository.save_snapshot(Snapshot(time=datetime.now(UTC), tree="0" * 64, paths=[marker.hex()]))
    fs = repository.store._fs
    stored = b"".join(fs.cat_file(path) for path in fs.find("/repo"))
    assert len(stored) > 64
    assert marker not in stored
    assert marker.hex().encode() not in stored


def test_the_lock_guards_what_is_written_within_it() -> None:
    repository = new_repository()
    with repository.lock(owner=OWNER, settle=0) as lock:
        repository.store.list(FileType.LOCK)
        lock._refreshed_at = datetime(2000, 1, 1, tzinfo=UTC)
        repository.save_blob(BlobType.DATA, b"x")
        with pytest.raises(Exception, match="lost"):
            repository.flush()
        with pytest.raises(Exception, match="lost"):
            repository.save_snapshot(Snapshot(time=datetime.now(UTC), tree="0" * 64, paths=[]))
    assert repository.store.list(FileType.INDEX) == repository.store.list(FileType.SNAPSHOT) == []


def test_close_may_be_called_twice() -> None:
    repository = new_repository()
    repository.close()
    repository.close()


def save_a_snapshot(repository: Repository) -> object:
    return repository.save_snapshot(Snapshot(time=datetime.now(UTC), tree="00" * 32, paths=[]))


WRITES: list[Callable[[Repository], object]] = [
    lambda repository: repository.save_blob(BlobType.DATA, b"data"),
    lambda repository: repository.save_blobs(BlobType.DATA, [(bytes(32), b"data")]),
    lambda repository: repository.claim_blobs(BlobType.DATA, [(bytes(32), 1)]),
    lambda repository: repository.save_apart(b"data"),
    save_a_snapshot,
]


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_before_the_lock_is_looked_at_again(write: Callable[[Repository], object]) -> None:
    with new_repository() as repository, repository.lock(owner=OWNER, settle=0, settle_later=True):
        left = msgspec.json.encode(LockFile(time=datetime.now(UTC), exclusive=True, hostname="h", username="u", pid=5))
        repository.documents.save(FileType.LOCK, left)
        for _ in range(2):
            with pytest.raises(RepositoryLocked):
                write(repository)
        repository.close()
        assert repository.store.list(FileType.PACK) == repository.store.list(FileType.SNAPSHOT) == []


def read_what_is_gone(repository: Repository) -> None:
    exclusive = LockFile(time=datetime.now(UTC), exclusive=True, hostname="h", username="u", pid=5)
    with repository.lock(owner=OWNER, settle=0, settle_later=True):
        repository.documents.save(FileType.LOCK, msgspec.json.encode(exclusive))
        repository.load_blob(BlobType.DATA, bytes(32))


def test_what_cannot_be_read_because_another_deletes_it_is_locked() -> None:
    with new_repository() as repository, pytest.raises(RepositoryLocked):
        read_what_is_gone(repository)
