"""A disk of a test's own, in a file behind a loop device: it can fill up, turn read-only, and lose its power.

Needs root and a loop device: tests that use one carry the marker ``loop``.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

EXT4 = ("mkfs.ext4", "-q", "-F", "-m", "0")
BTRFS = ("mkfs.btrfs", "-q", "--mixed")
SHUT_DOWN = 0x8004587D
"""FS_IOC_SHUTDOWN of ext4 and xfs (ioctl_xfs_goingdown(2)): the file system stops at once."""
DROP_THE_JOURNAL = 2
"""FSOP_GOING_FLAGS_NOLOGFLUSH: neither the page cache nor the journal reaches the disk, as in a power cut."""
LET_GO_SECONDS = 10.0


class Disk:
    """A file system at ``place``, ext4 or what ``make`` makes. Made by :func:`disk`."""

    def __init__(self, image: Path, place: Path, size: int, make: Sequence[str]) -> None:
        self.image, self.place = image, place
        with image.open("wb") as file:
            file.truncate(size)
        _run(*make, str(image))
        place.mkdir()
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.place))

    def unmount(self) -> None:
        """Whoever was killed a moment ago may still be about to let go of a file."""
        deadline = monotonic() + LET_GO_SECONDS
        while (error := _error_of("umount", str(self.place))) and "busy" in error and monotonic() < deadline:
            sleep(0.05)
        assert not error, error

    def room(self) -> int:
        """Bytes that are free."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize

    def make_read_only(self) -> None:
        _run("mount", "-o", "remount,ro", str(self.place))

    def cut_power(self) -> None:
        """All that did not reach the disk is lost; each access fails until it is mounted again."""
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUT_DOWN, struct.pack("I", DROP_THE_JOURNAL))
        finally:
            os.close(handle)


def _run(*command: str) -> None:
    error = _error_of(*command)
    assert not error, error


def _error_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{' '.join(command)}: {done.stderr}" if done.returncode else ""


@contextmanager
def disk(folder: Path, size: int, make: Sequence[str] = EXT4) -> Iterator[Disk]:
    """A disk of ``size`` bytes, mounted at ``folder/disk`` for the length of the context."""
    made = Disk(folder / "image", folder / "disk", size, make)
    try:
        yield made
    finally:
        made.unmount()
