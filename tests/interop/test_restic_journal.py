"""What a backup sets apart for its next attempt: restic neither minds nor keeps it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, PASSWORD
from tests.support.restic import Restic

CONTENT = os.urandom(3000)
RECORDS = 3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(fsspec.filesystem("file"), str(tmp_path / "repository"))


@pytest.fixture
def restic(restic_program: str, tmp_path: Path) -> Restic:
    return Restic(restic_program, tmp_path / "repository", PASSWORD, tmp_path / "cache")


def lose_a_backup(store: Store) -> None:
    """One that stored a file's content and some records, and listed nothing."""
    with Repository.init(store, PASSWORD, cost=CHEAP, options=Options(pack_size=2000)) as repository:
        repository.save_blob(BlobType.DATA, CONTENT)
        for number in range(RECORDS):
            repository.save_apart(b"record %d" % number)
        repository._writer._packs.wait()


def finish_it(store: Store) -> None:
    with Repository.open(store, PASSWORD) as repository:
        found = repository.load_unlisted()
        assert (found.packs, len(found.apart)) == (1, RECORDS)
        for apart in found.apart:
            repository.list_at_end(apart)
        repository.save_apart(b"one of its own")
        saved = repository.save_blob(BlobType.DATA, CONTENT)
        assert not saved.new
        node = Node(name=b"file", type="file", mode=0o600, size=len(CONTENT), content=[saved.id], mtime_ns=1)
        root = repository.save_tree([node])
        repository.flush()
        repository.save_snapshot(
            Snapshot(time=datetime(2026, 1, 2, tzinfo=UTC), tree=root.id.hex(), paths=["/"], hostname="h")
        )


def test_restic_finds_no_fault_and_prunes_it(store: Store, restic: Restic) -> None:
    lose_a_backup(store)
    finish_it(store)
    restic.check()
    assert len(store.list(FileType.PACK)) == 1 + RECORDS + 1 + 1
    restic.run("prune", "--max-unused", "0")
    restic.check()
    assert len(store.list(FileType.PACK)) == 2
    assert restic.run("dump", "latest", "/file") == CONTENT
