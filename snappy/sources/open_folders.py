"""Directories below one place, opened one name at a time and never through a symlink, a bounded number kept open."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict

from snappy.errors import SourceError, UnsafePath
from snappy.repository.paths import ROOT, join, shown, split

KEPT_OPEN = 128
FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class OpenFolders:
    """``place`` is absolute and free of symlinks; missing directories of it are made. Not thread-safe.

    Raises :class:`UnsafePath` when a symlink stands on the way, :class:`SourceError` when the place cannot be opened.
    """

    def __init__(self, place: bytes) -> None:
        self._root = _open_place(place)
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def get(self, path: bytes) -> int:
        """A descriptor of the directory ``path``, good until the next call. Raises ``OSError``."""
        if path == ROOT:
            return self._root
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        return self._descend(path)

    def _descend(self, path: bytes) -> int:
        here, handle = ROOT, self._root
        for name in split(path):
            here = join(here, name)
            handle = self.get(here) if here in self._open else self._keep(here, open_folder(name, handle))
        return handle

    def _keep(self, path: bytes, handle: int) -> int:
        self._open[path] = handle
        if len(self._open) > KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return handle

    def forget(self, path: bytes) -> None:
        """Close one directory."""
        handle = self._open.pop(path, None)
        if handle is not None:
            os.close(handle)

    def close(self) -> None:
        """Close all; may be called twice."""
        for path in list(self._open):
            self.forget(path)
        if self._root >= 0:
            os.close(self._root)
            self._root = -1


def open_folder(name: bytes, above: int) -> int:
    """Open the directory ``name`` in ``above``. Raises :class:`UnsafePath` for a symlink, else ``OSError``."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP) and is_symlink(name, above):
            raise UnsafePath(f"a symlink stands where the directory {shown(name)} should be") from error
        raise


def is_symlink(name: bytes, above: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)


def _open_place(place: bytes) -> int:
    handle = os.open(b"/", FOLDER_FLAGS)
    try:
        for name in split(place):
            handle = _step(name, handle)
    except OSError as error:
        os.close(handle)
        raise SourceError(f"cannot restore to {shown(place)}: {error.strerror}") from error
    except UnsafePath:
        os.close(handle)
        raise
    return handle


def _step(name: bytes, above: int) -> int:
    """The directory ``name``, made where it is missing; closes ``above`` when that worked."""
    try:
        below = open_folder(name, above)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=above)
        below = open_folder(name, above)
    os.close(above)
    return below
