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


class Folder:
    """An open directory, until it is closed or nobody refers to it any more. ``is_new`` while nothing can be in it but
    what its maker puts there."""

    __slots__ = ("handle", "is_new")

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.is_new = False

    def close(self) -> None:
        """May be called twice."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()


class OpenFolders:
    """``place`` is absolute and free of symlinks; missing directories of it are made. Not thread-safe.

    Raises :class:`UnsafePath` when a symlink stands on the way, :class:`SourceError` when the place cannot be opened.
    """

    def __init__(self, place: bytes) -> None:
        self._root: Folder | None = Folder(_open_place(place))
        self._open: OrderedDict[bytes, Folder] = OrderedDict()

    def get(self, path: bytes) -> Folder:
        """The directory ``path``. Raises ``OSError``."""
        found = self._open.get(path)
        if found is None:
            return self._descend(path)
        self._open.move_to_end(path)
        return found

    def _descend(self, path: bytes) -> Folder:
        if self._root is None:
            raise ValueError("the place is closed")
        here, folder = ROOT, self._root
        for name in split(path):
            here = join(here, name)
            folder = self._open.get(here) or self._keep(here, Folder(open_folder(name, folder.handle)))
        return folder

    def _keep(self, path: bytes, folder: Folder) -> Folder:
        self._open[path] = folder
        if len(self._open) > KEPT_OPEN:
            self._open.popitem(last=False)
        return folder

    def forget(self, path: bytes) -> None:
        """Open one directory anew when it is asked for."""
        self._open.pop(path, None)

    def close(self) -> None:
        """Let go of all; may be called twice."""
        self._open.clear()
        self._root = None


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
        raise SourceError(
            f"cannot restore to {shown(place)}: {error.strerror}",
            hint="name a folder that the source service may make, or may write to",
        ) from error
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
