"""Restores into a local directory, and nowhere else.

Every operation names one object in a directory that is open already (:mod:`snappy.sources.open_folders`): whatever
the tree says and whoever plants symlinks meanwhile, no path can lead outside.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import Literal, TypeVar

from snappy.errors import UnsafePath
from snappy.repository import makers
from snappy.repository.entries import Identity, Node, Recipe, Standing
from snappy.repository.paths import ROOT, check_name, split
from snappy.sources.local_metadata import Owner, apply
from snappy.sources.open_folders import Folder, OpenFolders
from snappy.sources.restored_local_file import REPLACED, LocalFile, LocalFilePart, StandingLocalFile, identity_of

FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HANDLE_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DEVICES = {"dev": stat.S_IFBLK, "chardev": stat.S_IFCHR}

Made = TypeVar("Made")
Overwrite = Literal["always", "if-changed", "if-newer", "never"]
"""What is to become of objects that stand there; the words are restic's, and mean the same."""


class LocalSink:
    """See :class:`snappy.repository.entries.SharedSink`. ``place`` is absolute, its symlinks resolved; it is created.

    Thread-safe: only directories are opened under a lock, so that several threads make files at a time.
    """

    def __init__(
        self, place: bytes, *, owner: Owner | None, allow_devices: bool = False, overwrite: Overwrite = "always"
    ) -> None:
        self._place, self._owner, self._allow_devices, self._overwrite = place, owner, allow_devices, overwrite
        self._lock = threading.Lock()
        self._made: dict[bytes, Identity] = {}
        """Device and inode of what was created and is not finished: nothing else will be given its metadata."""
        self._folders = OpenFolders(place)

    def standing(self, path: bytes, node: Node) -> Standing:
        name, above = self._named(path)
        if above.is_new:
            return Standing.IN_THE_WAY
        try:
            found = os.stat(name, dir_fd=above.handle, follow_symlinks=False)
        except FileNotFoundError:
            return Standing.IN_THE_WAY
        if self._overwrite == "never" or (self._overwrite == "if-newer" and node.mtime_ns <= found.st_mtime_ns):
            return Standing.LEFT
        return Standing.USEFUL if node.type == "file" and stat.S_ISREG(found.st_mode) else Standing.IN_THE_WAY

    def reuse(self, path: bytes, node: Node) -> StandingLocalFile | None:
        name, above = self._named(path)
        trust_times = self._overwrite == "if-changed"
        try:
            return StandingLocalFile(name, above.handle, node, self._owner, trust_times=trust_times)
        except OSError:
            return None

    def directory(self, path: bytes, node: Node) -> None:
        name, above = self._named(path)
        is_new = _make_folder(name, above.handle, replace=self._overwrite != "never")
        with self._lock:
            self._folders.forget(path)
            folder = self._folders.get(path)
        folder.is_new = is_new
        if not is_new:
            _make_usable(folder.handle)

    def file(self, path: bytes, node: Node) -> LocalFile:
        name, above = self._named(path)
        return _replacing(name, above.handle, lambda: LocalFile(name, above.handle, node, self._owner))

    def recipe(self) -> Recipe:
        return Recipe(makers.name_of(shared), (self._place, makers.name_of(self._owner) if self._owner else ""))

    def part(self, path: bytes, identity: Identity) -> LocalFilePart:
        name, above = self._named(path)
        return LocalFilePart(name, above.handle, identity)

    def link(self, path: bytes, existing: bytes) -> None:
        (name, above), (other, beside) = self._named(path), self._named(existing)
        _replacing(name, above.handle, lambda: _link(other, beside.handle, name, above.handle))

    def special(self, path: bytes, node: Node) -> None:
        if node.type in DEVICES and not self._allow_devices:
            raise PermissionError(errno.EPERM, "it is a device, and devices are not restored here")
        name, above = self._named(path)
        _replacing(name, above.handle, lambda: _make_special(name, above.handle, node))
        self._made[path] = identity_of(os.stat(name, dir_fd=above.handle, follow_symlinks=False))

    def finish(self, path: bytes, node: Node) -> list[str]:
        is_folder = node.type == "dir"
        expected = self._made.pop(path, None)
        name, above = self._named(path)
        handle = os.open(name, FOLDER_FLAGS if is_folder else HANDLE_FLAGS, dir_fd=above.handle)
        try:
            found = os.fstat(handle)
            _check_same(found, node, expected)
            return apply(handle if is_folder else f"/proc/self/fd/{handle}", node, found, owner=self._owner)
        finally:
            os.close(handle)

    def close(self) -> None:
        with self._lock:
            self._folders.close()

    def _named(self, path: bytes) -> tuple[bytes, Folder]:
        """The last name of ``path``, and the directory that holds it."""
        folder, _, name = path.rpartition(b"/")
        if folder in (b"", ROOT):
            split(path)  # what is right below the place must be written as that
        check_name(name)
        with self._lock:
            return name, self._folders.get(folder or ROOT)


def shared(place: bytes, owner: str) -> LocalSink:
    """What :meth:`LocalSink.recipe` names."""
    return LocalSink(place, owner=makers.find(owner) if owner else None)


def _check_same(found: os.stat_result, node: Node, expected: Identity | None) -> None:
    """Refuse to change an object that is not the one this restore made."""
    same = stat.S_ISDIR(found.st_mode) if node.type == "dir" else identity_of(found) == expected
    if not same:
        raise UnsafePath(REPLACED)


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


def _make_folder(name: bytes, above: int, *, replace: bool) -> bool:
    """Make a directory, keeping one that is there; anything else of that name, symlinks above all, is replaced, or
    where it has to stay an error. Whether it is a new one."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        if _is_folder(name, above):
            return False
        if not replace:
            raise FileExistsError(errno.EEXIST, "what stands there is no directory, and has to stay") from None
        os.unlink(name, dir_fd=above)
        os.mkdir(name, 0o700, dir_fd=above)
    return True


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
