"""A file system on an RBD image, written to as fast as it goes while backups are made: each of them is sound."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.sources import base
from snappy.sources.site import Site
from tests.support import engine
from tests.support.ceph import POOL, Ceph, running
from tests.support.images import back_up, bring_back
from tests.support.loops import loop

pytestmark = [
    pytest.mark.ceph,
    pytest.mark.long,
    pytest.mark.loop,
    pytest.mark.fuse,
]

SIZE = 192 << 20
FILES = 40
BACKUPS = 4


@contextmanager
def as_files(ceph: Ceph, place: Path) -> Iterator[Path]:
    """The pool's images as files."""
    place.mkdir()
    ceph.run("rbd-fuse", "-c", str(ceph.folder / "ceph.conf"), "-p", POOL, str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def mounted(device: Path, place: Path, *options: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, device, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


class Writer(threading.Thread):
    """Writes files that begin with their hash, beside their places, and puts them there."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place, self._over, self.written = place, threading.Event(), 0

    def run(self) -> None:
        while not self._over.is_set():
            data = os.urandom(1000 + 40_000 * (self.written % 9))
            new = self._place / "new"
            with new.open("wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
                os.fsync(file.fileno())
            new.rename(self._place / f"file-{self.written % FILES}")
            self.written += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def expect_sound(image: Path, place: Path) -> int:
    """How many files are there, all of them whole."""
    replayed = subprocess.run(["e2fsck", "-p", image], capture_output=True, text=True, check=False)
    assert replayed.returncode in (0, 1), replayed.stdout + replayed.stderr
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    with loop(image) as device, mounted(device, place, "-o", "ro") as found:
        files = list(found.glob("file-*"))
        for file in files:
            content = file.read_bytes()
            assert hashlib.sha256(content[32:]).digest() == content[:32]
    return len(files)


def test_each_backup_is_a_sound_file_system(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as ceph, engine.new_repository() as repository:
        ceph.create("live", SIZE)
        site = Site("north", {"rbd": {"default": ceph.settings()}})
        with as_files(ceph, tmp_path / "images") as images, loop(images / "live") as device:
            subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
            with mounted(device, tmp_path / "live") as place:
                writer = Writer(place)
                writer.start()
                try:
                    made = _backups(repository, site, writer)
                finally:
                    writer.stop()
    found = []
    for number, snapshot in enumerate(made):
        bring_back(repository, snapshot, "block", site, to=str(tmp_path / f"{number}"))
        found.append(expect_sound(tmp_path / f"{number}", tmp_path / "back"))
    assert found[-1] == FILES


def _backups(repository: Repository, site: Site, writer: Writer) -> list[Snapshot]:
    source = base.load("rbd")
    snapshots: list[Snapshot] = []
    read: list[int] = []
    while len(snapshots) < BACKUPS or writer.written < 2 * FILES:
        made = source(base.parse(source.Options, {"pool": POOL, "image": "live"}), site)
        before = writer.written
        done = back_up(repository, made, snapshots[-1] if snapshots else None)
        assert writer.written > before, "nothing was written meanwhile"
        snapshots.append(done.snapshot)
        read.append(done.bytes_read)
    assert max(read) < SIZE
    return snapshots
