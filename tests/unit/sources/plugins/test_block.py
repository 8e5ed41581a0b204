"""Image files and devices: their holes stay holes, and nothing of what was there before shines through."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, NoSpace, SourceError, SourceMissing, UnsafePath
from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.blocks import SMALLEST_BLOCK
from snappy.repository.entries import Entry, Node
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType
from snappy.sources import disks
from snappy.sources.image_sink import pieces
from snappy.sources.plugins.block import BlockOptions, BlockRestore, BlockSource
from snappy.sources.site import NOWHERE
from tests.support import engine
from tests.support.loops import loop

MIB = 1 << 20
SIZE = 6 * MIB


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Holes, and noise in two places."""
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset in (0, 4 * MIB + 4096):
            file.seek(offset)
            file.write(random.Random(offset).randbytes(300_000))
    return path


def entries(path: Path) -> list[Entry]:
    async def snap() -> list[Entry]:
        source = BlockSource(BlockOptions(path=str(path)))
        async with source.snap() as frozen:
            return list(source.export(frozen))

    return asyncio.run(snap())


def back_up(repository: Repository, path: Path, parent: Snapshot | None = None) -> BackupResult:
    archiver = Archiver(repository, parent=parent)
    return archiver.backup(entries(path), paths=[str(path)], hostname="host-a")


def bring_back(repository: Repository, snapshot: Snapshot, to: Path, **options: Any) -> RestoreResult:
    chosen = BlockRestore(to=str(to), **options)
    sink = BlockSource.import_(chosen, BlockSource.restore_claims(chosen, NOWHERE), NOWHERE)
    try:
        return Restorer(repository, sink).restore(snapshot)
    finally:
        sink.close()


def pack_of_trees(repository: Repository, done: BackupResult) -> str:
    place = repository.location(BlobType.TREE, done.snapshot.tree_id)
    assert place
    return place.pack.hex()


def test_a_sparse_image_is_as_sparse_when_it_comes_back(repository: Repository, image: Path, tmp_path: Path) -> None:
    done = back_up(repository, image)
    assert done.bytes_read <= 8 * SMALLEST_BLOCK
    bring_back(repository, done.snapshot, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == image.read_bytes()
    assert os.stat(tmp_path / "back").st_blocks <= os.stat(image).st_blocks
    assert sorted(os.listdir(tmp_path)) == ["back", "image"]


def test_an_image_that_did_not_change_is_not_read(repository: Repository, image: Path) -> None:
    first = back_up(repository, image)
    assert back_up(repository, image, first.snapshot).bytes_read == 0


def test_of_an_image_that_changed_only_that_is_stored(repository: Repository, image: Path) -> None:
    first = back_up(repository, image)
    with image.open("r+b") as file:
        file.seek(5 * MIB + 1)
        file.write(b"new")
    second = back_up(repository, image, first.snapshot)
    assert second.summary.data_blobs == 1
    assert second.summary.data_added < 2 * SMALLEST_BLOCK


def test_a_file_is_replaced_only_when_that_was_asked_for(repository: Repository, image: Path) -> None:
    content = image.read_bytes()
    done = back_up(repository, image)
    image.write_bytes(b"precious")
    with pytest.raises(BadOptions, match="exists"):
        bring_back(repository, done.snapshot, image)
    assert image.read_bytes() == b"precious"
    bring_back(repository, done.snapshot, image, overwrite=True)
    assert image.read_bytes() == content


def test_what_a_dead_restore_left_is_removed(repository: Repository, image: Path, tmp_path: Path) -> None:
    done = back_up(repository, image)
    (tmp_path / ".back.0123.snappy-unfinished").write_bytes(b"half of it")
    bring_back(repository, done.snapshot, tmp_path / "back")
    assert sorted(os.listdir(tmp_path)) == ["back", "image"]


def test_a_restore_that_fails_leaves_nothing(repository: Repository, image: Path, tmp_path: Path) -> None:
    done = back_up(repository, image)
    for name, _ in list(repository.store.list(FileType.PACK)):
        if name != pack_of_trees(repository, done):
            repository.store.remove(FileType.PACK, name)
    assert bring_back(repository, done.snapshot, tmp_path / "back").errors
    assert os.listdir(tmp_path) == ["image"]


def test_an_image_too_large_for_the_file_system_leaves_nothing(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SourceError, match="cannot be made") as caught:
        disks.FileDisk(os.fsencode(tmp_path / "back"), Node(name=b"image", type="file", size=1 << 62), overwrite=False)
    assert os.listdir(tmp_path) == []
    assert os.listdir("/proc/self/fd") == before, f"nor open, while {caught.value} is told of"


def test_no_symlink_leads_anywhere(repository: Repository, image: Path, tmp_path: Path) -> None:
    done = back_up(repository, image)
    (tmp_path / "link").symlink_to(image)
    refused = bring_back(repository, done.snapshot, tmp_path / "link", overwrite=True)
    assert [problem.code for problem in refused.errors] == [UnsafePath.code]
    with pytest.raises(BadOptions, match="neither"):
        entries(tmp_path / "link")


def test_names_that_anybody_may_give_are_no_devices(repository: Repository, image: Path) -> None:
    done = back_up(repository, image)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        planted = Path(folder) / "disk"
        planted.symlink_to("/dev/null")
        refused = bring_back(repository, done.snapshot, planted, overwrite=True)
        assert [problem.message for problem in refused.errors] == [f"{planted} is neither a file nor a block device"]
        with pytest.raises(BadOptions, match="neither"):
            entries(planted)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        entries(tmp_path / "nothing")
    with pytest.raises(BadOptions):
        BlockSource(BlockOptions(path="s3://bucket/image"))
    with pytest.raises(BadOptions, match="neither"):
        entries(tmp_path)


def test_a_device_is_not_overwritten_by_mistake(repository: Repository, image: Path) -> None:
    done = back_up(repository, image)
    with pytest.raises(BadOptions, match="overwritten"):
        bring_back(repository, done.snapshot, Path("/dev/null"))
    refused = bring_back(repository, done.snapshot, Path("/dev/null"), overwrite=True)
    assert [problem.code for problem in refused.errors] == [UnsafePath.code]


@pytest.mark.loop
def test_a_device_holds_nothing_but_the_image_afterwards(repository: Repository, image: Path, tmp_path: Path) -> None:
    larger = tmp_path / "larger"
    larger.write_bytes(b"stale" * (SIZE // 5 + MIB // 5 + 1) + bytes(-(SIZE // 5 * 5 + MIB) % 4096))
    os.truncate(larger, SIZE + MIB)
    with loop(image) as device:
        done = back_up(repository, device)
    with loop(larger) as device:
        bring_back(repository, done.snapshot, device, overwrite=True)
    assert larger.read_bytes() == image.read_bytes() + bytes(MIB)
    assert os.stat(larger).st_blocks * 512 < 2 * MIB  # what was stale is freed


@pytest.mark.loop
def test_a_device_without_holes_is_cleared_as_well(
    repository: Repository, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "PUNCH_HOLE", 1 << 20)  # as where the kernel knows no such thing
    stale = tmp_path / "stale"
    stale.write_bytes(b"s" * SIZE)
    done = back_up(repository, image)
    with loop(stale) as device:
        bring_back(repository, done.snapshot, device, overwrite=True)
    assert stale.read_bytes() == image.read_bytes()


@pytest.mark.loop
def test_a_device_that_is_smaller_or_in_use_is_refused(repository: Repository, image: Path, tmp_path: Path) -> None:
    done = back_up(repository, image)
    small = tmp_path / "small"
    small.write_bytes(b"s" * MIB)
    with loop(small) as device:
        with pytest.raises(NoSpace, match="1048576 bytes"):
            bring_back(repository, done.snapshot, device, overwrite=True)
        handle = os.open(device, os.O_RDWR | os.O_EXCL)
        try:
            with pytest.raises(SourceError, match="in use"):
                bring_back(repository, done.snapshot, device, overwrite=True)
        finally:
            os.close(handle)
    assert small.read_bytes() == b"s" * MIB


def test_zeros_are_told_from_other_bytes() -> None:
    data = b"a" + bytes(6) + b"b" * 3 + bytes(4)
    found = list(pieces(3, data, 4))
    assert found == [(0, 1, False), (1, 5, True), (5, 13, False), (13, 14, True)]
    assert list(pieces(0, b"", 4)) == []
