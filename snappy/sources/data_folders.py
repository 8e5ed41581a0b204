"""Data folders of servers that are restored: made beside their place, and named when they are finished."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import ExitStack
from typing import Annotated

from msgspec import Meta

from snappy.errors import BadOptions, NoSpace, SourceError
from snappy.repository.paths import shown

UNFINISHED = b".snappy-unfinished"

Goal = Annotated[str, Meta(description="the absolute path of the folder, which is empty or not there")]
"""An option of restores."""


class NewFolder:
    """What is to become the folder ``place``, which is absolute, its symlinks resolved. All happens below ``path``,
    ``<place>.snappy-unfinished``, of mode 0700; the next restore to the same place begins it anew. Raises
    :class:`BadOptions` where something stands in the place, or somebody else restores to it."""

    def __init__(self, place: bytes) -> None:
        self._place, self.path = place, place + UNFINISHED
        try:
            _check_empty(place)
            with ExitStack() as held:
                held.callback(os.close, _made(self.path))
                held.callback(shutil.rmtree, self.path, ignore_errors=True)
                _empty(self.path)
                self._held = held.pop_all()
        except OSError as error:
            raise of_system(error) from error

    def make(self, name: bytes) -> bytes:
        """A folder in it."""
        made = os.path.join(self.path, name)
        try:
            os.mkdir(made, 0o700)
        except OSError as error:
            raise of_system(error) from error
        return made

    def put(self, made: bytes, user: int, group: int) -> None:
        """Give what was made below ``path`` its owner, where root works, and its place."""
        try:
            if os.geteuid() == 0:
                _give(made, user, group)
            os.chmod(made, 0o700)
            _check_empty(self._place)
            os.replace(made, self._place)
        except OSError as error:
            raise of_system(error) from error

    def close(self) -> None:
        """May be called twice."""
        self._held.close()


def of_system(error: OSError) -> Exception:
    """What a user is told of it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no room to restore to: {error.strerror}", hint="free space where the data folder is to be")
    return SourceError(
        f"the data folder cannot be made: {error}", hint="look whether the service may write to the folder above it"
    )


def _check_empty(folder: bytes) -> None:
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        found = [folder]
    if found:
        raise BadOptions(
            f"{shown(folder)} is there, and not empty", hint="move it away: a server's data folder is not replaced"
        )


def _made(path: bytes) -> int:
    """A folder that nobody else has locked, and the lock on it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # it was left, or it is in use
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass  # whoever had it came to an end
        except BlockingIOError:
            os.close(handle)
            raise BadOptions(f"another restore makes {shown(path)}") from None
        os.close(handle)


def _empty(folder: bytes) -> None:
    with os.scandir(folder) as found:
        for left in found:
            if left.is_dir(follow_symlinks=False):
                shutil.rmtree(left.path)
            else:
                os.unlink(left.path)


def _give(folder: bytes, user: int, group: int) -> None:
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files, b"."):
            os.chown(os.path.join(above, name), user, group, follow_symlinks=False)
