from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from snappy.errors import AccessDenied, AttemptOver, BusUnavailable, Damaged, RepositoryLocked, SnappyError, Unavailable
from snappy.repository import locks
from snappy.repository.compression import Compressor
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents
from snappy.repository.locks import Lock, LockFile, LockJob, LockOwner, Named, hold, read_locks
from snappy.repository.store import FileType, Store
from tests.support.engine import OWNER, Interposed, memory_store

KEY = SealingKey.generate()
START = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, **duration: float) -> None:
        self.now += timedelta(**duration)


class Rig:
    def __init__(self) -> None:
        self.fs = Interposed(lambda method, path: None)
        self.store: Store = memory_store(self.fs)
        self.documents = Documents(self.store, KEY, Compressor())
        self.clock = Clock()

    def hold(self, owner: LockOwner = OWNER, *, exclusive: bool = False) -> AbstractContextManager[Lock]:
        return hold(self.store, self.documents, owner, exclusive=exclusive, settle=0, now=self.clock)

    def leave(self, **fields: object) -> str:
        """A lock that another program left."""
        file = LockFile(time=START, exclusive=False, hostname="elsewhere", username="u", pid=5)
        return self.documents.save(FileType.LOCK, msgspec.json.encode(msgspec.structs.replace(file, **fields)))

    def names(self) -> list[str]:
        return [name for name, _ in self.store.list(FileType.LOCK)]

    @contextmanager
    def storage_down(self, method: str) -> Iterator[None]:
        def refuse(called: str, path: str) -> None:
            if called == method:
                raise TimeoutError

        self.fs.before = refuse
        yield
        self.fs.before = lambda called, path: None


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_lock_is_there_while_it_is_held(rig: Rig) -> None:
    with rig.hold() as lock:
        assert rig.names() == [lock.name]
    assert rig.names() == []


def test_the_file_is_restics_and_says_whose_job(rig: Rig) -> None:
    with rig.hold() as lock:
        document = json.loads(rig.documents.load(FileType.LOCK, lock.name))
    assert document == {
        "time": "2026-01-02T12:00:00Z",
        "exclusive": False,
        "hostname": "snappy.site.r1",
        "username": "tester",
        "pid": 77,
        "snappy": {"job": "job-1", "attempt": 1},
    }


def test_what_restic_writes_is_read(rig: Rig) -> None:
    rig.documents.save(
        FileType.LOCK,
        b'{"time":"2015-06-27T12:18:51.759239612+02:00","exclusive":false,"hostname":"kasimir",'
        b'"username":"fd0","pid":13607,"uid":1000,"gid":100,"later":1}',
    )
    ((_, lock),) = read_locks(rig.store, rig.documents)
    assert (lock.hostname, lock.pid, lock.snappy) == ("kasimir", 13607, None)


def test_it_is_released_when_the_work_fails(rig: Rig) -> None:
    with pytest.raises(ZeroDivisionError), rig.hold():
        raise ZeroDivisionError
    assert rig.names() == []


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_locks_of_earlier_attempts_are_removed(rig: Rig, exclusive: bool) -> None:
    for attempt in (1, 2):
        rig.leave(snappy=LockJob("job-1", attempt), pid=attempt, exclusive=exclusive)
    others = {rig.leave(snappy=LockJob("job-2", 1)), rig.leave()}
    with rig.hold(third_attempt()) as lock:
        assert set(rig.names()) == {*others, lock.name}
    assert set(rig.names()) == others


def test_the_locks_of_this_and_later_attempts_stand(rig: Rig) -> None:
    later = {rig.leave(snappy=LockJob("job-1", attempt)) for attempt in (3, 4)}
    with rig.hold(third_attempt()) as lock:
        assert set(rig.names()) == {*later, lock.name}
    assert set(rig.names()) == later


class Knows:
    """Confirms that the locks of these jobs are dead."""

    def __init__(self, *jobs: str) -> None:
        self.jobs = jobs
        self.asked: list[list[str]] = []

    @contextmanager
    def __call__(self, left: list[Named]) -> Iterator[set[str]]:
        self.asked.append([name for name, _ in left])
        yield {name for name, lock in left if lock.snappy and lock.snappy.job in self.jobs}


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_lock_that_is_known_dead_is_removed_whichever_job_left_it(rig: Rig, exclusive: bool) -> None:
    dead = rig.leave(snappy=LockJob("job-8", 2), exclusive=exclusive)
    others = {rig.leave(snappy=LockJob("job-9")), rig.leave(), rig.leave(pid=6)}
    knows = Knows("job-8")
    with hold(rig.store, rig.documents, OWNER, settle=0, confirm=knows, now=rig.clock) as lock:
        assert set(rig.names()) == {*others, lock.name}
    assert [len(asked) for asked in knows.asked] == [2], "restic's own are none of its business"
    assert dead in knows.asked[0]


def test_what_nobody_confirms_stays_in_the_way(rig: Rig) -> None:
    left = rig.leave(snappy=LockJob("job-8"), exclusive=True)
    with (
        pytest.raises(RepositoryLocked, match="job-8"),
        hold(rig.store, rig.documents, OWNER, settle=0, confirm=Knows("job-9"), now=rig.clock),
    ):
        pass
    assert rig.names() == [left]


def test_who_may_not_remove_a_dead_lock_does_not_honour_it_either(rig: Rig) -> None:
    left = rig.leave(snappy=LockJob("job-8"), exclusive=True)

    def refuse(method: str, path: str) -> None:
        if method == "rm_file" and path.endswith(left):
            raise AccessDenied

    rig.fs.before = refuse
    with hold(rig.store, rig.documents, OWNER, settle=0, confirm=Knows("job-8"), now=rig.clock) as lock:
        assert set(rig.names()) == {left, lock.name}


def test_somebody_else_may_have_removed_a_dead_lock(rig: Rig) -> None:
    left = rig.leave(snappy=LockJob("job-8"))

    @contextmanager
    def confirm(_left: list[Named]) -> Iterator[set[str]]:
        rig.store.remove(FileType.LOCK, left)
        yield {left}

    with hold(rig.store, rig.documents, OWNER, settle=0, confirm=confirm, now=rig.clock) as lock:
        assert rig.names() == [lock.name]


def test_many_locks_are_asked_about_in_turn(rig: Rig) -> None:
    for number in range(locks.ASKED_AT_ONCE + 1):
        rig.leave(snappy=LockJob("job-8", number + 1))
    knows = Knows("job-8")
    with hold(rig.store, rig.documents, OWNER, settle=0, confirm=knows, now=rig.clock) as lock:
        assert rig.names() == [lock.name]
    assert [len(asked) for asked in knows.asked] == [locks.ASKED_AT_ONCE, 1]


def third_attempt() -> LockOwner:
    return msgspec.structs.replace(OWNER, job=LockJob("job-1", 3))


def test_shared_locks_go_together(rig: Rig) -> None:
    with rig.hold(), rig.hold():
        assert len(rig.names()) == 2


def test_a_bus_that_fails_does_not_end_the_refreshing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_EVERY", timedelta(milliseconds=5))
    monkeypatch.setattr(locks, "RETRY_EVERY", timedelta(milliseconds=5))
    failures: list[SnappyError] = [BusUnavailable(), AttemptOver()]
    refreshed = threading.Event()

    def fail(method: str, path: str) -> None:
        if method == "pipe_file" and failures:
            raise failures.pop()
        refreshed.set()

    with rig.hold():
        rig.fs.before = fail
        assert refreshed.wait(20)
    assert failures == []


@pytest.mark.parametrize(("held", "wanted"), [(True, False), (False, True), (True, True)])
def test_an_exclusive_lock_stands_alone(rig: Rig, held: bool, wanted: bool) -> None:
    with rig.hold(exclusive=held) as first:
        refused = pytest.raises(RepositoryLocked, match=r"process 77 on snappy\.site\.r1 for job job-1, attempt 1")
        with refused, rig.hold(exclusive=wanted):
            pass
        assert rig.names() == [first.name]


def test_two_exclusive_locks_at_the_same_moment_both_step_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: rig.leave(exclusive=True))
    with pytest.raises(RepositoryLocked, match="process 5 on elsewhere"), rig.hold(exclusive=True):
        pass
    assert len(rig.names()) == 1


def test_it_waits_before_it_looks_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with hold(rig.store, rig.documents, OWNER, now=rig.clock):
        pass
    (waited,) = slept
    assert locks.SETTLE - 0.1 < waited <= locks.SETTLE
    assert locks.SETTLE >= 0.2


def later(rig: Rig, settle: float = locks.SETTLE) -> AbstractContextManager[Lock]:
    return hold(rig.store, rig.documents, OWNER, now=rig.clock, settle_later=True, settle=settle)


def test_it_may_wait_until_something_is_written(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with later(rig) as lock:
        assert slept == []
        lock.settled()
        lock.check_settled()
        assert len(slept) == 1


def test_all_who_want_to_write_wait_once(rig: Rig) -> None:
    with later(rig, settle=0.3) as lock:
        began = time.monotonic()
        threads = [threading.Thread(target=lock.settled) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0.2 < time.monotonic() - began < 3


def test_who_deletes_when_the_lock_is_written_is_seen_before_anything_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = Lock.refresh

    def late(lock: Lock) -> None:
        rig.leave(exclusive=True)
        refresh(lock)

    monkeypatch.setattr(Lock, "refresh", late)
    with pytest.raises(RepositoryLocked, match="process 5 on elsewhere"), later(rig):
        pytest.fail("it was held")
    assert len(rig.names()) == 1


def test_who_comes_at_the_same_moment_is_seen_before_anything_is_written(rig: Rig) -> None:
    with later(rig, settle=0) as lock:
        left = rig.leave(exclusive=True)
        with pytest.raises(RepositoryLocked, match="process 5 on elsewhere"):
            lock.check_settled()
        rig.store.remove(FileType.LOCK, left)
        with pytest.raises(RepositoryLocked):  # what was read may be gone
            lock.settled()
    assert rig.names() == []


@pytest.mark.parametrize(("minutes", "in_the_way"), [(29, True), (31, False)])
def test_a_lock_is_stale_after_half_an_hour(rig: Rig, minutes: int, in_the_way: bool) -> None:
    rig.leave(exclusive=True)
    rig.clock.sleep(minutes=minutes)
    if in_the_way:
        with pytest.raises(RepositoryLocked), rig.hold():
            pass
    else:
        with rig.hold():
            pass


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_a_dead_process_of_this_machine_holds_nothing(rig: Rig) -> None:
    rig.leave(exclusive=True, hostname=socket.gethostname(), pid=dead_process())
    with rig.hold():
        pass
    rig.leave(exclusive=True, hostname=socket.gethostname(), pid=os.getpid())
    with pytest.raises(RepositoryLocked), rig.hold():
        pass


def test_a_process_of_another_machine_is_never_looked_for(rig: Rig) -> None:
    rig.leave(exclusive=True, hostname="elsewhere", pid=dead_process())
    with pytest.raises(RepositoryLocked), rig.hold():
        pass


def test_an_empty_lock_file_is_no_lock(rig: Rig) -> None:
    rig.store.save(FileType.LOCK, "0" * 64, b"")
    with rig.hold(exclusive=True):
        pass


def test_a_lock_that_cannot_be_read_is_in_the_way(rig: Rig) -> None:
    rig.store.save(FileType.LOCK, "0" * 64, b"damaged")
    with pytest.raises(Damaged), rig.hold():
        pass


def test_refresh_replaces_the_file(rig: Rig) -> None:
    with rig.hold() as lock:
        before = lock.name
        rig.clock.sleep(minutes=5)
        lock.refresh()
        assert rig.names() == [lock.name] != [before]
        ((_, file),) = read_locks(rig.store, rig.documents)
        assert file.time == START + timedelta(minutes=5)
    assert rig.names() == []


def test_an_old_file_that_could_not_be_removed_is_removed_later(rig: Rig) -> None:
    with rig.hold() as lock:
        with rig.storage_down("rm_file"), pytest.raises(Unavailable):
            lock.refresh()
        assert len(rig.names()) == 2
        lock.check()
    assert rig.names() == []


def test_somebody_else_may_have_removed_it(rig: Rig) -> None:
    with rig.hold() as lock:
        rig.store.remove(FileType.LOCK, lock.name)
        lock.refresh()
        assert rig.names() == [lock.name]
        rig.store.remove(FileType.LOCK, lock.name)
    assert rig.names() == []


def test_a_store_that_fails_at_the_end_does_not_hide_the_result(rig: Rig) -> None:
    with rig.storage_down("rm_file"), rig.hold():
        pass
    assert len(rig.names()) == 1


def test_check_raises_once_others_may_ignore_the_lock(rig: Rig) -> None:
    with rig.hold() as lock:
        rig.clock.sleep(minutes=19)
        lock.check()
        rig.clock.sleep(minutes=1)
        with pytest.raises(RepositoryLocked, match="20 minutes"):
            lock.check()


def test_a_failed_refresh_does_not_count(rig: Rig) -> None:
    with rig.hold() as lock:
        rig.clock.sleep(minutes=15)
        with rig.storage_down("pipe_file"), pytest.raises(Unavailable):
            lock.refresh()
        rig.clock.sleep(minutes=5)
        with pytest.raises(RepositoryLocked):
            lock.check()


def test_a_lost_lock_cannot_be_had_back(rig: Rig) -> None:
    with rig.hold() as lock:
        rig.clock.sleep(minutes=40)  # asleep with its lid closed
        with pytest.raises(RepositoryLocked):
            lock.refresh()
        with pytest.raises(RepositoryLocked):
            lock.check()


def test_a_thread_keeps_it_fresh_and_retries(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "REFRESH_EVERY", timedelta(milliseconds=5))
    monkeypatch.setattr(locks, "RETRY_EVERY", timedelta(milliseconds=5))
    refreshed, failures = threading.Event(), [1, 2]

    def fail_twice(method: str, path: str) -> None:
        if method == "rm_file":
            refreshed.set()
        if method == "pipe_file" and failures:
            failures.pop()
            raise TimeoutError

    with rig.hold():
        rig.fs.before = fail_twice
        assert refreshed.wait(20)
    assert failures == []
    assert rig.names() == []
