"""A tree of thousands of entries, every odd kind among them, and the changes that time makes to one."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.support.odd_tree import make_odd_tree

FOLDERS, FILES_EACH = 30, 50
KNOWS_ODD_TARGETS = (0, 16)
"""Older ones replace bytes of a link's target that are not UTF-8 (https://github.com/restic/restic/issues/3311)."""


def make_tree(top: Path, restic: tuple[int, ...] = KNOWS_ODD_TARGETS) -> None:
    """The odd tree and :data:`FOLDERS` of small files, at ``top``; without what that version of restic cannot keep."""
    make_odd_tree(top)
    if restic < KNOWS_ODD_TARGETS:
        (top / "odd target").unlink()
    noise = random.Random(2)
    for folder in range(FOLDERS):
        place = top / "many" / f"folder {folder}"
        place.mkdir(parents=True)
        for number in range(FILES_EACH):
            (place / f"file {number}").write_bytes(noise.randbytes(noise.randrange(2000)))


def change_tree(top: Path, seed: int) -> None:
    """Some of everything that can happen to a tree between two backups; a different some for each ``seed``."""
    noise = random.Random(seed)
    for folder in noise.sample(range(FOLDERS), 4):
        _change_folder(top / "many" / f"folder {folder}", noise)
    with (top / "large").open("r+b") as large:
        large.seek(noise.randrange(8 << 20))
        large.write(noise.randbytes(100_000))
    _replace(top, seed)
    (top / f"linked {seed}").hardlink_to(top / "twice")
    (top / "setuid").chmod(0o4700 + seed)
    if os.listxattr(top / "one"):  # the file system has them
        os.setxattr(top / "one", "user.colour", f"colour {seed}".encode())
    os.mkfifo(top / f"fifo {seed}")
    (top / f"new and empty {seed}").mkdir(mode=0o700)


def _change_folder(folder: Path, noise: random.Random) -> None:
    here = sorted(folder.iterdir())
    for path in here[:5]:
        path.write_bytes(noise.randbytes(path.stat().st_size))
    for path in here[5:10]:
        path.unlink()
    for path in here[10:15]:
        path.rename(path.with_name(f"renamed {path.name}"))
    for path in here[15:20]:
        path.chmod(noise.choice((0o600, 0o640, 0o4711)))
    (folder / "added").write_bytes(noise.randbytes(3000))


def _replace(top: Path, seed: int) -> None:
    """A name that stood for one kind of object stands for another."""
    (top / "link").unlink()
    (top / "link").symlink_to(f"target {seed}")
    once = top / f"once a file {seed}"
    once.mkdir()
    (once / "inside").write_bytes(b"now a folder")
    if (top / "zero").is_file():
        (top / "zero").unlink()
        (top / "zero").mkdir()
    else:
        (top / "zero").rmdir()
        (top / "zero").write_bytes(b"a file again")
