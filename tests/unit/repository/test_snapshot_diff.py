"""What differs between two snapshots: what restic cannot be made to show (the rest is in tests/interop)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.repo import Repository
from snappy.repository.snapshot_diff import Change, SnapshotDiff
from tests.support import engine

DEEP = 1500


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


def file(repository: Repository, content: bytes, **more: int) -> Node:
    return Node(
        name=b"file", type="file", size=4, content=[repository.save_blob(BlobType.DATA, content).id], mtime_ns=1, **more
    )


def tree(repository: Repository, *nodes: Node) -> BlobId:
    return repository.save_tree(list(nodes)).id


def test_a_content_that_changed_alone_may_be_damage(repository: Repository) -> None:
    old = tree(repository, file(repository, b"good"))
    new = tree(repository, file(repository, b"evil"))
    touched = tree(repository, file(repository, b"evil", inode=7))
    repository.flush()
    assert list(SnapshotDiff(repository).changes(old, new)) == [Change("M?", b"/file")]
    assert list(SnapshotDiff(repository).changes(old, touched)) == [Change("M", b"/file")]
    assert list(SnapshotDiff(repository).changes(new, touched)) == []
    assert list(SnapshotDiff(repository, metadata=True).changes(new, touched)) == [Change("U", b"/file")]


def test_trees_may_be_deeper_than_python_calls_itself(repository: Repository) -> None:
    deep = [tree(repository, file(repository, content)) for content in (b"good", b"more!")]
    empty = tree(repository)
    for _ in range(DEEP):
        deep = [tree(repository, Node(name=b"d", type="dir", subtree=below)) for below in deep]
    repository.flush()
    path = b"/" + b"d/" * DEEP + b"file"
    assert list(SnapshotDiff(repository).changes(*deep)) == [Change("M?", path)]
    diff = SnapshotDiff(repository)
    assert list(diff.changes(empty, deep[0]))[-1] == Change("+", path)
    assert (diff.added.dirs, diff.added.files, diff.added.data_blobs) == (DEEP, 1, 1)
    assert (diff.added.tree_blobs, diff.removed.tree_blobs) == (DEEP + 1, 1)
