"""A repository as a file system of the kernel, read-only, over FUSE.

mfusepy it is: it needs no compiler, speaks to libfuse 2 and 3, and is kept; fusepy (and with it ``fsspec.fuse``) is
not, and pyfuse3 speaks to libfuse 3 alone and needs its headers. ``fsspec.fuse`` knows neither links nor owners.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from snappy import log
from snappy.browse import words
from snappy.browse.layout import Folder, layout
from snappy.errors import NotFound, SnappyError, UsageError
from snappy.repository.browsable import NoDirectory
from snappy.repository.entries import Node
from snappy.repository.snapshots import Snapshot
from snappy.repository.stored_file import StoredFile
from snappy.repository.view import View

try:
    import mfusepy
except ImportError:
    raise UsageError("to mount a repository takes mfusepy", hint="pip install 'snappy-backup[mount]'") from None
except OSError:
    raise UsageError(
        "to mount a repository takes libfuse", hint="install your system's fuse3 (or fuse) package"
    ) from None

LISTED_SECONDS = 60.0
"""So old may the list of snapshots be."""
BLOCK = 512

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
_LOG = log.get(__name__)


def _told(work: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """What it raises as the kernel's errors."""

    @wraps(work)
    def told(*arguments: Given.args, **options: Given.kwargs) -> Answer:
        try:
            return work(*arguments, **options)
        except NoDirectory:
            raise mfusepy.FuseOSError(errno.ENOTDIR) from None
        except NotFound:
            raise mfusepy.FuseOSError(errno.ENOENT) from None
        except SnappyError as error:
            _LOG.error("what was asked cannot be read", reason=error.message)
            raise mfusepy.FuseOSError(errno.EIO) from error

    return told


class Mount(mfusepy.Operations):
    """Answers the kernel, from any thread. ``listed`` gives the snapshots to show, oldest first. ``owner_root``: all
    belongs to root, whoever it belonged to."""

    use_ns = True

    def __init__(self, view: View, listed: Callable[[], Iterable[Snapshot]], *, owner_root: bool = False) -> None:
        self._view, self._listed, self._owner_root = view, listed, owner_root
        self._lock = threading.Lock()
        self._layout: Folder = {}
        self._looked = float("-inf")
        self._open: dict[int, StoredFile] = {}
        self._handles = itertools.count(1)

    def _top(self) -> Folder:
        with self._lock:
            if time.monotonic() - self._looked > LISTED_SECONDS:
                self._look()
            return self._layout

    def _look(self) -> None:
        """What was listed before stays where the repository does not answer."""
        try:
            self._view.refresh()
            self._layout = layout(self._listed())
        except SnappyError as error:
            if not self._layout:
                raise
            _LOG.warning("the list of snapshots is an old one", reason=error.message)
        self._looked = time.monotonic()

    def _find(self, path: str) -> Folder | str | tuple[Snapshot, bytes]:
        """A folder or link of the layout, or a snapshot with a path in it. Raises NotFound."""
        here: Folder | Snapshot | str | None = self._top()
        names = [name for name in path.split("/") if name]
        while names and isinstance(here, dict):
            here = here.get(names.pop(0))
        if isinstance(here, Snapshot):
            return here, words.raw("/".join(names))
        if here is None or names:
            raise NotFound()
        return here

    def _node(self, path: str) -> Node:
        """Raises NotFound where there is a folder or link of the layout."""
        found = self._find(path)
        if not isinstance(found, tuple):
            raise NotFound()
        return self._view.tree_of(found[0]).node(found[1])

    @_told
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = self._find(path)
        if isinstance(found, dict):
            return self._stat(path, Node(name=b"", type="dir", mode=0o555))
        if isinstance(found, str):
            return self._stat(path, Node(name=b"", type="symlink", mode=0o777, link_target=words.raw(found)))
        return self._stat(path, self._view.tree_of(found[0]).node(found[1]))

    def _stat(self, path: str, node: Node) -> dict[str, Any]:
        size = words.size(node)
        return {
            "st_mode": words.st_mode(node),
            "st_ino": _inode(path, node),
            "st_nlink": node.links or 1,
            "st_uid": 0 if self._owner_root else node.uid,
            "st_gid": 0 if self._owner_root else node.gid,
            "st_rdev": node.device,
            "st_size": size,
            "st_blocks": -(-size // BLOCK),
            "st_mtime": node.mtime_ns,
            "st_atime": node.atime_ns,
            "st_ctime": node.ctime_ns,
        }

    @_told
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int] | None, int]]:
        """Names, each with its type and inode where they are known."""
        found = self._find(path)
        listed: list[tuple[str, dict[str, int] | None, int]] = [(".", None, 0), ("..", None, 0)]
        if not isinstance(found, tuple):
            return listed + [(name, None, 0) for name in (found if isinstance(found, dict) else ())]
        for child in self._view.tree_of(found[0]).children(found[1]):
            name = words.text(child.name)
            listed.append((name, {"st_mode": words.st_mode(child), "st_ino": _inode(f"{path}/{name}", child)}, 0))
        return listed

    @_told
    def readlink(self, path: str) -> str:
        found = self._find(path)
        return found if isinstance(found, str) else words.text(self._node(path).link_target)

    @_told
    def open(self, path: str, flags: int) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise mfusepy.FuseOSError(errno.EROFS)
        stored = self._view.file(self._node(path))
        with self._lock:
            handle = next(self._handles)
            self._open[handle] = stored
        return handle

    @_told
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return self._open[fh].read(offset, size)

    def release(self, path: str, fh: int) -> int:
        with self._lock:
            del self._open[fh]
        return 0

    @_told
    def listxattr(self, path: str) -> list[str]:
        found = self._find(path)
        return [words.text(name) for name in self._node(path).xattrs] if isinstance(found, tuple) else []

    @_told
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        if isinstance(self._find(path), tuple):
            value = self._node(path).xattrs.get(words.raw(name))
            if value is not None:
                return value
        raise mfusepy.FuseOSError(errno.ENODATA)

    def statfs(self, path: str) -> dict[str, int]:
        return {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_namemax": 255}


def mount(mount: Mount, place: str, *, name: str, allow_other: bool = False) -> None:
    """Show it at the folder ``place``, as ``name``, until it is unmounted or the process gets SIGINT or SIGTERM.
    ``allow_other``: to all users, each by the permissions in the snapshot. Raises UsageError."""
    if not stat.S_ISDIR(_mode(place)):
        raise UsageError(f"{place} is no folder", hint="make it first")
    options = {"allow_other": True, "default_permissions": True} if allow_other else {}
    name = name.replace(",", "_")
    try:
        mfusepy.FUSE(mount, place, foreground=True, ro=True, use_ino=True, fsname=name, subtype="snappy", **options)
    except RuntimeError as error:
        raise UsageError(
            f"cannot mount at {place} (libfuse ended with {error})",
            hint="it takes /dev/fuse, and fusermount unless as root",
        ) from error


def _inode(path: str, node: Node) -> int:
    """Of what several devices held, so that the number it had there may be another's here; hard links keep theirs."""
    name = f"{path.split('/')[:3]} {node.device_id} {node.inode}" if node.links > 1 and node.type != "dir" else path
    return int.from_bytes(hashlib.blake2b(words.raw(name), digest_size=8).digest()) | 1


def _mode(place: str) -> int:
    try:
        return os.stat(place).st_mode
    except OSError:
        return 0
