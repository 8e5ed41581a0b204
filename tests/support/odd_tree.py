"""A tree with one of every kind of object that a file system can hold, for backups and restores to prove themselves."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

LARGE = 9 << 20
HOLE = 3 << 20
WHEN = 1_234_567_890_123_456_789
"""Nanoseconds since the epoch, with digits down to the last."""


def make_odd_tree(top: Path) -> None:
    """Make the tree at ``top``, which must not exist. Device nodes and foreign owners only as root."""
    top.mkdir(parents=True)
    _contents(top)
    _names(top)
    _links(top)
    _modes(top)
    _xattrs(top)
    os.mkfifo(top / "fifo", 0o640)
    if os.geteuid() == 0:
        _as_root(top)
    _date_everything(top)


def _contents(top: Path) -> None:
    noise = random.Random(1)
    (top / "zero").write_bytes(b"")
    (top / "one").write_bytes(b"1")
    (top / "large").write_bytes(noise.randbytes(LARGE))
    (top / "twice").write_bytes(b"the same text in two files")
    (top / "again").write_bytes(b"the same text in two files")
    (top / "all zeros").write_bytes(bytes(1 << 20))
    with (top / "sparse").open("wb") as sparse:
        sparse.write(b"head")
        sparse.seek(HOLE)
        sparse.write(noise.randbytes(70_000))
        sparse.truncate(2 * HOLE)


def _names(top: Path) -> None:
    for name in (
        b"\xff not \xfe UTF-8",
        "ünïcödé ✓".encode(),
        b"new\nline",
        b"-dash",
        b" space ",
        b"back\\slash",
        b'"',
    ):
        Path(os.fsdecode(os.path.join(os.fsencode(top), name))).write_bytes(name)
    (top / "a" / "deep" / "er").mkdir(parents=True)
    (top / "a" / "deep" / "er" / "file").write_bytes(b"deep")
    (top / "a.b").write_bytes(b"sorts between a and a/")
    (top / "empty").mkdir()
    (top / ("n" * 255)).write_bytes(b"long")


def _links(top: Path) -> None:
    (top / "link").symlink_to("one")
    (top / "dangling").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "up").symlink_to("..")
    os.symlink(b"\xff target", os.fsencode(top / "odd target"))
    os.link(top / "large", top / "a" / "large too")
    os.link(top / "one", top / "one more")
    os.link(top / "one", top / "a" / "one more")


def _modes(top: Path) -> None:
    (top / "setuid").write_bytes(b"#!/bin/false\n")
    (top / "setuid").chmod(0o4755)
    (top / "setgid").mkdir()
    (top / "setgid").chmod(0o2775)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    (top / "read only").mkdir()
    (top / "read only" / "file").write_bytes(b"nobody may write")
    (top / "read only" / "file").chmod(0o444)
    (top / "read only").chmod(0o555)


def _xattrs(top: Path) -> None:
    try:
        os.setxattr(top / "one", "user.colour", b"blue")
        os.setxattr(top / "one", "user.binary", bytes(range(256)))
        os.setxattr(top / "one", "user.empty", b"")
        os.setxattr(top / "empty", "user.folder", b"yes")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise


def _as_root(top: Path) -> None:
    os.chown(top / "setuid", 1234, 2345)
    (top / "setuid").chmod(0o6755)
    os.chown(top / "link", 1234, 2345, follow_symlinks=False)
    os.chown(top / "setgid", 0, 2345)
    (top / "setgid").chmod(0o2775)
    os.mknod(top / "character device", 0o620 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "block device", 0o660 | stat.S_IFBLK, os.makedev(7, 200))


def _date_everything(top: Path) -> None:
    """Different times for all, directories after what is in them."""
    when = WHEN
    for folder, folders, files in os.walk(os.fsencode(top), topdown=False):
        for name in [*files, *folders]:
            when += 1_000_000_007
            os.utime(os.path.join(folder, name), ns=(when, when), follow_symlinks=False)
    os.utime(top, ns=(WHEN, WHEN))
