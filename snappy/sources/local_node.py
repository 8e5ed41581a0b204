"""Local files as entries: all that there is to say of one, and opening that is safe against swaps.

Conventions are restic's: extended attributes are all that the kernel lists, sockets are not backed up.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO, NamedTuple, cast

from snappy.repository.chunker import SMALLEST
from snappy.repository.entries import Entry, Recipe, Seen, SmallFile
from snappy.repository.lstat import node_of
from snappy.repository.paths import join

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_ATIME = getattr(os, "O_NOATIME", 0)
BEYOND = 4096
"""Bytes that are asked for where the file should have ended."""
HAS_XATTRS = hasattr(os, "listxattr")
VANISHED = "it vanished while it was read"
NO_XATTRS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA)


def read_xattrs(place: bytes | int) -> dict[bytes, bytes]:
    """All extended attributes of what has that path, never through a symlink, or is open. Raises ``OSError``."""
    if not HAS_XATTRS:
        return {}
    follow = isinstance(place, int)  # nothing is left to be followed
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno in NO_XATTRS:
            return {}
        raise
    if not names:
        return {}
    return {os.fsencode(name): os.getxattr(place, name, follow_symlinks=follow) for name in names}


def local_entry(path: bytes, place: bytes, found: os.stat_result, real: bytes | None = None) -> Entry:
    """The entry of the object at ``path``, whose ``lstat`` is ``found``; ``place`` is a name for it that the caller
    knows to mean the same object, at least for now. ``real`` is where it is read from, by default ``path``."""
    node = node_of(os.path.basename(path), found)
    entry = Entry(path=path, node=node)
    try:
        node.xattrs = read_xattrs(place)
        if node.type == "symlink":
            node.link_target = os.readlink(place)
    except OSError as error:
        entry.warning = node.error = incomplete(error)  # so that it is described again
    if node.type == "file":
        file = LocalFile(real or path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        entry.open, entry.changed, entry.recipe = file.open, file.changed, Recipe(LOCAL_FILE, file)
    return entry


def incomplete(error: OSError) -> str:
    """What is wrong with the metadata."""
    return f"metadata is incomplete: {error.strerror}"


class LocalFile(NamedTuple):
    """A regular file as ``lstat`` found it."""

    path: bytes
    st_dev: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int

    def open(self) -> BinaryIO:
        return open_same(self.path, self)

    def changed(self) -> str:
        return what_changed(self.path, self)


LOCAL_FILE = f"{LocalFile.__module__}:{LocalFile.__name__}"


class LocalFolder(NamedTuple):
    """The directory at ``path``, for whoever reads small files in it."""

    path: bytes

    def read(self, seen: Seen) -> SmallFile:
        """Open, read and describe the regular file that ``lstat`` found, not what somebody put in its place. What is
        larger by now than anything small is cut off. Raises ``OSError``."""
        handle = open_quietly(join(self.path, seen.name))
        try:
            found = os.fstat(handle)
            _check_same(found, seen)
            data = os.read(handle, seen.st_size + 1)
            if len(data) != seen.st_size:
                data += _rest(handle, SMALLEST - 1 - len(data))
            found = os.fstat(handle)
            xattrs, warning = _xattrs_or_why_not(handle)
        finally:
            os.close(handle)
        return SmallFile(data, found, xattrs, _difference(found, seen) if found.st_nlink else VANISHED, warning)


LOCAL_FOLDER = f"{LocalFolder.__module__}:{LocalFolder.__name__}"


def _rest(handle: int, size: int) -> bytes:
    with io.FileIO(handle, "rb", closefd=False) as file:
        return file.read(size) or b""


def _xattrs_or_why_not(handle: int) -> tuple[dict[bytes, bytes], str]:
    try:
        return read_xattrs(handle), ""
    except OSError as error:
        return {}, incomplete(error)


class LocalContent(io.FileIO):
    """A file that is about ``expected`` bytes long: asked for more, it does not reserve memory for more. When it gave
    just these although more was asked for, it is at its end, and nobody asks the system again."""

    def __init__(self, handle: int, expected: int) -> None:
        super().__init__(handle, "rb")
        self._left = expected
        self._at_end = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self._at_end:
            return b""
        wanted = -1 if size is None else size
        if wanted > self._left + BEYOND:
            wanted = self._left + BEYOND
        data = super().read(wanted) or b""
        self._at_end = self._left == len(data) < wanted
        self._left = max(0, self._left - len(data))
        return data


def open_same(path: bytes, found: LocalFile) -> BinaryIO:
    """Open the regular file that ``lstat`` found, not what somebody put in its place. Raises ``OSError``."""
    handle = open_quietly(path)
    try:
        opened = os.fstat(handle)
        _check_same(opened, found)
        return cast(BinaryIO, LocalContent(handle, opened.st_size))
    except BaseException:
        os.close(handle)
        raise


def _check_same(opened: os.stat_result, found: LocalFile | Seen) -> None:
    same = (opened.st_ino, opened.st_dev) == (found.st_ino, found.st_dev)
    if not (same and stat.S_ISREG(opened.st_mode)):
        raise OSError(errno.ESTALE, "was replaced by another file while the backup ran")


def open_quietly(path: bytes) -> int:
    """Without touching the access time where the kernel lets us (it does for owner and root)."""
    try:
        return os.open(path, READ_FLAGS | NO_ATIME)
    except PermissionError:
        return os.open(path, READ_FLAGS)


def what_changed(path: bytes, before: LocalFile) -> str:
    """Why what was read since ``before`` may be torn, or an empty string."""
    try:
        now = os.lstat(path)
    except OSError:
        return VANISHED
    return _difference(now, before)


def _difference(now: os.stat_result, before: LocalFile | Seen) -> str:
    if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (before.st_size, before.st_mtime_ns, before.st_ctime_ns):
        return "it changed while it was read"
    return ""
