"""What is taken over of a disk's last image, and what is read all the same."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from snappy.errors import AttemptOver
from snappy.repository import file_storer, mosaic
from snappy.repository.blocks import LARGEST_BLOCK, SMALLEST_BLOCK, block_for
from snappy.repository.crew import Crew
from snappy.repository.entries import Recipe
from snappy.repository.format import MIB, BlobId
from snappy.repository.journal import Journal
from snappy.repository.mosaic import Mosaic, Stretch, moment_of
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.team import Workers
from snappy.sources.local_node import LOCAL_FILE, LocalFile
from tests.support import engine
from tests.support.fake_disk import PATH, FakeDisk, back_up, content_of, node_of
from tests.support.worker_stores import all_are_ready

BLOCK = SMALLEST_BLOCK
SIZE = 8 * BLOCK
SMALL = Options(pack_size=MIB // 2, index_every=3600.0)


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk(random.Random(1).randbytes(SIZE))


def test_what_was_written_is_read_and_nothing_else(repository: Repository, disk: FakeDisk) -> None:
    first = back_up(repository, disk.now().entry())
    disk.content[5 * BLOCK - 1 : 5 * BLOCK + 1] = b"ab"
    second = back_up(repository, disk.now().entry(), parent=first.snapshot)
    assert (first.bytes_read, second.bytes_read) == (SIZE, 2 * BLOCK)
    assert second.summary.data_added < 3 * BLOCK
    assert content_of(repository, second.snapshot) == disk.content


def test_holes_are_not_read(repository: Repository) -> None:
    disk = FakeDisk(bytes(SIZE + 1000))
    disk.content[3 * BLOCK] = 1
    done = back_up(repository, disk.now().entry())
    assert disk.read == BLOCK
    assert content_of(repository, done.snapshot) == disk.content
    assert done.summary.data_blobs == 3  # what was written, a block of zeros, and the end


@pytest.mark.parametrize("forgotten", [True, False])
def test_without_what_changed_all_is_read(repository: Repository, disk: FakeDisk, forgotten: bool) -> None:
    first = back_up(repository, disk.now().entry())
    if forgotten:
        disk.moments.clear()
    again = back_up(repository, disk.now().entry(), parent=first.snapshot, force=not forgotten)
    assert again.bytes_read == SIZE
    assert again.summary.data_blobs == 0


def test_a_blob_that_is_missing_is_read_again(
    repository: Repository, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(repository, disk.now().entry())
    lost = (node_of(repository, first.snapshot).content or [])[2]
    known = repository.stored_size
    monkeypatch.setattr(repository, "stored_size", lambda blob: None if blob == lost else known(blob))
    assert back_up(repository, disk.now().entry(), parent=first.snapshot).bytes_read == BLOCK


def test_from_a_node_that_was_mended_nothing_is_taken(repository: Repository, disk: FakeDisk) -> None:
    first = back_up(repository, disk.now().entry())
    node = node_of(repository, first.snapshot)
    assert moment_of(node) == ("moment 1", BLOCK)
    del (node.content or [])[0]
    assert moment_of(node) is None
    mended = repository.save_tree([node]).id
    first.snapshot.tree = mended.hex()
    assert back_up(repository, disk.now().entry(), parent=first.snapshot).bytes_read == SIZE


def test_what_may_be_torn_is_no_base(repository: Repository, disk: FakeDisk) -> None:
    done = back_up(repository, disk.now().entry(changed=lambda: "somebody wrote"))
    assert [problem.path for problem in done.warnings] == [PATH]
    assert moment_of(node_of(repository, done.snapshot)) is None


def test_an_image_that_cannot_be_read_is_left_out_once(repository: Repository, disk: FakeDisk) -> None:
    def fail() -> BinaryIO:
        raise OSError(5, "the disk is broken")

    entry = disk.now().entry()
    entry.open = fail
    done = back_up(repository, entry)
    assert [problem.message for problem in done.warnings] == ["it cannot be read: the disk is broken"]
    assert repository.load_tree(done.snapshot.tree_id) == []


def test_an_image_that_becomes_shorter_is_left_out(repository: Repository, disk: FakeDisk) -> None:
    moment = disk.now()
    entry = moment.entry()
    moment.content = moment.content[: SIZE // 2]
    moment.allocated = lambda: iter([(0, SIZE)])  # type: ignore[assignment,method-assign,return-value]
    done = back_up(repository, entry)
    assert "shorter" in done.warnings[0].message


def test_the_next_attempt_goes_on_where_the_last_was_lost() -> None:
    disk, progress = FakeDisk(random.Random(2).randbytes(24 * MIB)), Progress()
    entry = disk.now().entry()

    def lose() -> None:
        if progress.bytes_done >= 12 * MIB:
            raise AttemptOver

    with engine.new_repository(options=SMALL) as first, pytest.raises(AttemptOver):
        back_up(first, entry, progress=progress, cancelled=lose, journal=Journal(first, "job", 1, MIB))
    with engine.reopened(first, SMALL) as again:
        journal = Journal(again, "job", 2, MIB)
        assert journal.take_up(again.load_unlisted().apart) == 1
        done = back_up(again, entry, journal=journal)
        assert 0 < done.bytes_read < 20 * MIB
        again.load_index()
        assert content_of(again, done.snapshot) == disk.content


def test_blocks_grow_with_the_disk() -> None:
    assert block_for(0) == block_for(4 << 30) == SMALLEST_BLOCK
    assert block_for(1 << 40) == LARGEST_BLOCK


def test_blocks_stay_as_they_are_when_a_disk_grows(
    repository: Repository, disk: FakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(repository, disk.now().entry()).snapshot
    monkeypatch.setattr("snappy.repository.mosaic.block_for", lambda size: 2 * BLOCK)
    disk.content += bytes(BLOCK)
    second = back_up(repository, disk.now().entry(), parent=first)
    assert second.bytes_read == BLOCK
    assert content_of(repository, second.snapshot) == disk.content


def test_workers_read_what_one_process_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_storer, "FILES_FOR_WORKERS", 0)
    monkeypatch.setattr(Crew, "is_ready", all_are_ready)
    disk = FakeDisk(random.Random(3).randbytes(9 * MIB) + bytes(MIB) + b"end")
    file = tmp_path / "image"
    contents: list[list[BlobId]] = []
    for most in (1, 2):
        store = Store(fsspec.filesystem("file"), str(tmp_path / f"repository-{most}"))
        with Repository.init(store, engine.PASSWORD, cost=engine.CHEAP) as repository:
            file.write_bytes(disk.content)
            found = os.stat(file)
            recipe = Recipe(
                LOCAL_FILE,
                LocalFile(bytes(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
            )
            done = back_up(repository, disk.now().entry(recipe=recipe), workers=Workers(most=most))
            repository.load_index()
            assert content_of(repository, done.snapshot) == disk.content
            contents.append(node_of(repository, done.snapshot).content or [])
    assert contents[0] == contents[1]


def test_a_backup_that_is_given_up_plans_no_more(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaic, "BYTES_TOGETHER", BLOCK)
    disk = FakeDisk(random.Random(4).randbytes(64 * BLOCK))
    made: list[int] = []
    real = mosaic.Stretch.__init__

    def spy(stretch: Stretch, whole: Mosaic, first: int, blobs: list[BlobId | None]) -> None:
        made.append(first)
        real(stretch, whole, first, blobs)

    def give_up() -> None:
        if made:
            raise AttemptOver

    monkeypatch.setattr(mosaic.Stretch, "__init__", spy)
    with pytest.raises(AttemptOver):
        back_up(repository, disk.now().entry(), cancelled=give_up)
    assert len(made) == 1
