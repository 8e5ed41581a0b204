"""A backup that was lost amid its work: the next attempt reads only what is not known to be stored."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from snappy.errors import AttemptOver
from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.entries import Entry, Node
from snappy.repository.format import MIB, BlobType
from snappy.repository.journal import MOST_STEP, OPENING, STEPS, Journal, file_id
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository, Unlisted
from snappy.repository.store import FileType
from snappy.sources import local_node
from snappy.sources.files import FilesOptions, FilesSource
from tests.support.backups import HOST, back_up, tree_below
from tests.support.engine import new_repository, reopened

JOB = "job-1"
SMALL = Options(pack_size=MIB // 2, index_every=3600.0)
STEP = MIB
FILE = 600 * 1024


@pytest.fixture
def repository() -> Iterator[Repository]:
    with new_repository(options=SMALL) as made:
        yield made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of the files that were opened for their contents."""
    names: list[bytes] = []
    real = local_node.open_quietly

    def spy(path: bytes) -> int:
        names.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(local_node, "open_quietly", spy)
    return names


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Thirty files of one chunk each in two directories, all of noise."""
    for number in range(30):
        place = tmp_path / "tree" / f"{number % 2}" / f"{number:02}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(FILE))
    return tmp_path / "tree"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """One file of 40 MiB of noise, alone in its directory."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(os.urandom(40 * MIB))
    return tmp_path / "large"


def lost_after(progress: Progress, size: int) -> Callable[[], None]:
    def check() -> None:
        if progress.bytes_done >= size:
            raise AttemptOver

    return check


def attempt(
    repository: Repository, top: Path, number: int = 1, *, lost_at: int | None = None, job: str = JOB
) -> BackupResult:
    """An attempt as another process would make it; with ``lost_at`` it ends when it has done so many bytes."""
    progress = Progress()
    with reopened(repository, SMALL) as again:
        journal = Journal(again, job, number, STEP)
        if number > 1:
            journal.take_up(again.load_unlisted().apart)
        stop = (lambda: None) if lost_at is None else lost_after(progress, lost_at)
        source = FilesSource(FilesOptions(paths=(str(top),)))
        archiver = Archiver(again, progress=progress, cancelled=stop, journal=journal)
        return archiver.backup(source.export(None), paths=source.claims(), hostname=HOST)


def lost_attempt(repository: Repository, top: Path, lost_at: int, number: int = 1, job: str = JOB) -> None:
    with pytest.raises(AttemptOver):
        attempt(repository, top, number, lost_at=lost_at, job=job)


def unlisted(repository: Repository) -> Unlisted:
    return reopened(repository).load_unlisted()


def expect_as_read_anew(repository: Repository, result: BackupResult, top: Path) -> None:
    """The same trees come of reading everything, and nothing of it had to be stored."""
    whole = back_up(reopened(repository), top, force=True)
    fresh = reopened(repository)
    assert tree_below(fresh, whole, top) == tree_below(fresh, result, top)
    assert whole.summary.data_blobs == 0


def test_small_files_that_are_stored_are_not_opened_again(
    repository: Repository, tmp_path: Path, opened: list[bytes]
) -> None:
    for number in range(1000):
        (tmp_path / f"{number:03}").write_bytes(os.urandom(STEP // 100))
    lost_attempt(repository, tmp_path, lost_at=5 * STEP)
    opened.clear()
    done = attempt(repository, tmp_path, 2)
    assert 450 <= len(opened) <= 700
    assert done.summary.files_new == 1000
    expect_as_read_anew(repository, done, tmp_path)


def test_files_that_are_stored_are_not_opened_again(repository: Repository, tree: Path, opened: list[bytes]) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    opened.clear()
    done = attempt(repository, tree, 2)
    assert 10 <= len(opened) <= 16
    assert 9 * FILE < done.bytes_read <= len(opened) * FILE
    assert (done.summary.files_new, done.summary.total_bytes_processed) == (30, 30 * FILE)
    expect_as_read_anew(repository, done, tree)


def test_a_large_file_is_continued_in_its_midst(repository: Repository, large: Path) -> None:
    lost_attempt(repository, large, lost_at=20 * MIB)
    done = attempt(repository, large, 2)
    assert 0 < done.bytes_read < 34 * MIB
    assert done.summary.total_bytes_processed == 40 * MIB
    expect_as_read_anew(repository, done, large)


def test_a_third_attempt_knows_what_both_before_it_read(repository: Repository, large: Path) -> None:
    lost_attempt(repository, large, lost_at=16 * MIB)
    lost_attempt(repository, large, lost_at=32 * MIB, number=2)
    done = attempt(repository, large, 3)
    assert done.bytes_read < 28 * MIB
    expect_as_read_anew(repository, done, large)


@pytest.mark.parametrize("size", [FILE, FILE + 1])
def test_a_file_that_changed_in_between_is_read(
    repository: Repository, tree: Path, opened: list[bytes], size: int
) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    changed = tree / "0" / "00"
    before = changed.stat()
    changed.write_bytes(os.urandom(size))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    opened.clear()
    done = attempt(repository, tree, 2)
    assert b"00" in opened
    expect_as_read_anew(repository, done, tree)


def test_a_file_in_the_place_of_another_is_read(repository: Repository, tree: Path, opened: list[bytes]) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    (tree / "0" / "00").rename(tree / "0" / "01")
    opened.clear()
    attempt(repository, tree, 2)
    assert b"01" in opened


def test_blobs_that_are_gone_are_stored_again(repository: Repository, tree: Path) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    kept = {one.pack.id.hex() for one in unlisted(repository).apart}
    for name, _ in repository.store.list(FileType.PACK):
        if name not in kept:
            repository.store.remove(FileType.PACK, name)
    done = attempt(repository, tree, 2)
    assert done.bytes_read == 30 * FILE
    expect_as_read_anew(repository, done, tree)


def test_what_follows_a_record_that_was_lost_is_not_believed(repository: Repository, large: Path) -> None:
    lost_attempt(repository, large, lost_at=30 * MIB)
    apart = unlisted(repository).apart
    assert len(apart) > 3
    first = min(apart, key=lambda one: msgspec.msgpack.decode(one.data)[3])
    repository.store.remove(FileType.PACK, first.pack.id.hex())
    done = attempt(repository, large, 2)
    assert done.bytes_read == 40 * MIB
    expect_as_read_anew(repository, done, large)


def test_records_are_listed_when_the_backup_is_done(repository: Repository, tree: Path) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    left = unlisted(repository).apart
    assert left
    lost_attempt(repository, tree, lost_at=24 * FILE, number=2)
    assert {one.pack for one in left} <= {one.pack for one in unlisted(repository).apart}
    attempt(repository, tree, 3)
    assert unlisted(repository) == Unlisted(0, [])


def test_another_backup_takes_up_the_blobs_alone(repository: Repository, tree: Path) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    left = len(unlisted(repository).apart)
    other = attempt(repository, tree, 2, job="job-2")
    assert other.bytes_read == 30 * FILE
    assert other.summary.data_added < 30 * FILE // 2
    assert len(unlisted(repository).apart) == left


def test_content_that_looks_like_a_record_is_content(repository: Repository, tree: Path) -> None:
    lost_attempt(repository, tree, lost_at=20 * FILE)
    forged = unlisted(repository).apart[0].data
    with reopened(repository, SMALL) as writer:
        saved = writer.save_blob(BlobType.DATA, bytes(32) + forged + os.urandom(MIB))
        writer._writer._packs.wait()
    again = reopened(repository)
    again.load_unlisted()
    assert again.has_blob(BlobType.DATA, saved.id)


def test_a_record_of_another_version_is_passed_over(repository: Repository, tree: Path) -> None:
    repository.save_apart(b"\xc1")
    repository.save_apart(msgspec.msgpack.encode([2, JOB, 1, 1, []]))
    repository._writer._packs.wait()
    again = reopened(repository)
    found = again.load_unlisted().apart
    assert len(found) == 2
    assert Journal(again, JOB, 2).take_up(found) == 0


def test_what_cannot_be_sought_in_is_read_from_its_start(repository: Repository) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, offset: int, whence: int = 0, /) -> int:
            raise OSError("a pipe")

    content = os.urandom(40 * MIB)

    def entry() -> Entry:
        node = Node(name=b"pipe", type="file", size=len(content), mtime_ns=1)
        return Entry(path=b"/pipe", node=node, open=lambda: Pipe(content))

    progress, journal = Progress(), Journal(repository, JOB, 1, STEP)
    with pytest.raises(AttemptOver):
        Archiver(repository, progress=progress, cancelled=lost_after(progress, 12 * MIB), journal=journal).backup(
            [entry()], paths=["/pipe"], hostname=HOST
        )
    repository.close()
    again = reopened(repository, SMALL)
    later = Journal(again, JOB, 2, STEP)
    assert later.take_up(again.load_unlisted().apart) == 1
    done = Archiver(again, journal=later).backup([entry()], paths=["/pipe"], hostname=HOST)
    assert done.bytes_read == len(content)
    assert done.warnings_total == 0


class Shelf:
    """Stands for the repository of a journal that only writes."""

    def __init__(self) -> None:
        self.records: list[bytes] = []

    def save_apart(self, data: bytes) -> None:
        self.records.append(data)


def noted(files: int, size: int) -> int:
    """How many records so many files of one blob make."""
    shelf = Shelf()
    journal = Journal(shelf, JOB)  # type: ignore[arg-type]
    for number in range(files):
        journal.note(b"%032d" % number, 0, bytes(32), size)
    return len(shelf.records)


def test_records_are_few() -> None:
    assert noted(62, MIB) == 0
    assert noted(2048, MIB) == pytest.approx(32, abs=2)
    assert noted(1 << 14, 64 * MIB) < 11 * STEPS
    assert noted(4 * MOST_STEP // (64 * MIB), 64 * MIB) > 32


def test_small_files_count_for_their_opening() -> None:
    assert noted(64 * MIB // OPENING - 1, 0) == 0
    assert noted(64 * MIB // OPENING, 0) == 1


def test_every_sign_of_change_changes_the_name_of_a_file() -> None:
    def named(path: bytes = b"/x", **fields: int) -> bytes:
        return file_id(path, **{"size": 1, "mtime_ns": 2, "ctime_ns": 3, "inode": 4, **fields})

    names = {named(), named(b"/y"), named(size=5), named(mtime_ns=5), named(ctime_ns=5), named(inode=5)}
    assert len(names) == 6
    assert all(len(name) == 16 for name in names)
    assert named(inode=(1 << 64) - 1, mtime_ns=-(1 << 62))
    assert named(mtime_ns=0, ctime_ns=0) == b""
    assert named(size=0) == b""
