"""Compare two trees of files, byte for byte and attribute for attribute. Imports nothing of Snappy.

    python tests/support/compare.py A B [--holes] [--no-owners] [--no-root]

Prints the differences (the first 50) and a summary line; exits with 1 when there are any. Both trees are walked in
step, so memory does not grow with the number of files; only names with several hard links are remembered.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 1 << 20
SHOWN = 50


@dataclass
class Comparison:
    """What two trees have in common and what not. Paths are bytes, relative to the trees' tops."""

    files: int = 0
    others: int = 0
    bytes: int = 0
    different: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, path: bytes, what: str) -> None:
        self.different += 1
        if len(self.differences) < SHOWN:
            self.differences.append(f"{path.decode('utf-8', 'backslashreplace') or '.'}: {what}")

    @property
    def same(self) -> bool:
        return not self.different

    def summary(self) -> str:
        found = f"{self.different} differences" if self.different else "identical"
        return f"{self.files} files, {self.others} other objects, {self.bytes} bytes compared: {found}"


@dataclass(frozen=True)
class Options:
    """What is compared: ``holes`` the blocks allocated, ``owners`` user and group, ``root`` the tops' own metadata."""

    holes: bool = False
    owners: bool = True
    root: bool = True
    xattrs: bool = True


class Comparer:
    """One comparison of two trees; see :func:`compare`."""

    def __init__(self, left: bytes, right: bytes, options: Options) -> None:
        self.left, self.right, self.options = left, right, options
        self.found = Comparison()
        self._groups: tuple[dict[tuple[int, int], bytes], dict[tuple[int, int], bytes]] = ({}, {})

    def run(self) -> Comparison:
        pending = [b""]
        while pending:
            path = pending.pop()
            if self._same_kind(path) and stat.S_ISDIR(os.lstat(self._in(self.left, path)).st_mode):
                pending.extend(reversed(list(self._children(path))))
        return self.found

    def _in(self, top: bytes, path: bytes) -> bytes:
        return os.path.join(top, path) if path else top

    def _children(self, path: bytes) -> Iterator[bytes]:
        left = set(os.listdir(self._in(self.left, path)))
        right = set(os.listdir(self._in(self.right, path)))
        for name in sorted(left ^ right):
            self.found.differ(os.path.join(path, name), "only in the first" if name in left else "only in the second")
        yield from (os.path.join(path, name) for name in sorted(left & right))

    def _same_kind(self, path: bytes) -> bool:
        one, other = (os.lstat(self._in(top, path)) for top in (self.left, self.right))
        if stat.S_IFMT(one.st_mode) != stat.S_IFMT(other.st_mode):
            self.found.differ(path, f"type {stat.filemode(one.st_mode)[0]} and {stat.filemode(other.st_mode)[0]}")
            return False
        if path or self.options.root:
            self._metadata(path, one, other)
        if stat.S_ISREG(one.st_mode):
            self._file(path, one, other)
        else:
            self._other(path, one, other)
        return True

    def _metadata(self, path: bytes, one: os.stat_result, other: os.stat_result) -> None:
        is_link = stat.S_ISLNK(one.st_mode)
        fields = [("mtime (ns)", one.st_mtime_ns, other.st_mtime_ns)]
        if not is_link:
            fields.append(("mode", oct(stat.S_IMODE(one.st_mode)), oct(stat.S_IMODE(other.st_mode))))
        if self.options.owners:
            fields.append(("owner", (one.st_uid, one.st_gid), (other.st_uid, other.st_gid)))
        if self.options.xattrs:
            fields.append(("xattrs", xattrs(self._in(self.left, path)), xattrs(self._in(self.right, path))))
        for name, here, there in fields:
            if here != there:
                self.found.differ(path, f"{name} {here!r} and {there!r}")

    def _other(self, path: bytes, one: os.stat_result, other: os.stat_result) -> None:
        self.found.others += 1
        if stat.S_ISLNK(one.st_mode):
            targets = [os.readlink(self._in(top, path)) for top in (self.left, self.right)]
            if targets[0] != targets[1]:
                self.found.differ(path, f"link target {targets[0]!r} and {targets[1]!r}")
        is_device = stat.S_ISBLK(one.st_mode) or stat.S_ISCHR(one.st_mode)
        if is_device and one.st_rdev != other.st_rdev:
            self.found.differ(path, f"device number {one.st_rdev} and {other.st_rdev}")

    def _file(self, path: bytes, one: os.stat_result, other: os.stat_result) -> None:
        self.found.files += 1
        self._hard_links(path, one, other)
        if one.st_size != other.st_size:
            self.found.differ(path, f"size {one.st_size} and {other.st_size}")
            return
        if self.options.holes and (one.st_blocks < other.st_blocks) and one.st_blocks * 512 < one.st_size:
            self.found.differ(path, f"holes: {one.st_blocks} and {other.st_blocks} blocks allocated")
        where = first_difference(self._in(self.left, path), self._in(self.right, path))
        if where is not None:
            self.found.differ(path, f"content differs in the block at byte {where}")
        self.found.bytes += one.st_size

    def _hard_links(self, path: bytes, one: os.stat_result, other: os.stat_result) -> None:
        """Both sides must name the same first path for a file with several names. Names outside the tree do not
        count: a group is what was seen here."""
        firsts = [
            group.setdefault((found.st_dev, found.st_ino), path) if found.st_nlink > 1 else path
            for group, found in zip(self._groups, (one, other), strict=True)
        ]
        if firsts[0] != firsts[1]:
            self.found.differ(path, f"hard link of {firsts[0]!r} and of {firsts[1]!r}")


def xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def first_difference(left: bytes, right: bytes) -> int | None:
    """The offset of the first differing block of 1 MiB, or ``None``."""
    with open(left, "rb", buffering=0) as one, open(right, "rb", buffering=0) as other:
        where = 0
        while True:
            here, there = one.read(BLOCK), other.read(BLOCK)
            if here != there:
                return where
            if not here:
                return None
            where += len(here)


def compare(left: bytes | str | Path, right: bytes | str | Path, options: Options | None = None) -> Comparison:
    """Compare the trees ``left`` and ``right``; ``OSError`` when one cannot be read."""
    return Comparer(os.fsencode(left), os.fsencode(right), options or Options()).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--holes", action="store_true", help="the second tree may not fill holes of the first")
    parser.add_argument("--no-owners", action="store_true", help="ignore users and groups")
    parser.add_argument("--no-root", action="store_true", help="ignore the metadata of A and B themselves")
    given = parser.parse_args()
    options = Options(holes=given.holes, owners=not given.no_owners, root=not given.no_root)
    found = compare(given.left, given.right, options)
    print("\n".join([*found.differences, found.summary()]))
    return 0 if found.same else 1


if __name__ == "__main__":
    sys.exit(main())
