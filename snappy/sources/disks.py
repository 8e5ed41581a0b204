"""Block devices and image files of this machine: how large they are, where their holes are, how to write to them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from secrets import token_hex
from typing import NamedTuple

from snappy import log
from snappy.errors import BadOptions, NoSpace, SourceError, UnsafePath
from snappy.repository.entries import Extent, Node
from snappy.repository.paths import shown, split
from snappy.sources.open_folders import Folder, OpenFolders, open_folder
from snappy.sources.sparse import write_all

DEVICES, ANYBODYS = b"/dev/", b"/dev/shm/"
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PUNCH_HOLE, KEEP_SIZE = 2, 1
BLKZEROOUT = 0x127F
GRAIN = 4096
UNFINISHED = b".snappy-unfinished"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_log = log.get(__name__)


def names_device(path: bytes) -> bool:
    """Whether only the system gives such names: symlinks among them are followed."""
    return path.startswith(DEVICES) and not path.startswith(ANYBODYS)


def look(path: bytes) -> os.stat_result:
    """What is there, found without following a symlink, but for the names of devices. Raises ``OSError`` and
    :class:`UnsafePath`."""
    if names_device(path):
        return os.stat(path)
    *folders, name = split(path)
    above = Folder(os.open(b"/", FOLDER_FLAGS))
    for folder in folders:
        above = Folder(open_folder(folder, above.handle))
    return os.stat(name, dir_fd=above.handle, follow_symlinks=False)


def size_of(handle: int) -> int:
    """Bytes of an open file or device."""
    return os.lseek(handle, 0, os.SEEK_END)


def data_of(handle: int) -> Iterator[Extent]:
    """What is no hole. Raises ``OSError``."""
    end, size = 0, size_of(handle)
    while end < size:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole follows
                return
            if error.errno != errno.EINVAL:
                raise
            yield Extent(end, size - end)  # a device has no holes
            return
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield Extent(start, end - start)


class DeviceDisk:
    """A block device, to be restored to; see :class:`snappy.sources.image_sink.Disk`. Raises :class:`SourceError` for
    one that is in use, :class:`NoSpace` for one that is smaller than ``size``."""

    grain = GRAIN

    def __init__(self, path: bytes, size: int) -> None:
        self._path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise _not_opened(path, error) from error
        self._size = size_of(self._handle)
        if not stat.S_ISBLK(os.fstat(self._handle).st_mode):
            self.close()
            raise UnsafePath(f"{shown(path)} is no block device any more")
        if self._size < size:
            self.close()
            raise NoSpace(f"{shown(path)} has {self._size} bytes, the image {size}", hint="restore to a larger one")

    def write(self, offset: int, data: memoryview) -> None:
        write_all(self._handle, offset, data)

    def clear(self, offset: int, length: int) -> None:
        if _libc.fallocate(self._handle, PUNCH_HOLE | KEEP_SIZE, offset, length) == 0:
            return
        try:
            fcntl.ioctl(self._handle, BLKZEROOUT, struct.pack("QQ", offset, length))
        except OSError:  # the range is no multiple of its sectors, or the kernel is old
            for start in range(offset, offset + length, GRAIN):
                write_all(self._handle, start, memoryview(bytes(min(GRAIN, offset + length - start))))

    def finish(self, size: int) -> list[str]:
        aligned = min(-(-size // GRAIN) * GRAIN, self._size)
        write_all(self._handle, size, memoryview(bytes(aligned - size)))
        if aligned < self._size:
            self.clear(aligned, self._size - aligned)
        os.fsync(self._handle)
        return []

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _not_opened(path: bytes, error: OSError) -> SourceError:
    if error.errno == errno.EBUSY:
        return SourceError(f"{shown(path)} is in use", hint="unmount it, and whatever else is on it, first")
    return SourceError(f"{shown(path)} cannot be written to: {error.strerror}")


class FileDisk:
    """An image file. It is made under another name, which tells that it is unfinished, and takes its place at the end.
    Raises :class:`BadOptions` where something stands and may not be overwritten, :class:`SourceError`."""

    grain = GRAIN

    def __init__(self, path: bytes, node: Node, *, overwrite: bool) -> None:
        folder, self._name = os.path.split(path)
        self._path, self._node, self._overwrite = path, node, overwrite
        self._above = OpenFolders(folder).get(b"/")
        self._unfinished, self._handle = b"", -1
        try:
            self._refuse_overwriting()
            _remove_left(self._above.handle, self._name)
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        name = b".%s.%s%s" % (self._name, token_hex(4).encode(), UNFINISHED)
        try:
            self._handle = os.open(name, FILE_FLAGS, 0o600, dir_fd=self._above.handle)
            self._unfinished = name
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            os.ftruncate(self._handle, self._node.size)
        except OSError as error:
            raise SourceError(f"{shown(self._path)} cannot be made: {error.strerror}") from error

    def _refuse_overwriting(self) -> None:
        try:
            found = os.stat(self._name, dir_fd=self._above.handle, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not self._overwrite:
            raise BadOptions(f"{shown(self._path)} exists", hint="`overwrite` lets it be replaced")
        if not stat.S_ISREG(found.st_mode):
            raise UnsafePath(f"{shown(self._path)} is neither a file nor a block device")

    def write(self, offset: int, data: memoryview) -> None:
        write_all(self._handle, offset, data)

    def clear(self, offset: int, length: int) -> None:
        """Nothing was ever written there."""

    def finish(self, size: int) -> list[str]:
        os.fchmod(self._handle, self._node.mode & 0o777 or 0o600)
        os.utime(self._handle, ns=(self._node.mtime_ns, self._node.mtime_ns))
        os.fsync(self._handle)
        self._refuse_overwriting()
        above = self._above.handle
        os.rename(self._unfinished, self._name, src_dir_fd=above, dst_dir_fd=above)
        self._unfinished = b""
        return []

    def close(self) -> None:
        if self._handle >= 0:
            try:
                if self._unfinished:
                    os.unlink(self._unfinished, dir_fd=self._above.handle)
            finally:
                os.close(self._handle)
                self._handle = -1
        self._above.close()  # an error that is still told of may hold on to this


class _Left(NamedTuple):
    name: bytes
    handle: int


def _remove_left(above: int, name: bytes) -> None:
    """What processes that have died were restoring to that name."""
    for left in _unfinished(above, name):
        with suppress(BlockingIOError):  # one that has not
            fcntl.flock(left.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left.name, dir_fd=above)
            _log.info("removed what a dead restore left", file=shown(left.name))
        os.close(left.handle)


def _unfinished(above: int, name: bytes) -> Iterator[_Left]:
    for entry in os.listdir(f"/proc/self/fd/{above}"):
        found = os.fsencode(entry)
        if found.startswith(b".%s." % name) and found.endswith(UNFINISHED):
            with suppress(OSError):
                yield _Left(found, os.open(found, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above))
