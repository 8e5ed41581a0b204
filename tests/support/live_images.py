"""A file system on an RBD image of a real cluster, and who writes files to it that tell whether they are whole."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ceph import POOL, Ceph
from tests.support.loops import loop

FILES = 40


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
