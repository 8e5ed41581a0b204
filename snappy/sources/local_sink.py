"""Restores into a local directory, and nowhere else.

Every operation names one object in a directory that is open already (:mod:`snappy.sources.open_folders`): whatever
the tree says and whoever plants symlinks meanwhile, no path can lead outside.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from snappy.errors import UnsafePath
from snappy.repository.entries import Node
from snappy.repository.paths import ROOT, parent, split
from snappy.sources.local_metadata import Owner, apply
from snappy.sources.open_folders import OpenFolders
from snappy.sources.sparse import write_sparse

CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HANDLE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DEVICES = {"dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}

Made = TypeVar("Made")


class LocalFile:
    """An open file of a restore; see :class:`snappy.repository.entries.FileWriter`."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write_at(self, offset: int, data: bytes) -> None:
        write_sparse(self._handle, offset, data)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        self.close()


class LocalSink:
    """See :class:`snappy.repository.entries.Sink`. ``place`` is absolute, its symlinks resolved; it is created.

    Thread-safe: only directories are opened under a lock, so that several threads make files at a time.
    """

    def __init__(self, place: bytes, *, owner: Owner | None, allow_devices: bool = False) -> None:
        self._owner, self._allow_devices = owner, allow_devices
        self._lock = threading.Lock()
        self._made: dict[bytes, tuple[int, int]] = {}
        """Device and inode of what was created and is not finished: nothing else will be given its metadata."""
        self._folders = OpenFolders(place)

    def directory(self, path: bytes, node: Node) -> None:
        with self._named(path) as (name, above):
            _make_folder(name, above)
        with self._lock:
            self._folders.forget(path)
            _make_usable(self._folders.get(path))

    def file(self, path: bytes, node: Node) -> LocalFile:
        with self._named(path) as (name, above):
            handle = _replacing(name, above, lambda: os.open(name, CREATE_FLAGS, 0o600, dir_fd=above))
        try:
            self._made[path] = _identity(os.fstat(handle))
            os.ftruncate(handle, node.size)
        except BaseException:
            os.close(handle)
            raise
        return LocalFile(handle)

    def link(self, path: bytes, existing: bytes) -> None:
        with self._named(path) as (name, above), self._named(existing) as (other, beside):
            _replacing(name, above, lambda: _link(other, beside, name, above))

    def special(self, path: bytes, node: Node) -> None:
        if node.type in DEVICES and not self._allow_devices:
            raise PermissionError(errno.EPERM, "it is a device, and devices are not restored here")
        with self._named(path) as (name, above):
            _replacing(name, above, lambda: _make_special(name, above, node))
            self._made[path] = _identity(os.stat(name, dir_fd=above, follow_symlinks=False))

    def finish(self, path: bytes, node: Node) -> list[str]:
        is_plain = node.type in ("file", "dir")
        expected = self._made.pop(path, None)
        with self._named(path) as (name, above):
            handle = os.open(name, READ_FLAGS if is_plain else HANDLE_FLAGS, dir_fd=above)
        try:
            _check_same(os.fstat(handle), node, expected)
            return apply(handle if is_plain else f"/proc/self/fd/{handle}", node, owner=self._owner)
        finally:
            os.close(handle)

    def close(self) -> None:
        with self._lock:
            self._folders.close()

    @contextmanager
    def _named(self, path: bytes) -> Iterator[tuple[bytes, int]]:
        """The last name of ``path``, and the directory that holds it, open as long as the context."""
        if path == ROOT:
            raise UnsafePath("the place itself cannot be replaced")
        name = split(path)[-1]
        with self._lock:
            above = os.dup(self._folders.get(parent(path)))
        try:
            yield name, above
        finally:
            os.close(above)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _check_same(found: os.stat_result, node: Node, expected: tuple[int, int] | None) -> None:
    """Refuse to change an object that is not the one this restore made."""
    same = stat.S_ISDIR(found.st_mode) if node.type == "dir" else _identity(found) == expected
    if not same:
        raise UnsafePath("it was replaced by something else while the restore ran")


def _replacing(name: bytes, above: int, make: Callable[[], Made]) -> Made:
    """Make an object, removing what has its name; a directory must be empty for that."""
    try:
        return make()
    except FileExistsError:
        if _is_folder(name, above):
            os.rmdir(name, dir_fd=above)
        else:
            os.unlink(name, dir_fd=above)
        return make()


def _is_folder(name: bytes, above: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)


def _make_folder(name: bytes, above: int) -> None:
    """Make a directory, keeping one that is there; anything else of that name, symlinks above all, is replaced."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        if not _is_folder(name, above):
            os.unlink(name, dir_fd=above)
            os.mkdir(name, 0o700, dir_fd=above)


def _make_usable(handle: int) -> None:
    """A directory that was there may forbid its owner to write; it gets its mode when it is finished."""
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    if mode & 0o700 != 0o700 and os.geteuid() != 0:
        os.chmod(f"/proc/self/fd/{handle}", mode | 0o700)


def _link(other: bytes, beside: int, name: bytes, above: int) -> None:
    os.link(other, name, src_dir_fd=beside, dst_dir_fd=above, follow_symlinks=False)


def _make_special(name: bytes, above: int, node: Node) -> None:
    if node.type == "symlink":
        os.symlink(node.link_target, name, dir_fd=above)
    elif node.type == "fifo":
        os.mkfifo(name, 0o600, dir_fd=above)
    elif node.type in DEVICES:
        os.mknod(name, DEVICES[node.type] | 0o600, node.device, dir_fd=above)
    else:
        raise OSError(errno.EOPNOTSUPP, f"an object of type {node.type} cannot be restored")
