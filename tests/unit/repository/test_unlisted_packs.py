"""Packs that a lost writer stored and could not list any more: the next one finds them, and lists them."""

from __future__ import annotations

import os

import pytest

from snappy.errors import Unavailable
from snappy.repository.format import BlobType, blob_id
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from tests.support.engine import Interposed, flip, memory_store, new_repository, reopened

SMALL = Options(pack_size=1000, index_every=3600.0)
BLOBS = [os.urandom(1500) for _ in range(5)]


def lost_writer() -> Repository:
    """Each of the blobs fills a pack; no index lists any."""
    repository = new_repository(memory_store(Interposed(lambda method, path: None)), SMALL)
    for blob in BLOBS:
        repository.save_blob(BlobType.DATA, blob)
    repository._writer._packs.wait()
    assert len(repository.store.list(FileType.PACK)) == len(BLOBS)
    assert repository.store.list(FileType.INDEX) == []
    return repository


def test_what_they_hold_is_known_and_not_stored_again() -> None:
    next_one = reopened(lost_writer())
    assert not any(next_one.has_blob(BlobType.DATA, blob_id(blob)) for blob in BLOBS)
    assert next_one.load_unlisted().packs == len(BLOBS)
    assert [next_one.save_blob(BlobType.DATA, blob).new for blob in BLOBS] == [False] * len(BLOBS)


def test_the_next_index_lists_them_for_everybody() -> None:
    next_one = reopened(lost_writer())
    next_one.load_unlisted()
    next_one.flush()
    third = reopened(next_one)
    for blob in BLOBS:
        saved = third.save_blob(BlobType.DATA, blob)
        assert (saved.new, third.load_blob(BlobType.DATA, saved.id)) == (False, blob)
    assert third.load_unlisted().packs == 0


def test_a_pack_that_is_listed_is_not_read() -> None:
    repository = lost_writer()
    repository.flush()
    next_one, read = reopened(repository), []
    files = next_one.store._fs
    files.before = lambda method, path: read.append((method, path))
    assert next_one.load_unlisted().packs == 0
    assert [path for method, path in read if method == "cat_file"] == []


def test_one_that_is_damaged_is_left_alone() -> None:
    repository = lost_writer()
    name, size = repository.store.list(FileType.PACK)[0]
    flip(repository.store, f"data/{name[:2]}/{name}", size - 1)
    assert reopened(repository).load_unlisted().packs == len(BLOBS) - 1


def test_a_storage_that_fails_is_an_error() -> None:
    repository = lost_writer()
    next_one = reopened(repository)

    def fail(method: str, path: str) -> None:
        if "/data/" in path:
            raise TimeoutError

    next_one.store._fs.before = fail
    with pytest.raises(Unavailable):
        next_one.load_unlisted()
