"""Files of a restore into a local directory: one that is being made, and one that stood there before."""

from __future__ import annotations

import os
import stat

from snappy.errors import UnsafePath
from snappy.repository.entries import Identity, Node
from snappy.sources.local_metadata import Owner, apply
from snappy.sources.sparse import write_sparse

CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
PART_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_ATIME = getattr(os, "O_NOATIME", 0)
ZERO = bytes(1)
REPLACED = "it was replaced by something else while the restore ran"
ACL = "system.posix_acl_access"


def identity_of(found: os.stat_result) -> Identity:
    """By which a file is known, whatever its name."""
    return found.st_dev, found.st_ino


class _OpenFile:
    """A descriptor, and what the file behind it is to become."""

    def __init__(self, handle: int, node: Node, owner: Owner | None) -> None:
        self._handle, self._node, self._owner = handle, node, owner

    def finish(self) -> list[str]:
        return apply(self._handle, self._node, os.fstat(self._handle), owner=self._owner)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class LocalFile(_OpenFile):
    """See :class:`snappy.repository.entries.FileWriter`. Until it is finished only its maker may read it."""

    def __init__(self, name: bytes, above: int, node: Node, owner: Owner | None) -> None:
        super().__init__(os.open(name, CREATE_FLAGS, 0o600, dir_fd=above), node, owner)
        self._end = 0

    def write_at(self, offset: int, data: bytes) -> None:
        write_sparse(self._handle, offset, data)
        if not data.endswith(ZERO):
            self._end = max(self._end, offset + len(data))

    def identity(self) -> Identity:
        return identity_of(os.fstat(self._handle))

    def finish(self) -> list[str]:
        self._reach_end()
        return super().finish()

    def close(self) -> None:
        if self._handle >= 0:
            self._reach_end()
            super().close()

    def discard(self) -> None:
        super().close()

    def _reach_end(self) -> None:
        """What ends with zeros may not have been written up to there. Of threads that write at the same time one may
        have made the end that is known too small, none too large."""
        if self._end < self._node.size:
            os.ftruncate(self._handle, self._node.size)
            self._end = self._node.size


class LocalFilePart:
    """A file that another process has open as its :class:`LocalFile`; see
    :meth:`snappy.repository.entries.SharedSink.part`."""

    def __init__(self, name: bytes, above: int, expected: Identity) -> None:
        self._handle = os.open(name, PART_FLAGS, dir_fd=above)
        if identity_of(os.fstat(self._handle)) != expected:
            self.close()
            raise UnsafePath(REPLACED)

    def write_at(self, offset: int, data: bytes) -> None:
        write_sparse(self._handle, offset, data)

    def finish(self) -> list[str]:
        return []

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def discard(self) -> None:
        self.close()


class StandingLocalFile(_OpenFile):
    """See :class:`snappy.repository.entries.StandingFile`; with ``trust_times`` one with the size and the time of the
    last change that it is to have counts as right. Raises ``OSError``."""

    def __init__(self, name: bytes, above: int, node: Node, owner: Owner | None, *, trust_times: bool) -> None:
        super().__init__(_open_quietly(name, above), node, owner)
        found = os.fstat(self._handle)
        self._is_file = stat.S_ISREG(found.st_mode)
        right_size = self._is_file and found.st_size == node.size
        self.may_stay = right_size and _is_in_no_other_hand(self._handle, found, node, owner)
        self.is_trusted = trust_times and self.may_stay and found.st_mtime_ns == node.mtime_ns

    def read_at(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._handle, length, offset) if self._is_file else b""
        except OSError:  # what cannot be read is replaced
            return b""


def _open_quietly(name: bytes, above: int) -> int:
    """Without touching the access time where the kernel lets us (it does for owner and root)."""
    try:
        return os.open(name, READ_FLAGS | NO_ATIME, dir_fd=above)
    except PermissionError:
        return os.open(name, READ_FLAGS, dir_fd=above)


def _is_in_no_other_hand(handle: int, found: os.stat_result, node: Node, owner: Owner | None) -> bool:
    """Whether nobody could have opened the file, or have another name for it, who could not with the one that would
    take its place: what he has open, he can read and write for ever."""
    uid, gid = owner(node) if owner else (os.geteuid(), found.st_gid)
    same_owner = (found.st_uid, found.st_gid) == (uid, gid)
    same_mode = found.st_nlink == 1 and not found.st_mode & ~node.mode & 0o077
    return same_owner and same_mode and _acl(handle) in (None, (node.xattrs or {}).get(os.fsencode(ACL)))


def _acl(handle: int) -> bytes | None:
    """Who else is let in, as the kernel keeps it; a mode alone does not say."""
    try:
        return os.getxattr(handle, ACL)
    except OSError:  # none, or a file system without
        return None
