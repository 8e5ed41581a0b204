"""``snappy-snapshot://``: what is in backups as a read-only fsspec filesystem.

::

    fs = fsspec.filesystem("snappy-snapshot", repository="s3://bucket/backups", password_file="password")
    fs.ls("latest/home/me")
    fsspec.open("snappy-snapshot:///latest/etc/hosts", repository="/mnt/backup", password_file="password")
    fsspec.open("snappy-snapshot:///4f3c2a11/etc/hosts::/mnt/backup")      # the password from $SNAPPY_PASSWORD
    fsspec.open("snappy-snapshot://vault/latest/etc/hosts")                # of a target, with a server configured

The first name of a path is a snapshot: its id, the first letters of one, or ``latest``; above them all is the list of
snapshots. Names that are no UTF-8 are as :mod:`snappy.browse.words` says. A link has the type ``link``, with
``islink`` and ``destination``; what opens or lists a link follows it, inside the snapshot.

An instance shows the repository as it was when first asked: ``latest`` means one snapshot for as long as it lives, or
until ``invalidate_cache()``. Directories and blobs of last use are kept, in bounds. Instances are not shared by fsspec.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.core import filesystem
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike

from snappy import config, secrets
from snappy.browse import words
from snappy.browse.files import SnapshotFile
from snappy.browse.opening import open_repository
from snappy.browse.remote import RemoteLibrary, connected
from snappy.config import Secret
from snappy.errors import AccessDenied, SnapshotNotFound, UsageError
from snappy.repository.browsable import Browsable
from snappy.repository.entries import Node
from snappy.repository.repo import Repository
from snappy.repository.snapshot_tree import SnapshotTree
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import Store
from snappy.repository.stored_file import StoredFile
from snappy.repository.view import View

PROTOCOL = "snappy-snapshot"
VARIABLE = "SNAPPY_PASSWORD"
SHORT_ID = 8
OPEN_FILES = 16
"""Files whose offsets are kept."""
_TYPES = {"dir": "directory", "file": "file", "symlink": "link"}
_ROOT = Node(name=b"", type="dir", mode=0o555)


class ReadOnly(AccessDenied, PermissionError):
    """Snapshots are never changed."""

    hint = "`snappy backup` makes a new one"


class MissingSnapshot(SnapshotNotFound, FileNotFoundError):
    """No snapshot matches."""


class SnapshotFileSystem(AbstractFileSystem):
    """The snapshots of one repository. Errors are those of :mod:`snappy.errors`, and the ``OSError`` that fsspec's
    users expect. Any thread may call any method.

    ``repository`` is a URL or path, with ``storage_options`` for its filesystem; a chained URL serves as well.
    ``password``, else ``password_file``, ``password_command`` or $SNAPPY_PASSWORD open it. ``cache``: a folder in which
    its index is kept from time to time.

    ``target`` names a target instead, on a server (``nats``, else the configuration's): the service ``source`` (the
    only one, where none is named) reads it with its ``key``, for who may browse there. ``library`` is a repository
    that is open already, in place of all these.
    """

    protocol = PROTOCOL
    root_marker = ""
    cachable = False

    def __init__(
        self,
        repository: str = "",
        *,
        password: str = "",
        password_file: str = "",
        password_command: str = "",
        storage_options: dict[str, Any] | None = None,
        cache: str | Path | None = None,
        target: str = "",
        source: str = "",
        key: str = "default",
        nats: config.Nats | None = None,
        library: Browsable | None = None,
        fo: str = "",
        target_protocol: str = "",
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._lock = threading.Lock()
        self._view: View | None = None
        self._files: OrderedDict[tuple[str, str], StoredFile] = OrderedDict()

        def opened() -> Browsable:
            if target:
                return RemoteLibrary(connected(target, source, nats), target, key)
            word = password or secrets.read(_secret(password_file, password_command))
            kept = Path(cache) if cache else None
            if target_protocol:
                store = Store(filesystem(target_protocol, **(target_options or {})), fo)
                return Repository.open(store, word, cache=kept)
            return open_repository(repository, word, storage_options=storage_options, cache=kept)

        if sum(map(bool, (repository, library, target_protocol, target))) != 1:
            hint = 'for example repository="/mnt/backup", or ://TARGET/; with a repository the URL begins with ":///"'
            raise UsageError(f"{PROTOCOL}:// needs a repository or a target, and not both", hint=hint)
        self._owns = library is None
        self._opened: Callable[[], Browsable] = opened if library is None else lambda: library

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        plain = os.fspath(path)
        if plain.startswith(f"{PROTOCOL}://"):
            plain = plain.removeprefix(f"{PROTOCOL}://").partition("/")[2]
        return plain.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        target = path.removeprefix(f"{PROTOCOL}://").partition("/")[0] if path.startswith(f"{PROTOCOL}://") else ""
        return {"target": target} if target else {}

    @property
    def view(self) -> View:
        """What is shown; the repository is opened at the first look."""
        with self._lock:
            if self._view is None:
                self._view = View(self._opened())
            return self._view

    def close(self) -> None:
        """Let go of the repository; the next look opens it again."""
        with self._lock:
            view, self._view = self._view, None
            self._files.clear()
        if view is not None and self._owns:
            view.library.close()

    def invalidate_cache(self, path: str | None = None) -> None:
        """Look again at which snapshots there are."""
        with self._lock:
            self._files.clear()
            if self._view is not None:
                self._view.refresh()

    # ---- looking

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if not path:
            return _info("", _ROOT)
        tree, rest = self._tree(path)
        return _info(path, tree.node(rest))

    def exists(self, path: str, **kwargs: Any) -> bool:
        try:
            self.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = self._children(path) if path else [self._top(each) for each in self.view.snapshots()]
        return found if detail else [each["name"] for each in found]

    def _children(self, path: str) -> list[dict[str, Any]]:
        tree, rest = self._tree(path)
        if tree.node(rest, follow=True).type != "dir":
            return [_info(path, tree.node(rest))]
        return [_info(f"{path}/{words.text(node.name)}", node) for node in tree.children(rest)]

    def _top(self, snapshot: Snapshot) -> dict[str, Any]:
        return _info(snapshot.id[:SHORT_ID], self.view.tree_of(snapshot).node(b""))

    def _tree(self, path: str) -> tuple[SnapshotTree, bytes]:
        """The snapshot that a path begins with, and the rest of it."""
        spec, _, rest = path.partition("/")
        try:
            return self.view.tree(spec), words.raw(rest)
        except SnapshotNotFound as error:
            raise MissingSnapshot(error.message) from error

    def created(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["created"], UTC)

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    # ---- reading

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> SnapshotFile:
        if mode != "rb":
            self._refuse()
        path = self._strip_protocol(path)
        return SnapshotFile(path, self._file(path), self.info(path))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        stored = self._file(self._strip_protocol(path))
        first, last, _ = slice(start, end).indices(stored.size)
        return stored.read(first, last - first)

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        rpath = self._strip_protocol(rpath)
        if not isfilelike(lpath) and self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
            return
        stored = self._file(rpath)
        callback.set_size(stored.size)
        with nullcontext(lpath) if isfilelike(lpath) else open(lpath, "wb") as file, closing(stored.stream()) as pieces:
            for piece in pieces:
                callback.relative_update(file.write(piece))

    def _file(self, path: str) -> StoredFile:
        tree, rest = self._tree(path)
        key = (tree.snapshot.id, path)
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
        stored = self.view.file(tree.file(rest))
        with self._lock:
            self._files[key] = stored
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)
        return stored

    # ---- what is refused

    def _refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise ReadOnly()

    mkdir = makedirs = rmdir = cp_file = mv = rm = rm_file = _rm = touch = _refuse


def _secret(file: str, command: str) -> Secret:
    if file or command:
        return Secret(file=file) if file else Secret(command=command)
    return Secret(env=VARIABLE)


def _info(name: str, node: Node) -> dict[str, Any]:
    found = {
        "name": name,
        "size": words.size(node),
        "type": _TYPES.get(node.type, "other"),
        "mtime": node.mtime_ns / 1e9,
        "created": node.ctime_ns / 1e9,
        "mode": words.st_mode(node),
        "uid": node.uid,
        "gid": node.gid,
        "ino": node.inode,
        "nlink": node.links or 1,
        "islink": node.type == "symlink",
    }
    return found | {"destination": words.text(node.link_target)} if node.type == "symlink" else found
