"""A flipped bit anywhere in a repository is told, or does no harm; nobody ever reads wrong bytes. A check that reads
the data finds every one: there is no byte in a repository that nothing vouches for."""

from __future__ import annotations

import functools
import io
import os
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from snappy.errors import SnappyError
from snappy.repository.checker import Checker
from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.portion import EVERYTHING
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import Store
from tests.support.engine import PASSWORD, PrivateMemory, memory_store, new_repository

FILES = {b"one": os.urandom(5000), b"two": b"compressible " * 5000, b"empty": b""}


@functools.cache
def pristine() -> dict[str, bytes]:
    """The files of a repository that holds FILES, by path."""
    repository = new_repository()
    nodes = []
    for name, data in FILES.items():
        content = [repository.save_blob(BlobType.DATA, part).id for part in repository.chunks(io.BytesIO(data))]
        nodes.append(Node(name=name, type="file", size=len(data), content=content))
    root = repository.save_tree(nodes)
    repository.flush()
    repository.save_snapshot(Snapshot(time=datetime(2026, 1, 1, tzinfo=UTC), tree=root.id.hex(), paths=["/"]))
    repository.close()
    fs = repository.store._fs
    return {path: fs.cat_file(path) for path in sorted(fs.find("/repo"))}


def copy_of(files: dict[str, bytes]) -> Store:
    fs = PrivateMemory()
    for path, data in files.items():
        fs.pipe_file(path, data)
    return memory_store(fs)


def read_everything(store: Store) -> dict[bytes, bytes]:
    with Repository.open(store, PASSWORD) as repository:
        snapshot = repository.find_snapshot("latest")
        repository.load_index()
        return {
            node.name: b"".join(repository.load_blob(BlobType.DATA, blob) for blob in node.content or ())
            for node in repository.load_tree(snapshot.tree_id)
        }


def told_or_harmless(files: dict[str, bytes]) -> bool:
    try:
        found = read_everything(copy_of(files))
    except SnappyError:
        return True
    assert found == FILES
    return False


def found_by_a_check(files: dict[str, bytes]) -> bool:
    try:
        with Repository.open(copy_of(files), PASSWORD) as repository:
            return Checker(repository).check(EVERYTHING).failure() is not None
    except SnappyError:
        return True  # a repository that does not open


def test_undamaged_it_is_read() -> None:
    assert read_everything(copy_of(pristine())) == FILES
    assert not found_by_a_check(pristine())


@settings(max_examples=300)
@given(st.data())
def test_a_flipped_bit(choice: st.DataObject) -> None:
    path = choice.draw(st.sampled_from(sorted(pristine())))
    position = choice.draw(st.integers(0, len(pristine()[path]) - 1))
    data = bytearray(pristine()[path])
    data[position] ^= 1 << choice.draw(st.integers(0, 7))
    damaged = pristine() | {path: bytes(data)}
    assert found_by_a_check(damaged)
    told = told_or_harmless(damaged)
    # Everything but a pack's header, which only a repair reads, is needed to read the files.
    assert told or "/data/" in path


@settings(max_examples=100)
@given(st.data())
def test_a_file_cut_short(choice: st.DataObject) -> None:
    path = choice.draw(st.sampled_from(sorted(pristine())))
    length = choice.draw(st.integers(0, len(pristine()[path]) - 1))
    damaged = pristine() | {path: pristine()[path][:length]}
    assert found_by_a_check(damaged)
    told = told_or_harmless(damaged)
    assert told or "/data/" in path


def test_a_file_that_is_gone() -> None:
    for path in pristine():
        damaged = {other: data for other, data in pristine().items() if other != path}
        assert told_or_harmless(damaged)
        # That there was another snapshot nobody can know.
        assert found_by_a_check(damaged) or "/snapshots/" in path


def test_two_files_exchanged() -> None:
    for kind in ("data", "snapshots", "index", "keys"):
        paths = [path for path in pristine() if f"/{kind}/" in path]
        foreign = next(data for path, data in pristine().items() if f"/{kind}/" not in path)
        assert paths
        assert told_or_harmless(pristine() | {paths[0]: foreign})
        assert found_by_a_check(pristine() | {paths[0]: foreign})
