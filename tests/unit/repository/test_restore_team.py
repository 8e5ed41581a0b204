"""Worker processes of a restore: they bring back what one process does, and end with it, however it ends."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from snappy.errors import Damaged, JobCancelled, NoSpace, WorkerDied
from snappy.repository import batch_runner, member, restored_file
from snappy.repository.archiver import BackupResult
from snappy.repository.entries import SharedSink, Sink
from snappy.repository.format import MIB, BlobLocation, BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.restore_team import RestoreTeam
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.store import FileType, Store
from snappy.repository.team import NO_WORKERS, Workers
from snappy.sources.local_sink import LocalSink
from tests.support.backups import back_up, inside
from tests.support.compare import compare
from tests.support.engine import CHEAP, PASSWORD
from tests.support.worker_sinks import WAITING, Troubled
from tests.support.worker_stores import Cancel, all_are_ready, expect_gone

TWO = Workers(most=2)
HOLE = 3 * MIB


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[RestoreTeam]:
    """Workers are started for the first batch, of which there are many, and waited for; they are in this list."""
    made: list[RestoreTeam] = []
    real = RestoreTeam.__init__

    def spy(team: RestoreTeam, *arguments: object) -> None:
        made.append(team)
        real(team, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RestoreTeam, "__init__", spy)
    monkeypatch.setattr(RestoreTeam, "is_ready", all_are_ready)
    monkeypatch.setattr(batch_runner, "FILES_FOR_WORKERS", 0)
    monkeypatch.setattr(batch_runner, "BATCH_BLOBS", 20)
    monkeypatch.setattr(batch_runner, "ERRAND_BYTES", MIB)
    monkeypatch.setattr(restored_file, "LARGE", 2 * MIB)
    return made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all sizes in folders, an empty one, links, and large ones: of noise, with a hole, of one chunk again and
    again."""
    top = tmp_path / "tree"
    chance = random.Random(7)
    for number in range(300):
        folder = top / f"{number % 7}" / "below"
        folder.mkdir(parents=True, exist_ok=True)
        size = chance.choice((1, 100, 5000, 70_000, 1_500_000))
        path = folder / f"{number:03}"
        path.write_bytes(chance.randbytes(size) if number % 3 else bytes([number % 5]) * size)
        path.chmod(chance.choice((0o644, 0o400, 0o755)))
        os.utime(path, ns=(number * 10**9, number * 10**9))
    (top / "1" / "below").chmod(0o500)
    (top / "empty").touch()
    (top / "large").write_bytes(chance.randbytes(9 * MIB))
    (top / "holes").write_bytes(chance.randbytes(MIB) + bytes(HOLE) + chance.randbytes(MIB) + bytes(HOLE))
    (top / "same").write_bytes(bytes(33 * MIB))
    (top / "link").symlink_to("large")
    os.link(top / "large", top / "hard")
    os.link(top / "2" / "below" / "002", top / "hard-too")
    return top


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.init(store, PASSWORD, options=Options(pack_size=MIB), cost=CHEAP) as made:
        yield made


def bring_back(
    repository: Repository,
    done: BackupResult,
    place: Path,
    *,
    sink: Sink | None = None,
    workers: Workers = TWO,
    cancelled: Cancelled = never,
    progress: Progress | None = None,
) -> RestoreResult:
    opened = sink or LocalSink(os.fsencode(place), owner=None)
    restorer = Restorer(repository, opened, workers=workers, cancelled=cancelled, progress=progress)
    try:
        return restorer.restore(done.snapshot)
    finally:
        opened.close()


def expect_same(one: Path, other: Path) -> None:
    found = compare(one, other)
    assert found.same, found.differences


def once_waiting(tmp_path: Path, then: Callable[[int], None]) -> threading.Thread:
    """Do that with the worker that waits for ever."""

    def watch() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / WAITING).exists():
            assert time.monotonic() < deadline
            threading.Event().wait(0.02)
        then(int((tmp_path / WAITING).read_text()))

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_workers_bring_back_what_one_process_does(
    repository: Repository, tree: Path, tmp_path: Path, started: list[RestoreTeam]
) -> None:
    done = back_up(repository, tree)
    progress = Progress()
    by_one = bring_back(repository, done, tmp_path / "one", workers=NO_WORKERS)
    by_two = bring_back(repository, done, tmp_path / "two", progress=progress)
    assert by_two == by_one
    assert by_two.errors == []
    assert (progress.files_done, progress.bytes_done) == (by_one.files, by_one.bytes)
    expect_same(tree, inside(tmp_path / "two", tree))
    assert len(started) == 1
    expect_gone(started[0].processes)


def test_holes_stay_holes(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = back_up(repository, tree)
    bring_back(repository, done, tmp_path / "out")
    assert (inside(tmp_path / "out", tree) / "holes").stat().st_blocks * 512 < 3 * MIB
    assert (inside(tmp_path / "out", tree) / "same").stat().st_blocks == 0


def test_what_stands_there_is_mended(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = back_up(repository, tree)
    bring_back(repository, done, tmp_path / "out")
    place = inside(tmp_path / "out", tree)
    with (place / "large").open("r+b") as large:
        large.seek(5 * MIB)
        large.write(b"wrong")
    os.unlink(place / "holes")
    (place / "hard-too").write_bytes(b"too short")
    result = bring_back(repository, done, tmp_path / "out")
    assert result.errors == []
    assert result.unmodified > 250
    expect_same(tree, place)


def test_a_damaged_blob_costs_its_files_alone(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = back_up(repository, tree)
    spoil(repository, tmp_path, [blob for name in ("001", "007") for blob in blobs_of(repository, done, name)])
    by_one = bring_back(repository, done, tmp_path / "one", workers=NO_WORKERS)
    by_two = bring_back(repository, done, tmp_path / "two")
    assert {(problem.path[-3:], problem.code) for problem in by_two.errors} == {
        (b"001", Damaged.code),
        (b"007", Damaged.code),
    }
    assert sorted(map(str, by_two.errors)) == sorted(map(str, by_one.errors))
    assert (by_two.files, by_two.bytes) == (by_one.files, by_one.bytes)


def test_another_copy_of_a_damaged_blob_serves(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = back_up(repository, tree)
    blobs = [*blobs_of(repository, done, "large"), *blobs_of(repository, done, "001")]
    plain = [repository.load_blob(BlobType.DATA, blob.id) for blob in blobs]
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.open(store, PASSWORD) as other:  # it has not loaded the index: it stores them once more
        other.save_blobs(BlobType.DATA, [(blob.id, data) for blob, data in zip(blobs, plain, strict=True)])
        other.flush()
    spoil(repository, tmp_path, blobs)
    repository.load_index()
    result = bring_back(repository, done, tmp_path / "out")
    assert result.errors == []
    expect_same(tree, inside(tmp_path / "out", tree))


def blobs_of(repository: Repository, done: BackupResult, name: str) -> list[BlobLocation]:
    def below(tree: bytes) -> Iterator[bytes]:
        for node in repository.load_tree(tree):
            if node.subtree:
                yield from below(node.subtree)
            elif node.name == name.encode():
                yield from node.content or ()

    found = [repository.location(BlobType.DATA, blob) for blob in below(done.snapshot.tree_id)]
    return [place for place in found if place]


def spoil(repository: Repository, tmp_path: Path, blobs: list[BlobLocation]) -> None:
    assert blobs
    for blob in blobs:
        pack = tmp_path / "repository" / "data" / blob.pack.hex()[:2] / blob.pack.hex()
        pack.chmod(0o600)
        with pack.open("r+b") as file:
            file.seek(blob.offset)
            file.write(bytes(16))


def test_what_fails_for_one_file_is_its_own_problem(repository: Repository, tree: Path, tmp_path: Path) -> None:
    (tree / "3" / "bad").write_bytes(b"cannot be made")
    done = back_up(repository, tree)
    place = tmp_path / "out"
    result = bring_back(repository, done, place, sink=Troubled(os.fsencode(place)))
    assert [(problem.path[-5:], problem.message) for problem in result.errors] == [(b"3/bad", os.strerror(5))]
    (tree / "3" / "bad").unlink()
    os.utime(tree / "3", ns=(0, 0))
    os.utime(inside(place, tree) / "3", ns=(0, 0))
    expect_same(tree, inside(place, tree))


def test_a_full_place_ends_the_restore(
    repository: Repository, tree: Path, tmp_path: Path, started: list[RestoreTeam]
) -> None:
    (tree / "3" / "full").write_bytes(b"one too many")
    done = back_up(repository, tree)
    with pytest.raises(NoSpace, match="the place restored to is full") as failure:
        bring_back(repository, done, tmp_path / "out", sink=Troubled(os.fsencode(tmp_path / "out")))
    assert failure.value.hint == "free space there, and restore again"
    expect_gone(started[0].processes)


def test_a_worker_that_is_killed_ends_the_restore(
    repository: Repository, tree: Path, tmp_path: Path, started: list[RestoreTeam]
) -> None:
    (tree / "3" / "wait").write_bytes(b"for ever")
    done = back_up(repository, tree)
    killing = once_waiting(tmp_path, lambda process: os.kill(process, signal.SIGKILL))
    with pytest.raises(WorkerDied, match="ended by signal 9") as failure:
        bring_back(repository, done, tmp_path / "out", sink=Troubled(os.fsencode(tmp_path / "out")))
    killing.join()
    assert failure.value.retryable
    expect_gone(started[0].processes)


def test_a_cancelled_restore_ends_the_workers(
    repository: Repository, tree: Path, tmp_path: Path, started: list[RestoreTeam], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "STOP_SECONDS", 0.2)
    (tree / "3" / "wait").write_bytes(b"for ever")
    done = back_up(repository, tree)
    cancel = Cancel()

    def stop(_process: int) -> None:
        cancel.over = True

    stopping = once_waiting(tmp_path, stop)
    with pytest.raises(JobCancelled):
        bring_back(repository, done, tmp_path / "out", sink=Troubled(os.fsencode(tmp_path / "out")), cancelled=cancel)
    stopping.join()
    expect_gone(started[0].processes)


def test_one_process_restores_where_no_other_can(
    repository: Repository, tree: Path, tmp_path: Path, started: list[RestoreTeam], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = back_up(repository, tree)
    monkeypatch.setattr(Store, "recipe", lambda _store: None)
    bring_back(repository, done, tmp_path / "out")
    expect_same(tree, inside(tmp_path / "out", tree))
    assert not started
    assert repository.store.list(FileType.PACK)


def test_a_local_place_can_be_shared(tmp_path: Path) -> None:
    assert isinstance(LocalSink(os.fsencode(tmp_path), owner=None), SharedSink)
