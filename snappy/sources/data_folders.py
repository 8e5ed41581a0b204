"""Data folders of servers that are restored: made beside their place, and named when they are finished."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil

from snappy.errors import BadOptions, NoSpace
from snappy.repository.paths import shown

UNFINISHED = b".snappy-unfinished"


def check_empty(folder: bytes) -> None:
    """Raise :class:`BadOptions` where something stands in the place."""
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


def new_folder(path: bytes) -> int:
    """Empty, of mode 0700, and locked; nobody else may be restoring there."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise of_system(error) from error
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BadOptions(f"another restore makes {shown(path)}") from None
    for name in os.listdir(path):
        shutil.rmtree(os.path.join(path, name))
    return handle


def give(folder: bytes, user: int, group: int) -> None:
    """What a program made that ran as root."""
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files, b"."):
            os.chown(os.path.join(above, name), user, group, follow_symlinks=False)


def of_system(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no room to restore to: {error.strerror}", hint="free space where the data folder is to be")
    return error
