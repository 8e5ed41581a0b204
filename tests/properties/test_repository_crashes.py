"""Whoever writes may die between any two writes to the store: what is there afterwards is whole."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from snappy.errors import NotARepository, Unavailable
from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType
from tests.support.engine import CHEAP, OWNER, PASSWORD, PrivateMemory, memory_store

OPTIONS = Options(pack_size=20_000, index_every=0.0, compression=None)
START = datetime(2026, 1, 1, tzinfo=UTC)


def back_up(repository: Repository, number: int) -> None:
    """A snapshot of twelve files, of which a third differ from those of the number before."""
    repository.load_index()
    with repository.lock(owner=OWNER, settle=0):
        nodes = []
        for file in range(12):
            data = random.Random(file if file % 3 else 1000 * number + file).randbytes(7000)
            blob = repository.save_blob(BlobType.DATA, data)
            nodes.append(Node(name=b"%02d" % file, type="file", size=len(data), content=[blob.id]))
        root = repository.save_tree(nodes)
        repository.flush()
        time = START + timedelta(days=number)
        repository.save_snapshot(Snapshot(time=time, tree=root.id.hex(), paths=["/"]))


def work(fs: PrivateMemory) -> None:
    """A repository is made, and two backups into it."""
    store = memory_store(fs)
    try:
        repository = Repository.open(store, PASSWORD, options=OPTIONS)
    except NotARepository:
        repository = Repository.init(store, PASSWORD, cost=CHEAP, options=OPTIONS)
    with repository:
        for number in range(len(repository.snapshots(strict=True)), 2):
            back_up(repository, number)


def check(fs: PrivateMemory) -> int:
    """All that is stored is whole: every pack listed is there, every snapshot can be read. Returns their number."""
    with Repository.open(memory_store(fs), PASSWORD) as repository:
        snapshots = repository.snapshots(strict=True)
        repository.load_index()
        present = {bytes.fromhex(name) for name, _ in repository.store.list(FileType.PACK)}
        assert repository.index.packs() <= present
        for location in repository.index:
            repository.load_blob(location.kind, location.id)
        for snapshot in snapshots:
            nodes = repository.load_tree(snapshot.tree_id)
            assert sum(len(repository.load_blob(BlobType.DATA, (node.content or [b""])[0])) for node in nodes) == 84_000
        return len(snapshots)


class Dying(PrivateMemory):
    """Out of reach from the write numbered ``fatal`` on; with ``unheard``, that one still happens, and nobody hears."""

    def __init__(self, fatal: int, unheard: bool) -> None:
        super().__init__()
        self._fatal, self._unheard = fatal, unheard
        self._counting = threading.Lock()
        self._writes = 0
        self.died = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        self._write(lambda: PrivateMemory.pipe_file(self, path, value, mode=mode))

    def rm_file(self, path: str) -> None:
        self._write(lambda: PrivateMemory.rm_file(self, path))

    def recover(self) -> None:
        self._fatal = 1_000_000

    def _write(self, write: Callable[[], None]) -> None:
        with self._counting:
            self._writes += 1
            number = self._writes
        if number < self._fatal:
            return write()
        self.died = True
        if self._unheard and number == self._fatal:
            write()
        raise TimeoutError


@pytest.mark.parametrize("unheard", [False, True])
def test_a_death_at_any_write(unheard: bool) -> None:
    for fatal in range(1, 200):
        fs = Dying(fatal, unheard)
        with suppress(Unavailable):  # the last write lets go of a lock: its failure is no failure of the backup
            work(fs)
        if not fs.died:
            break
        fs.recover()
        if fs.exists("/repo/config"):
            check(fs)
        work(fs)
        assert check(fs) == 2
    assert 15 < fatal < 199  # on a busy machine packs wait for one another, and share an index file
