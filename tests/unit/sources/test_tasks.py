"""What is done for each kind of job, on a memory filesystem and without a bus."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.config import Allow
from snappy.errors import (
    AccessDenied,
    AttemptOver,
    BadOptions,
    Damaged,
    JobCancelled,
    NotARepository,
    RepositoryExists,
    SnapshotNotFound,
    SourceError,
    SourceMissing,
    UnknownPlugin,
    UnsafePath,
    WrongPassword,
)
from snappy.jobs.command import Command
from snappy.jobs.kinds import BackupCommand, InitCommand, RestoreCommand
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.states import State
from snappy.repository.entries import Entry, Problem
from snappy.repository.format import MIB, BlobType
from snappy.repository.journal import Journal
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.sources import backups, telling
from snappy.sources.allow import check
from snappy.sources.files import FilesSource
from snappy.sources.permit import Permit
from snappy.sources.plugins.null import NullSource
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop

NAMES: dict[str, Any] = {"source": "site", "target": "vault"}


class Hold:
    """A hold that never ends."""

    ended = None

    def __init__(self, attempt: int = 1, job: str = "job-1") -> None:
        self.attempt = attempt
        self.job = JobRecord(id=job, kind="backup", submitter="alice", state=State.RUNNING)

    def check(self) -> None:
        """Go on."""


def memory() -> MemoryFileSystem:
    """One that shares nothing with any other."""
    files = MemoryFileSystem(skip_instance_cache=True)
    files.store = {}
    files.pseudo_dirs = [""]
    return files


@pytest.fixture
def files() -> MemoryFileSystem:
    return memory()


@pytest.fixture
def store(files: MemoryFileSystem) -> Store:
    return Store(files, "/repo")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    return tmp_path / "data"


def shop(store: Store, hold: Hold | None = None, password: str = "right") -> Workshop:
    made: Any = hold or Hold()
    return Workshop(
        hold=made, store=store, password=password, progress=Progress(), owner="snappy.site.r1", host="north"
    )


async def run(command: Command, workshop: Workshop) -> Result:
    kind = type(command).__name__.removesuffix("Command").lower()
    return await prepare(kind, command).work(workshop)


def backup(data: Path, **more: Any) -> BackupCommand:
    return BackupCommand(**NAMES, **{"options": {"paths": [str(data)]}, "init": True, **more})


def snapshots(store: Store) -> list[Any]:
    with Repository.open(store, "right") as repository:
        return repository.snapshots()


def test_what_a_command_asks(data: Path) -> None:
    asks = prepare("backup", backup(data)).asks
    assert (asks.kind, asks.target, asks.plugin, asks.reads, asks.writes) == (
        "backup",
        "vault",
        "files",
        [str(data)],
        [],
    )
    asks = prepare("restore", RestoreCommand(**NAMES, options={"to": str(data)})).asks
    assert (asks.reads, asks.writes) == ([], [str(data)])
    asks = prepare("init", InitCommand(**NAMES)).asks
    assert (asks.plugin, asks.reads, asks.writes) == ("", [], [])


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (BackupCommand(**NAMES, plugin="tape"), UnknownPlugin),
        (BackupCommand(**NAMES, options={}), BadOptions),
        (RestoreCommand(**NAMES, options={"to": 3}), BadOptions),
        (RestoreCommand(**NAMES, options={"to": "/x"}, include=["a\\"]), BadOptions),
    ],
)
def test_what_cannot_be_done_is_known_before_anything_is_touched(command: Command, error: type[Exception]) -> None:
    with pytest.raises(error):
        prepare("backup" if isinstance(command, BackupCommand) else "restore", command)


async def test_init_makes_one_repository(store: Store) -> None:
    made = await run(InitCommand(**NAMES), shop(store))
    assert len(made.repository) == 64
    with pytest.raises(RepositoryExists):
        await run(InitCommand(**NAMES), shop(store))


async def test_jobs_of_one_service_keep_what_index_files_say(store: Store, data: Path, tmp_path: Path) -> None:
    one = msgspec.structs.replace(shop(store), index_cache=tmp_path / "indexes")
    made = await run(backup(data), one)

    async def after_a_restore() -> dict[Path, int]:
        """Which writes no index file; a backup may, where others have changed a folder above."""
        await run(RestoreCommand(**NAMES, options={"to": str(tmp_path / "out")}), one)
        (folder,) = (tmp_path / "indexes").iterdir()
        assert folder.name == made.repository
        return {path: path.stat().st_ino for path in folder.iterdir()}

    kept = await after_a_restore()
    assert kept
    assert await after_a_restore() == kept
    assert (tmp_path / "out" / str(data / "file").lstrip("/")).read_text() == "content"


async def test_a_backup_and_one_more(store: Store, data: Path) -> None:
    first = await run(backup(data, tags=["mine"]), shop(store))
    assert (first.files, first.files_new, first.bytes_read) == (1, 1, 7)
    again = await run(backup(data), shop(store, Hold(job="job-2")))
    assert (again.files_unmodified, again.bytes_read) == (1, 0)
    one, two = snapshots(store)
    assert (one.hostname, one.tags, two.parent) == ("north", ["mine", "snappy-job:job-1"], one.id)
    assert store.list(FileType.LOCK) == []


async def test_the_command_names_the_host_the_parent_and_force(store: Store, data: Path) -> None:
    first = await run(backup(data, host="south"), shop(store))
    second = await run(backup(data), shop(store))
    assert second.files_new == 1, "another host's snapshot is no parent"
    third = await run(backup(data, host="east", parent=first.snapshot[:8]), shop(store))
    assert third.files_unmodified == 1
    forced = await run(backup(data, force=True), shop(store))
    assert forced.bytes_read == 7


async def test_compression_off(store: Store, data: Path) -> None:
    (data / "file").write_text("x" * 100_000)
    plain = await run(backup(data, compression="off"), shop(store))
    assert plain.bytes_stored > 100_000
    small = await run(backup(data, host="other", compression="max", force=True), shop(Store(memory(), "/b")))
    assert small.bytes_stored < 10_000


async def test_a_later_attempt_adopts_what_an_earlier_one_finished(store: Store, data: Path) -> None:
    done = await run(backup(data), shop(store, Hold(attempt=1)))
    adopted = await run(backup(data), shop(store, Hold(attempt=2)))
    assert (adopted.snapshot, adopted.files_new, adopted.bytes_stored) == (done.snapshot, 1, done.bytes_stored)
    assert "lost" in adopted.warnings[0].message  # whether it left something out nobody knows: that is not silent
    assert len(snapshots(store)) == 1


async def test_a_later_attempt_without_a_snapshot_makes_one(store: Store, data: Path) -> None:
    await run(backup(data), shop(store, Hold(job="another")))
    await run(backup(data), shop(store, Hold(attempt=2)))
    assert len(snapshots(store)) == 2


class Mortal(Hold):
    """One whose attempt is over as soon as so many bytes are done."""

    def __init__(self, progress: Progress, size: int) -> None:
        super().__init__(attempt=1)
        self._progress, self._size = progress, size

    def check(self) -> None:
        if self._progress.bytes_done >= self._size:
            raise AttemptOver


@pytest.mark.parametrize("force", [False, True])
async def test_the_next_attempt_reads_what_the_lost_one_did_not(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setattr(backups, "Journal", partial(Journal, least_step=MIB))
    (data / "file").write_bytes(os.urandom(100 * MIB))
    progress = Progress()
    lost = msgspec.structs.replace(shop(store, Mortal(progress, 60 * MIB)), progress=progress)
    with pytest.raises(AttemptOver):
        await run(backup(data, force=force), lost)
    assert snapshots(store) == []
    done = await run(backup(data, force=force), shop(store, Hold(attempt=2)))
    assert (done.bytes_processed, done.files_new) == (100 * MIB, 1)
    assert done.bytes_read == 100 * MIB if force else 0 < done.bytes_read < 95 * MIB


async def test_no_repository_is_made_unasked(store: Store, files: MemoryFileSystem, data: Path) -> None:
    with pytest.raises(NotARepository):
        await run(backup(data, init=False), shop(store))
    assert files.find("/") == []


async def test_a_missing_source_makes_no_repository(store: Store, files: MemoryFileSystem, data: Path) -> None:
    with pytest.raises(SourceMissing):
        await run(backup(data / "no"), shop(store))
    assert files.find("/") == []


async def test_a_wrong_password_freezes_nothing(store: Store, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(InitCommand(**NAMES), shop(store))
    frozen = []

    @asynccontextmanager
    async def snap(_self: FilesSource) -> AsyncIterator[None]:
        frozen.append(True)
        yield

    monkeypatch.setattr(FilesSource, "snap", snap)
    with pytest.raises(WrongPassword):
        await run(backup(data), shop(store, password="wrong"))
    assert not frozen


async def test_a_restore(store: Store, data: Path, tmp_path: Path) -> None:
    done = await run(backup(data), shop(store))
    to = tmp_path / "back"
    restored = await run(RestoreCommand(**NAMES, snapshot=done.snapshot[:6], options={"to": str(to)}), shop(store))
    assert (restored.snapshot, restored.files, restored.bytes_processed) == (done.snapshot, 1, 7)
    assert (to / str(data / "file").lstrip("/")).read_text() == "content"
    with pytest.raises(SnapshotNotFound):
        await run(RestoreCommand(**NAMES, host="nowhere", options={"to": str(to)}), shop(store))


async def test_who_may_not_write_a_lock_restores_without_one(
    store: Store, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(backup(data), shop(store))

    def refuse(self: Store, kind: FileType, name: str, data: bytes, *, create: bool = False) -> None:
        raise AccessDenied

    monkeypatch.setattr(Store, "save", refuse)
    restored = await run(RestoreCommand(**NAMES, options={"to": str(tmp_path / "back")}), shop(store))
    assert restored.files == 1


async def test_a_restore_that_lost_a_file_fails_and_brings_back_the_rest(
    store: Store, files: MemoryFileSystem, data: Path, tmp_path: Path
) -> None:
    await run(backup(data), shop(store))
    (data / "other").write_text("more")
    await run(backup(data), shop(store))
    with Repository.open(store, "right") as repository:
        repository.load_index()
        first = repository.snapshots()[0]
        tree = repository.load_tree(first.tree_id)
        while tree[0].type == "dir":
            assert tree[0].subtree is not None
            tree = repository.load_tree(tree[0].subtree)
        assert tree[0].content is not None
        (place,) = repository.locations(BlobType.DATA, tree[0].content[0])
    pack = f"/repo/data/{place.pack.hex()[:2]}/{place.pack.hex()}"
    broken = bytearray(files.cat_file(pack))
    broken[place.offset + 4] ^= 1
    files.pipe_file(pack, bytes(broken))
    to = tmp_path / "back"
    with pytest.raises(Damaged, match="file"):
        await run(RestoreCommand(**NAMES, options={"to": str(to)}), shop(store))
    assert (to / str(data / "other").lstrip("/")).read_text() == "more"


async def test_a_place_that_became_a_link_after_it_was_checked_is_refused(
    store: Store, data: Path, tmp_path: Path
) -> None:
    await run(backup(data), shop(store))
    place, outside = tmp_path / "scratch" / "back", tmp_path / "outside"
    place.mkdir(parents=True)
    outside.mkdir()
    task = prepare("restore", RestoreCommand(**NAMES, options={"to": str(place)}))
    check(task.asks, Allow(["*"], ["*"], ["*"], restore_to=[str(tmp_path / "scratch")]), "alice")
    place.rmdir()
    place.symlink_to(outside)
    with pytest.raises(UnsafePath):
        await task.work(shop(store))
    assert list(outside.iterdir()) == []


async def test_no_job_may_pass_for_another(data: Path) -> None:
    with pytest.raises(BadOptions, match="snappy-job"):
        prepare("backup", backup(data, tags=["mine", "snappy-job:job-2"]))


def test_many_warnings_about_long_names_fit_into_one_message() -> None:
    problems = [Problem(b"/" + b"\xff" * 3000 + b"/end", "x" * 10_000)] * 1000
    told = telling.warnings(problems)
    assert len(told) == telling.WARNINGS_TOLD
    assert told[0].path.endswith("/end")
    assert len(msgspec.json.encode(told)) < 200_000


async def test_who_watches_a_first_backup_learns_how_much_there_is(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, files = threading.Event(), sum(path.is_file() for path in data.rglob("*"))
    watched, export, expect = shop(store), FilesSource.export, Progress.expect

    def export_later(source: FilesSource, frozen: None) -> Iterator[Entry]:
        assert counted.wait(10)
        return export(source, frozen)

    def told(progress: Progress, *, files: int, size: int) -> None:
        expect(progress, files=files, size=size)
        counted.set()

    monkeypatch.setattr(backups, "CENSUS_AFTER", 0.0)
    monkeypatch.setattr(FilesSource, "export", export_later)
    monkeypatch.setattr(Progress, "expect", told)
    await run(backup(data), watched)
    assert (watched.progress.files_total, watched.progress.bytes_total) == (files, watched.progress.bytes_done)


async def test_who_watches_the_next_backup_is_told_what_the_last_one_took(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await run(backup(data), shop(store))
    monkeypatch.delattr(FilesSource, "sizes")
    watched = shop(store)
    await run(backup(data), watched)
    assert (watched.progress.files_total, watched.progress.bytes_total) == (first.files, first.bytes_processed)


async def test_nothing_is_counted_for_a_backup_that_is_soon_over(store: Store, data: Path) -> None:
    watched = shop(store)
    done = await run(backup(data), watched)
    assert (watched.progress.files_done, watched.progress.files_total) == (done.files, 0)


def test_a_census_that_fails_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes() -> Iterator[int]:
        yield 1
        raise OSError

    progress = Progress()
    monkeypatch.setattr(backups, "CENSUS_AFTER", 0.0)
    backups._count(progress, sizes(), threading.Event())
    assert (progress.files_total, progress.bytes_total) == (0, 0)


async def test_what_is_made_up_is_stored_and_thrown_away(store: Store) -> None:
    options = {"size": 3 * MIB, "files": 3, "compressible": 0.25, "seed": 7}
    made = await run(BackupCommand(**NAMES, plugin="null", options=options, init=True), shop(store))
    assert (made.files, made.bytes_processed, made.bytes_read) == (3, 9 * MIB, 9 * MIB)
    assert 0.7 < made.bytes_stored / made.bytes_processed < 0.8
    again = await run(BackupCommand(**NAMES, plugin="null", options=options), shop(store, Hold(job="job-2")))
    assert (again.bytes_read, again.bytes_new < MIB) == (9 * MIB, True)
    back = await run(RestoreCommand(**NAMES, plugin="null"), shop(store))
    assert (back.files, back.bytes_processed) == (3, 9 * MIB)
    assert prepare("restore", RestoreCommand(**NAMES, plugin="null")).asks.writes == ["null://"]


class Waiting(NullSource):
    """A source whose content never comes, until it is interrupted."""

    interrupted: ClassVar[threading.Event]

    def _open(self, number: int) -> BinaryIO:
        assert self.interrupted.wait(20)
        raise SourceError("interrupted")

    def interrupt(self) -> None:
        self.interrupted.set()


async def test_a_source_that_waits_hears_that_the_attempt_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Waiting.interrupted = threading.Event()
    monkeypatch.setattr(backups.base, "load", lambda _: Waiting)
    permit: Any = Permit()
    permit.job, permit.attempt = Hold().job, 1
    permit.extend("grant", time.monotonic() + 1000)
    asyncio.get_running_loop().call_later(0.3, permit.end, JobCancelled())
    with pytest.raises((SourceError, JobCancelled)):
        await run(BackupCommand(**NAMES, plugin="null", init=True), shop(store, permit))
    assert Waiting.interrupted.is_set()
    assert snapshots(store) == []
