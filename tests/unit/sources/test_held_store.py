"""A store under a hold: an operation that a lapsed grant interrupted is done again under the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.errors import AccessDenied, AttemptOver, JobCancelled, NotFound, Unavailable
from snappy.repository.store import FileType
from snappy.sources import held_store
from snappy.sources.held_store import TRIES, HeldStore

NAME = "ab" * 32


class Hold:
    """Counts what the store asks; after ``stop`` every check raises it."""

    def __init__(self) -> None:
        self.checks = 0
        self.lapsed: list[str] = []
        self.stop: Exception | None = None
        self.let_go: list[str] = []

    def grant(self) -> str:
        return f"grant-{len(self.lapsed)}"

    def check(self) -> None:
        self.checks += 1
        if self.stop:
            raise self.stop

    def lapse(self, grant: str) -> None:
        self.lapsed.append(grant)

    @contextmanager
    def letting_go(self, lock: str) -> Iterator[set[str]]:
        self.let_go.append(lock)
        yield {lock}


class Lapsing(MemoryFileSystem):
    """Finds the grant run out for the first ``times`` operations."""

    cachable = False
    times = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
        if self.times:
            self.times -= 1
            raise AttemptOver("the grant ran out")
        data: bytes = super().cat_file(path, start, end, **kwargs)
        return data


@pytest.fixture
def files() -> Lapsing:
    files = Lapsing()
    files.store = {}
    files.pseudo_dirs = [""]
    return files


def test_every_operation_asks_first(files: Lapsing) -> None:
    hold = Hold()
    store = HeldStore(files, "/r", hold)
    store.save(FileType.KEY, NAME, b"content")
    assert store.load(FileType.KEY, NAME) == b"content"
    assert store.exists(FileType.KEY, NAME)
    assert store.list(FileType.KEY) == [(NAME, 7)]
    store.remove(FileType.KEY, NAME)
    assert hold.checks == 5
    with pytest.raises(NotFound):
        store.load(FileType.KEY, NAME)


def test_a_lapsed_grant_is_waited_for_and_the_operation_done_again(files: Lapsing) -> None:
    hold = Hold()
    store = HeldStore(files, "/r", hold)
    store.save(FileType.KEY, NAME, b"content")
    files.times = 2
    assert store.load(FileType.KEY, NAME) == b"content"
    assert hold.lapsed == ["grant-0", "grant-1"]


def test_it_gives_up_in_the_end(files: Lapsing) -> None:
    hold = Hold()
    store = HeldStore(files, "/r", hold)
    store.save(FileType.KEY, NAME, b"content")
    files.times = TRIES + 1
    with pytest.raises(AttemptOver):
        store.load(FileType.KEY, NAME)
    assert len(hold.lapsed) == TRIES


def test_a_lock_can_be_let_go_of_when_the_work_has_to_stop(files: Lapsing) -> None:
    hold = Hold()
    store = HeldStore(files, "/r", hold)
    for kind in (FileType.LOCK, FileType.KEY):
        store.save(kind, NAME, b"content")
    hold.stop = JobCancelled()
    store.remove(FileType.LOCK, NAME)
    with pytest.raises(JobCancelled):
        store.remove(FileType.KEY, NAME)
    with pytest.raises(JobCancelled):
        store.save(FileType.PACK, NAME, b"content")


class Forgetful(Lapsing):
    """A target that was started anew: it lets a lock be removed when that was named, as ``hold`` sees to."""

    hold: Hold

    def rm_file(self, path: str) -> None:
        if path.rsplit("/", 1)[-1] not in self.hold.let_go:
            raise AccessDenied("the lock was written under another grant")
        super().rm_file(path)


def test_a_target_that_forgot_who_wrote_our_lock_is_told_by_the_core() -> None:
    files = Forgetful()
    files.store, files.pseudo_dirs, files.hold = {}, [""], Hold()
    store = HeldStore(files, "/r", files.hold)
    store.save(FileType.LOCK, NAME, b"content")
    store.remove(FileType.LOCK, NAME)
    assert (files.hold.let_go, store.list(FileType.LOCK)) == ([NAME], [])


def test_a_lock_that_it_did_not_write_is_not_called_its_own() -> None:
    files = Forgetful()
    files.store, files.pseudo_dirs, files.hold = {}, [""], Hold()
    HeldStore(files, "/r", files.hold).save(FileType.LOCK, NAME, b"content")
    with pytest.raises(AccessDenied):
        HeldStore(files, "/r", files.hold).remove(FileType.LOCK, NAME)
    assert files.hold.let_go == []


class Away(Lapsing):
    """A storage that does not answer so many times."""

    silent = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: object) -> bytes:
        if self.silent:
            self.silent -= 1
            raise Unavailable
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    monkeypatch.setattr(held_store, "PAUSE", 0.001)
    files = Away()
    files.store, files.pseudo_dirs = {}, [""]
    files.pipe_file(f"/r/keys/{NAME}", b"content")
    return files


def test_a_storage_that_went_away_is_waited_for(away: Away) -> None:
    store = HeldStore(away, "/r", Hold())
    store.load(FileType.KEY, NAME)
    away.silent = 5
    assert store.load(FileType.KEY, NAME) == b"content"


def test_one_that_never_answered_is_not(away: Away) -> None:
    away.silent = 1
    store = HeldStore(away, "/r", Hold())
    with pytest.raises(Unavailable):
        store.load(FileType.KEY, NAME)


def test_patience_ends(away: Away) -> None:
    store = HeldStore(away, "/r", Hold(), patience=0.05, answered=True)
    away.silent = 10_000
    with pytest.raises(Unavailable):
        store.load(FileType.KEY, NAME)
    assert 2 < 10_000 - away.silent < 10_000


def test_a_cancelled_job_waits_no_longer(away: Away) -> None:
    hold = Hold()
    store = HeldStore(away, "/r", hold, answered=True)
    away.silent = 10_000
    threading.Timer(0.05, lambda: setattr(hold, "stop", JobCancelled())).start()
    with pytest.raises(JobCancelled):
        store.load(FileType.KEY, NAME)
