"""What of the plants' repository can survive damage: computed from the bytes that are left, with no help from what
repairs."""

from __future__ import annotations

from typing import Any

from snappy.repository.checker import Checker, CheckResult
from snappy.repository.format import BlobId, BlobType
from snappy.repository.index_repair import IndexRepair
from snappy.repository.pack_repair import PackRepair
from snappy.repository.portion import EVERYTHING
from snappy.repository.repo import Repository
from snappy.repository.snapshot_repair import SnapshotRepair
from snappy.repository.store import FileType, Store
from tests.support.engine import PASSWORD
from tests.support.plants import Blob, Oracle, pack_path

Shape = dict[bytes, Any]
"""A directory: by name, another one, a file's size and blobs, or a type."""


def surviving_blobs(oracle: Oracle) -> set[Blob]:
    """Those of which a copy is whole in a pack, where the index or the pack's own header says."""
    original, found = oracle.original, set()
    for name, data in oracle.files.items():
        pack = name.rpartition("/")[2]
        if not name.startswith("data/") or name != pack_path(pack):
            continue
        if pack in oracle.listed:
            found |= {place.blob for place in original.packs[pack] if oracle.is_whole(pack, place)}
        for other, places in original.packs.items():
            was, end = original.files[pack_path(other)], original.blobs_size(other)
            if len(data) == len(was) and data[end:] == was[end:]:
                ranges = [(place.blob, slice(place.offset, place.offset + place.length)) for place in places]
                found |= {blob for blob, there in ranges if data[there] == was[there]}
    return found


def surviving_snapshots(oracle: Oracle) -> dict[str, Shape]:
    """By their old ids. One whose root is lost is lost."""
    blobs = surviving_blobs(oracle)
    roots = {name: tree for name, tree in oracle.original.roots.items() if oracle.is_same(f"snapshots/{name}")}
    return {name: _shape(oracle, tree, blobs) for name, tree in roots.items() if (BlobType.TREE, tree) in blobs}


def _shape(oracle: Oracle, tree: BlobId, blobs: set[Blob]) -> Shape:
    if (BlobType.TREE, tree) not in blobs:
        return {}
    found: Shape = {}
    for node in oracle.original.trees[tree]:
        if node.subtree:
            found[node.name] = _shape(oracle, node.subtree, blobs)
        elif node.type == "file":
            content = [blob for blob in node.content or () if (BlobType.DATA, blob) in blobs]
            found[node.name] = sum(len(oracle.original.contents[blob]) for blob in content), content
        else:
            found[node.name] = node.type
    return found


def shapes_in(store: Store, contents: dict[BlobId, bytes]) -> dict[str, Shape]:
    """What the snapshots of a repository hold, by their old ids; every blob is read."""

    def shape(tree: BlobId) -> Shape:
        found: Shape = {}
        for node in repository.load_tree(tree):
            if node.subtree:
                found[node.name] = shape(node.subtree)
            elif node.type == "file":
                found[node.name] = node.size, node.content
                for blob in node.content or ():
                    assert repository.load_blob(BlobType.DATA, blob) == contents[blob]
            else:
                found[node.name] = node.type
        return found

    with Repository.open(store, PASSWORD) as repository:
        snapshots = repository.snapshots(strict=True)
        repository.load_index()
        return {one.original or one.id: shape(one.tree_id) for one in snapshots}


def repair_all(store: Store) -> None:
    """As somebody would who wants a repository without damage, whatever it costs."""
    with Repository.open(store, PASSWORD) as repository:
        IndexRepair(repository).repair()
    with Repository.open(store, PASSWORD) as repository:
        PackRepair(repository).repair()
    with Repository.open(store, PASSWORD) as repository:
        everything = [name for name, _ in store.list(FileType.SNAPSHOT)]
        SnapshotRepair(repository, forget=True).repair(everything)


def check(store: Store) -> CheckResult:
    with Repository.open(store, PASSWORD) as repository:
        return Checker(repository).check(EVERYTHING)
