"""Worker processes of a backup: they make the same snapshot as one process does, and end with it, however it ends."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from snappy.errors import AttemptOver, Damaged, JobCancelled, NoSpace, WorkerDied
from snappy.repository import crew as crews
from snappy.repository import file_storer, member, worker_processes
from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.chunker import SMALLEST
from snappy.repository.crew import Crew
from snappy.repository.entries import Entry, Node, Recipe, each_entry
from snappy.repository.format import MIB, BlobType
from snappy.repository.journal import Journal
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.repository.team import Workers
from snappy.sources.files import FilesOptions, FilesSource
from tests.support.backups import HOST, tree_below
from tests.support.engine import CHEAP, PASSWORD, memory_store, new_repository
from tests.support.worker_stores import Cancel, Elsewhere, alive, all_are_ready, expect_gone

GIB = 1024 * MIB
SMALL = Options(pack_size=MIB, index_every=3600.0)
TWO = Workers(most=2)


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are started for the first file, and waited for."""
    monkeypatch.setattr(file_storer, "FILES_FOR_WORKERS", 0)
    monkeypatch.setattr(Crew, "is_ready", all_are_ready)
    monkeypatch.setattr(crews, "WORTH_PARTS", MIB)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Crew]:
    """The crews that were started."""
    made: list[Crew] = []
    real = Crew.__init__

    def spy(crew: Crew, *arguments: object) -> None:
        made.append(crew)
        real(crew, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Crew, "__init__", spy)
    return made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all sizes, some of them twice or with parts of others; a large one, an empty one, links."""
    top = tmp_path / "tree"
    chance = random.Random(7)
    for number in range(400):
        folder = top / f"{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        size = chance.choice((1, 100, 5000, 70_000))
        (folder / f"{number:03}").write_bytes(chance.randbytes(size) if number % 3 else bytes([number % 5]) * size)
    shutil.copytree(top / "1", top / "copy")
    noise = chance.randbytes(9 * MIB)
    (top / "large").write_bytes(noise + b"text " * MIB)
    (top / "large-too").write_bytes(b"in front" + noise)
    (top / "empty").touch()
    (top / "link").symlink_to("large")
    os.link(top / "large", top / "hard")
    return top


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.init(store, PASSWORD, options=SMALL, cost=CHEAP) as made:
        yield made


def opened(root: Path, options: Options = SMALL) -> Repository:
    repository = Repository.open(Store(fsspec.filesystem("file"), str(root)), PASSWORD, options=options)
    repository.load_index()
    return repository


def back_up(
    repository: Repository,
    tree: Path,
    workers: Workers = TWO,
    *,
    cancelled: Cancelled = never,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> BackupResult:
    source = FilesSource(FilesOptions(paths=(str(tree),)))
    archiver = Archiver(repository, cancelled=cancelled, journal=journal, progress=progress, workers=workers)
    return archiver.backup(source.export(None), paths=source.claims(), hostname=HOST)


def size_of(repository: Repository) -> int:
    return sum(size for _, size in repository.store.list(FileType.PACK))


def test_any_number_of_workers_makes_the_same_trees_of_the_same_size(
    repository: Repository, tree: Path, tmp_path: Path, started: list[Crew]
) -> None:
    seen, sizes = {}, []
    for most in (1, 2, 4):
        root = shutil.copytree(tmp_path / "repository", tmp_path / f"copy-{most}")
        with opened(root) as copy:
            done = back_up(copy, tree, Workers(most=most))
            nodes = tree_below(copy, done, tree)
            counts = done.summary
            seen[most] = (
                [(node.name, node.content, node.subtree, node.size) for node in nodes],
                (counts.data_blobs, counts.files_new, counts.total_bytes_processed),
                done.bytes_read,
            )
            assert done.warnings == []
            sizes.append(size_of(copy))
    assert max(sizes) < 1.02 * min(sizes)
    assert seen[1] == seen[2] == seen[4]
    assert [len(crew.processes) for crew in started] == [2, 4]
    expect_gone([process for crew in started for process in crew.processes])


def test_what_they_stored_is_listed_and_whole(repository: Repository, tree: Path, tmp_path: Path) -> None:
    done = back_up(repository, tree)
    again = opened(tmp_path / "repository")
    data = [blob for blob in again.index if blob.kind is BlobType.DATA]
    assert len(data) == len({blob.id for blob in data}) == done.summary.data_blobs
    for blob in data:
        again.load_blob(blob.kind, blob.id)
    assert sum(blob.length for blob in again.index) == done.summary.data_added_packed
    assert repository.stats.bytes_stored == size_of(repository)


def test_what_is_known_is_not_stored_again(repository: Repository, tree: Path) -> None:
    back_up(repository, tree)
    before = size_of(repository)
    again = back_up(repository, tree)
    assert again.summary.data_blobs == 0
    assert again.bytes_read > 20 * MIB
    assert size_of(repository) - before < 100_000


def test_progress_counts_each_file_once(repository: Repository, tree: Path) -> None:
    progress = Progress()
    done = back_up(repository, tree, progress=progress)
    assert progress.files_done == done.summary.total_files_processed
    assert progress.bytes_done == done.summary.total_bytes_processed == done.bytes_read


def disturbed(tree: Path) -> Iterator[Entry]:
    """What the walk saw is not what is read."""
    for entry in each_entry(FilesSource(FilesOptions(paths=(str(tree),))).export(None)):
        name = entry.node.name
        place = Path(os.fsdecode(entry.path))
        if name == b"001":
            place.unlink()
        elif name == b"002":
            place.rename(place.with_name("moved-away"))
            place.write_bytes(b"another")
        elif name == b"004":
            with place.open("ab") as file:
                file.write(b"more")
        yield entry


def test_what_befalls_files_is_told_as_by_one_process(repository: Repository, tree: Path, tmp_path: Path) -> None:
    told = {}
    for most in (1, 2):
        copy = shutil.copytree(tree, tmp_path / f"tree-{most}", symlinks=True)
        done = Archiver(repository, workers=Workers(most=most)).backup(disturbed(copy), paths=["/x"], hostname=HOST)
        told[most] = sorted((os.path.basename(problem.path), problem.message) for problem in done.warnings)
    assert told[1] == told[2]
    assert [name for name, _ in told[2]] == [b"001", b"001", b"002", b"004"]


def test_streams_are_read_here(repository: Repository) -> None:
    def entries() -> Iterator[Entry]:
        read = threading.Event()
        for name in (b"a", b"b"):
            node = Node(name=name, type="file")
            yield Entry(path=b"/" + name, node=node, open=lambda: io.BytesIO(b"x"), changed=lambda: read.set() or "")
            assert read.wait(10), "a source may wait until a stream was read"
            read.clear()

    done = Archiver(repository, workers=TWO).backup(entries(), paths=["/x"], hostname=HOST)
    assert done.summary.total_files_processed == 2


def test_a_store_of_this_process_alone_is_filled_by_it(tree: Path, started: list[Crew]) -> None:
    with new_repository(memory_store()) as repository:
        assert back_up(repository, tree).warnings == []
    assert started == []


def test_no_process_to_be_had_is_no_reason_to_fail(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_processes, "PROGRAM", ["/nowhere/python"])
    assert back_up(repository, tree).warnings == []


@pytest.mark.parametrize("program", ["import time; time.sleep(60)", "raise SystemExit(1)"])
def test_workers_that_are_never_ready_are_not_missed(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(file_storer, "FILES_FOR_WORKERS", 0)
    monkeypatch.setattr(worker_processes, "PROGRAM", [sys.executable, "-c", program])
    begun = time.monotonic()
    assert back_up(repository, tree).warnings == []
    assert time.monotonic() - begun < 20


def test_a_worker_that_is_ready_late_takes_its_parts_of_a_file(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(worker_processes, "PROGRAM", [sys.executable, "-m", "tests.support.late_worker"])
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(os.urandom(80 * MIB))
    done = back_up(repository, big)
    assert (done.warnings, done.bytes_read) == ([], 80 * MIB)


def endless(tree: Path, then: Callable[[], None]) -> Iterator[Entry]:
    """The tree's entries, then ever more files; ``then`` is called when the workers have begun."""
    yield from each_entry(FilesSource(FilesOptions(paths=(str(tree),))).export(None))
    last = max(os.fsencode(os.path.realpath(tree)).split(b"/")[1:2])
    recipe = Recipe("snappy.sources.local_node:LocalFile", (b"/nowhere", 0, 0, 0, 0, 0))
    number = 0
    while True:
        number += 1
        if number == 3000:
            then()
        node = Node(name=last + b"-%09d" % number, type="file", size=1000)
        yield Entry(path=b"/" + node.name, node=node, open=lambda: io.BytesIO(), recipe=recipe)


def test_a_worker_that_is_killed_ends_the_backup(repository: Repository, tree: Path, started: list[Crew]) -> None:
    def kill() -> None:
        os.kill(started[0].processes[1], signal.SIGKILL)

    with pytest.raises(WorkerDied, match="ended by signal 9") as failure:
        Archiver(repository, workers=TWO).backup(endless(tree, kill), paths=["/x"], hostname=HOST)
    assert failure.value.retryable
    expect_gone(started[0].processes)
    assert repository.store.list(FileType.SNAPSHOT) == []


def test_a_cancelled_backup_ends_the_workers_and_lists_what_they_stored(
    repository: Repository, tree: Path, tmp_path: Path, started: list[Crew]
) -> None:
    cancel = Cancel()

    def stop() -> None:
        cancel.over = True

    with pytest.raises(JobCancelled):
        Archiver(repository, cancelled=cancel, workers=TWO).backup(endless(tree, stop), paths=["/x"], hostname=HOST)
    expect_gone(started[0].processes)
    repository.list_stored()
    assert repository.store.list(FileType.SNAPSHOT) == []
    assert opened(tmp_path / "repository").load_unlisted().packs == 0


def test_who_waits_for_the_last_files_hears_of_the_end(repository: Repository, tree: Path, started: list[Crew]) -> None:
    progress = Progress()

    def over() -> None:
        if progress.bytes_done > MIB:
            raise AttemptOver

    with pytest.raises(AttemptOver):
        back_up(repository, tree, cancelled=over, progress=progress)
    expect_gone(started[0].processes)


def test_an_error_of_one_worker_is_the_backups(tree: Path, tmp_path: Path, started: list[Crew]) -> None:
    store = Elsewhere(tmp_path / "repository", "open_full")
    made = Repository.init(store, PASSWORD, options=SMALL, cost=CHEAP)
    with made as repository, pytest.raises(NoSpace, match="the disk is full") as failure:
        back_up(repository, tree)
    assert failure.value.hint == "buy one"
    expect_gone(started[0].processes)
    assert store.list(FileType.INDEX) == store.list(FileType.SNAPSHOT) == []
    assert store.tells == []


def test_an_error_here_ends_the_workers(
    repository: Repository, tree: Path, started: list[Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pack: object) -> None:
        raise Damaged("the index is broken")

    monkeypatch.setattr(repository, "take_in", broken)
    with pytest.raises(Damaged, match="the index is broken"):
        back_up(repository, tree)
    expect_gone(started[0].processes)


def test_workers_hear_what_their_store_has_to_know(tree: Path, tmp_path: Path, started: list[Crew]) -> None:
    store = Elsewhere(tmp_path / "repository", "open_listening")

    def told() -> set[bytes]:
        return {place.read_bytes() for place in tmp_path.glob("told-*[0-9]")}

    def tell() -> None:
        assert wait_for(lambda: told() == {b"first"} and len(list(tmp_path.glob("told-*[0-9]"))) == 2)
        store.tells[0](b"second")
        assert wait_for(lambda: told() == {b"second"})
        cancel.over = True

    cancel = Cancel()
    with Repository.init(store, PASSWORD, options=SMALL, cost=CHEAP) as repository, pytest.raises(JobCancelled):
        Archiver(repository, cancelled=cancel, workers=TWO).backup(endless(tree, tell), paths=["/x"], hostname=HOST)


def wait_for(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return happened()


def test_workers_end_with_the_process_that_started_them(repository: Repository, tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.mortal_backup", str(tmp_path / "repository"), str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as backup:
        assert backup.stdout
        workers = [int(word) for word in backup.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
        backup.kill()
    expect_gone(workers)
    assert repository.store.list(FileType.SNAPSHOT) == []
    done = back_up(repository, tree)
    assert done.warnings == []


def test_a_stopped_worker_does_not_hold_up_a_cancelled_backup(
    repository: Repository, tree: Path, started: list[Crew], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(member, "STOP_SECONDS", 0.2)
    cancel = Cancel()

    def stop() -> None:
        os.kill(started[0].processes[0], signal.SIGSTOP)
        cancel.over = True

    with pytest.raises(JobCancelled):
        Archiver(repository, cancelled=cancel, workers=TWO).backup(endless(tree, stop), paths=["/x"], hostname=HOST)
    expect_gone(started[0].processes)


@pytest.mark.parametrize(
    ("size", "stored", "left", "parts"),
    [(40 * MIB, 24 * MIB, 36 * MIB, GIB), (112 * MIB, 104 * MIB, 104 * MIB, MIB)],
    ids=["whole", "in parts"],
)
def test_a_later_attempt_goes_on_where_the_workers_were(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    stored: int,
    left: int,
    parts: int,
) -> None:
    """In parts: as far as the worker has come that is behind all others."""
    monkeypatch.setattr(crews, "WORTH_PARTS", parts)
    big = tmp_path / "big"
    big.mkdir()
    (big / "file").write_bytes(os.urandom(size))
    progress = Progress()

    def lost() -> None:
        if progress.bytes_done > stored:
            raise AttemptOver

    each_alone = Options(pack_size=SMALLEST)
    with opened(tmp_path / "repository", each_alone) as first, pytest.raises(AttemptOver):
        back_up(first, big, cancelled=lost, progress=progress, journal=Journal(first, "job", 1, MIB))
    with opened(tmp_path / "repository") as second:
        journal = Journal(second, "job", 2, MIB)
        assert journal.take_up(second.load_unlisted().apart) == 1
        done = back_up(second, big, journal=journal)
    assert 0 < done.bytes_read < left
    assert done.summary.total_bytes_processed == size
    with opened(tmp_path / "repository") as third:
        assert back_up(third, big).summary.data_blobs == 0
