"""Worker processes of a check find what one process finds, and end with it, however it ends."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from snappy.errors import JobCancelled, Unavailable, WorkerDied
from snappy.repository import member, pack_checker, worker_processes
from snappy.repository.checker import Checker, CheckResult
from snappy.repository.findings import Kind
from snappy.repository.format import MIB, BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.pool import Pool
from snappy.repository.portion import EVERYTHING
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.repository.team import Workers
from tests.support.engine import CHEAP, PASSWORD
from tests.support.snapshots import fill
from tests.support.worker_stores import Elsewhere

TWO = Workers(most=2)
PACKS = 12


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started, and waited for."""
    monkeypatch.setattr(pack_checker, "WORTH_WORKERS", 0)
    monkeypatch.setattr(pack_checker, "READY_SECONDS", 60.0)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """Those that were started."""
    made: list[Pool] = []
    real = Pool.__init__

    def spy(pool: Pool, *arguments: object) -> None:
        made.append(pool)
        real(pool, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pool, "__init__", spy)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Of a repository with a few large packs."""
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    chance = random.Random(5)
    with Repository.init(store, PASSWORD, options=Options(pack_size=MIB), cost=CHEAP) as made:
        for _ in range(PACKS):
            made.save_blob(BlobType.DATA, chance.randbytes(MIB))
        fill(made)
    return store


def check(
    store: Store, workers: Workers = TWO, *, cancelled: Cancelled = never, progress: Progress | None = None
) -> CheckResult:
    with Repository.open(store, PASSWORD) as repository:
        checker = Checker(repository, cancelled=cancelled, progress=progress, workers=workers)
        return checker.check(EVERYTHING)


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def expect_gone(processes: list[int]) -> None:
    """Those that are killed are gone soon, as the first of them does not wait for the others then."""
    deadline = time.monotonic() + 20
    while not all(map(gone, processes)):
        assert time.monotonic() < deadline, processes
        threading.Event().wait(0.02)


def test_they_prove_each_pack_once(store: Store, pools: list[Pool]) -> None:
    progress = Progress()
    done = check(store, progress=progress)
    sizes = [size for _, size in store.list(FileType.PACK)]
    assert done.findings == []
    assert done.packs_read == progress.files_done == len(sizes) > PACKS
    assert done.bytes_read == progress.bytes_done == sum(sizes)
    (pool,) = pools
    assert len(pool.processes) >= 1
    expect_gone(pool.processes)


def test_they_find_what_one_process_finds(store: Store, pools: list[Pool], tmp_path: Path) -> None:
    root = tmp_path / "repository"
    packs = [name for name, size in store.list(FileType.PACK) if size > MIB]
    for pack in packs[:3]:
        path = root / "data" / pack[:2] / pack
        data = bytearray(path.read_bytes())
        data[50] ^= 1
        path.write_bytes(data)
    store.remove(FileType.PACK, packs[3])
    alone, together = check(store, Workers(most=1)), check(store)
    assert len(pools) == 1
    assert [finding.kind for finding in together.findings] == [Kind.PACK_MISSING] + [Kind.PACK_CHANGED] * 3
    assert set(together.findings) == set(alone.findings)
    assert (together.damage, together.bytes_read) == (alone.damage, alone.bytes_read)


def test_little_is_read_here(store: Store, pools: list[Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_checker, "WORTH_WORKERS", 256 * MIB)
    assert check(store).findings == []
    assert pools == []


def test_many_blobs_are_much(store: Store, pools: list[Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_checker, "WORTH_WORKERS", sum(size for _, size in store.list(FileType.PACK)))
    assert check(store).findings == []
    assert len(pools) == 1


@pytest.mark.parametrize("program", [["/nowhere/python"], [sys.executable, "-c", "raise SystemExit(1)"]])
def test_without_workers_all_is_read_here(store: Store, monkeypatch: pytest.MonkeyPatch, program: list[str]) -> None:
    monkeypatch.setattr(worker_processes, "PROGRAM", program)
    progress = Progress()
    done = check(store, progress=progress)
    assert (done.findings, progress.files_done) == ([], done.packs_read)


def test_workers_that_are_never_ready_are_not_missed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_checker, "READY_SECONDS", 0.1)
    monkeypatch.setattr(worker_processes, "PROGRAM", [sys.executable, "-c", "import time; time.sleep(60)"])
    progress = Progress()
    done = check(store, progress=progress)
    assert (done.findings, progress.files_done) == ([], done.packs_read)


@pytest.fixture
def stuck(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """The same files, and its workers wait for a pack for ever."""
    monkeypatch.setattr(member, "STOP_SECONDS", 0.2)
    return Elsewhere(tmp_path / "repository", "open_stuck")


def test_a_dead_worker_ends_the_check(stuck: Elsewhere, pools: list[Pool]) -> None:
    def kill_one() -> None:
        if pools and pools[0].processes and not killed:
            killed.append(pools[0].processes[-1])
            os.kill(killed[0], signal.SIGKILL)

    killed: list[int] = []
    with pytest.raises(WorkerDied, match="ended by signal 9") as caught:
        check(stuck, cancelled=kill_one)
    assert caught.value.retryable
    expect_gone(pools[0].processes)


def test_a_cancelled_check_leaves_no_worker(stuck: Elsewhere, pools: list[Pool]) -> None:
    def cancel() -> None:
        if pools and pools[0].processes:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        check(stuck, cancelled=cancel)
    expect_gone(pools[0].processes)


def test_what_fails_at_a_worker_fails_here(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nobody is there"):
        check(Elsewhere(tmp_path / "repository", "open_away"))
