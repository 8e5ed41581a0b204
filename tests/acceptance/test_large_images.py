"""A disk of 4 GiB with a file system on it, of which 1 % changes: what a second backup of it reads and sends, and that
the file system is sound when it comes back."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from snappy.repository.archiver import BackupResult
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.sources import base
from snappy.sources.disks import data_of
from snappy.sources.site import Site
from tests.support.ceph import POOL, Ceph, running
from tests.support.engine import CHEAP, PASSWORD
from tests.support.images import back_up, bring_back

pytestmark = [pytest.mark.long, pytest.mark.loop, pytest.mark.timeout(600)]

MIB = 1 << 20
GIB = 1 << 30
SIZE = 4 * GIB
FILES, FILE = 16, 64 * MIB
RUN = MIB // 4
CHANGED = SIZE // 100
PIECE = 64 << 10


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    place = image.parent / "mounted"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Files of noise, which fill a quarter of it."""
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    with mounted(path) as place:
        for number in range(FILES):
            (place / f"{number}").write_bytes(random.Random(number).randbytes(FILE))
    return path


def change(image: Path) -> None:
    """1 % of the disk, all over the files."""
    chance = random.Random("change")
    with mounted(image) as place:
        for _ in range(CHANGED // RUN):
            with (place / f"{chance.randrange(FILES)}").open("r+b") as file:
                file.seek(chance.randrange((FILE - RUN) // 4096) * 4096)
                file.write(chance.randbytes(RUN))


def upload(image: Path, before: Path | None, ceph: Ceph) -> None:
    """What differs from ``before``, as if it had been written there."""
    zeros = bytes(PIECE)
    with image.open("rb") as new, ceph.image("one") as disk:
        old = before.open("rb") if before else None
        for offset, length in data_of(new.fileno()):
            for at in range(offset, offset + length, PIECE):
                data = os.pread(new.fileno(), min(PIECE, offset + length - at), at)
                known = os.pread(old.fileno(), len(data), at) if old else zeros[: len(data)]
                if data != known:
                    disk.write(data, at)
        if old:
            old.close()


def expect_sound(image: Path, same: Path) -> None:
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    subprocess.run(["cmp", image, same], check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.init(store, PASSWORD, cost=CHEAP) as made:
        yield made


def test_block_sends_little_more_than_what_changed(image: Path, repository: Repository, tmp_path: Path) -> None:
    source = base.load("block")
    site = Site("north")
    made = source(base.parse(source.Options, {"path": str(image)}), site)
    first = back_up(repository, made)
    change(image)
    second = back_up(repository, made, first.snapshot)
    print(_figures(first), _figures(second))
    assert second.summary.data_added_packed < SIZE * 0.03
    bring_back(repository, second.snapshot, "block", site, to=str(tmp_path / "back"))
    expect_sound(tmp_path / "back", image)


@pytest.mark.ceph
def test_rbd_reads_and_sends_little_more_than_what_changed(image: Path, repository: Repository, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as ceph:
        source = base.load("rbd")
        site = Site("north", {"rbd": {"default": ceph.settings()}})
        made = source(base.parse(source.Options, {"pool": POOL, "image": "one"}), site)
        ceph.create("one", SIZE)
        upload(image, None, ceph)
        first = back_up(repository, made)
        before = image.rename(tmp_path / "before")
        subprocess.run(["cp", "--sparse=always", before, image], check=True)
        change(image)
        upload(image, before, ceph)
        second = back_up(repository, made, first.snapshot)
        print(_figures(first), _figures(second))
        assert second.bytes_read < SIZE * 0.05
        assert second.summary.data_added_packed < SIZE * 0.03
    bring_back(repository, second.snapshot, "block", site, to=str(tmp_path / "back"))
    expect_sound(tmp_path / "back", image)


def _figures(done: BackupResult) -> str:
    return f"read {done.bytes_read >> 20} MiB, stored {done.summary.data_added_packed >> 20} MiB"
