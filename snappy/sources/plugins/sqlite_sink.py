"""Restores SQLite databases into a folder: under a name of ours first, in place when all are there and checked."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from snappy.errors import Damaged, NoSpace, SourceError
from snappy.repository.entries import Node
from snappy.repository.paths import ROOT, shown
from snappy.sources.open_folders import Folder, OpenFolders
from snappy.sources.plugins.sqlite_copy import Check, fault

UNFINISHED = b".snappy-unfinished-"
BESIDE = (b"-wal", b"-shm", b"-journal")
"""What SQLite keeps beside a database: of another one it would spoil the new."""
FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Made(NamedTuple):
    folder: Folder
    name: bytes

    @property
    def unfinished(self) -> bytes:
        return UNFINISHED + self.name


class SqliteSink:
    """See :class:`snappy.repository.entries.StreamSink`. Folders that are missing are made; of those that stand nothing
    is changed."""

    def __init__(self, place: bytes, *, overwrite: bool, check: Check) -> None:
        self._overwrite, self._check = overwrite, check
        self._folders = OpenFolders(place)
        self._made: list[_Made] = []

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        try:
            self._write(self._begun(path), node, content)
        except OSError as error:
            raise _explained(path, error) from error
        return []

    def finish(self) -> list[str]:
        for made in self._made:
            for ending in BESIDE:
                with suppress(FileNotFoundError):
                    os.unlink(made.name + ending, dir_fd=made.folder.handle)
            handle = made.folder.handle
            os.replace(made.unfinished, made.name, src_dir_fd=handle, dst_dir_fd=handle)
            _settle(handle)
        self._made.clear()
        return []

    def close(self) -> None:
        for made in self._made:
            with suppress(OSError):
                os.unlink(made.unfinished, dir_fd=made.folder.handle)
        self._made.clear()
        self._folders.close()

    def _begun(self, path: bytes) -> _Made:
        folder, _, name = path.rpartition(b"/")
        made = _Made(self._folder(folder or ROOT), name)
        if not self._overwrite and _exists(name, made.folder.handle):
            raise SourceError(
                f"{shown(path)} stands there already",
                hint="restore to another folder, or with overwrite: true once nobody uses it",
            )
        with suppress(FileNotFoundError):
            os.unlink(made.unfinished, dir_fd=made.folder.handle)
        self._made.append(made)
        return made

    def _write(self, made: _Made, node: Node, content: Iterator[bytes]) -> None:
        with os.fdopen(os.open(made.unfinished, FLAGS, 0o600, dir_fd=made.folder.handle), "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
            if said := fault(b"/proc/self/fd/%d/%s" % (made.folder.handle, made.unfinished), self._check):
                raise Damaged(f"{shown(made.name)} is not put in place: {said}", hint="with check: none it is")
            if os.geteuid() == 0:
                os.fchown(file.fileno(), node.uid, node.gid)
            os.fchmod(file.fileno(), node.mode & 0o777)

    def _folder(self, path: bytes) -> Folder:
        try:
            return self._folders.get(path)
        except FileNotFoundError:
            above = self._folder(os.path.dirname(path))
            os.mkdir(os.path.basename(path), 0o755, dir_fd=above.handle)
            return self._folders.get(path)


def _settle(folder: int) -> None:
    """The names in it outlive a power cut."""
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _exists(name: bytes, above: int) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _explained(path: bytes, error: OSError) -> SourceError | NoSpace:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"there is no room to restore {shown(path)}", hint="free space there, or restore elsewhere")
    return SourceError(f"{shown(path)} cannot be restored: {error.strerror}", hint="look at the folder's permissions")
