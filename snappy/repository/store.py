"""The files of a repository on any fsspec filesystem: the only module of the engine that touches fsspec.

What a filesystem must promise: a file is visible only when it is complete, and is read as it was written.
What this promises: every failure is one of :class:`snappy.errors.StorageError`'s children.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from fsspec import filesystem, get_filesystem_class
from fsspec.registry import known_implementations
from fsspec.spec import AbstractFileSystem

from snappy.errors import (
    AccessDenied,
    AlreadyExists,
    BucketMissing,
    Corrupt,
    Damaged,
    NoSpace,
    NotFound,
    SnappyError,
    StorageError,
    Unavailable,
)
from snappy.repository import makers
from snappy.repository.format import HEX_ID

_FULL = {errno.ENOSPC, errno.EDQUOT}
_S3_ERRORS: dict[str, type[StorageError]] = {
    "NoSuchBucket": BucketMissing,
    "PreconditionFailed": AlreadyExists,
    "ConditionalRequestConflict": AlreadyExists,
    "412": AlreadyExists,
    "InvalidRange": Corrupt,
    "416": Corrupt,
    "BadDigest": Corrupt,
    "XAmzContentSHA256Mismatch": Corrupt,
    "InsufficientStorage": NoSpace,
    "QuotaExceeded": NoSpace,
    "XMinioStorageFull": NoSpace,
    "507": NoSpace,
}


class FileType(StrEnum):
    """The kinds of files in a repository; the value is the folder (or the file, for the configuration)."""

    CONFIG = "config"
    KEY = "keys"
    LOCK = "locks"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    PACK = "data"


FENCED = (FileType.INDEX, FileType.SNAPSHOT)
"""What a writer whose lock is lost must not show any more: others may have deleted what these refer to."""

FENCED_REMOVAL = (*FENCED, FileType.PACK, FileType.KEY)
"""What it must not delete any more: others may rely on it."""


File = tuple[str, int]
"""A name and a size in bytes."""

Files = list[File]


TAKE_VIEWS = {"file", "snappy"}
"""Protocols of filesystems that write what lies in another's memory; others want bytes of their own."""


def no_fence() -> None:
    """The :attr:`Store.fence` of a writer without a lock."""


Tell = Callable[[bytes], None]


class StoreRecipe(NamedTuple):
    """How another process opens the same files: the name of what makes its :class:`Store` (see
    :mod:`snappy.repository.makers`), and what that is given: anything that msgpack can carry, credentials too.

    With ``watch`` the store there goes on hearing from this process: each notice given to the function that ``watch``
    takes arrives at the other store's :meth:`Store.told`, or a later one does. It returns what ends that.
    """

    maker: str
    arguments: dict[str, Any]
    watch: Callable[[Tell], Callable[[], None]] | None = None


class Store:
    """The files below ``root`` on ``fs``, in restic's default layout. Any thread may call any method.

    Every method raises :class:`snappy.errors.StorageError` (or one of its children), and beside it only what a
    filesystem of Snappy's own raises on purpose: :class:`snappy.errors.BusError`, :class:`snappy.errors.AttemptOver`.
    """

    def __init__(self, fs: AbstractFileSystem, root: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._takes_views = TAKE_VIEWS.intersection([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
        self.fence: Callable[[], None] = no_fence
        """Called at the last moment before an index file or a snapshot is written, or one, or a pack or a key, is
        deleted; raises to prevent that."""
        self.kept_until = 0.0
        """Unix seconds until which the storage keeps what was removed here, the longest; 0: it keeps nothing."""

    def save(self, kind: FileType, name: str, data: bytes | memoryview, *, create: bool = False) -> None:
        """Write a file. With ``create``, raises :class:`AlreadyExists` if another's file has that name.

        A file that already holds these bytes counts as written: so may be called twice, and survives a
        transport that repeats a request whose answer was lost.
        """
        path = self._path(kind, name)
        data = data if self._takes_views else bytes(data)
        if kind in FENCED:
            self.fence()
        try:
            self._write(path, data, create)
        except AlreadyExists:
            if not self._holds(path, data):
                raise

    def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``offset``, or all from there. Raises :class:`Corrupt` when there are fewer."""
        path = self._path(kind, name)
        with _translated(f"{kind.value} {name[:8]}"):
            if length is None:
                length = int(self._fs.info(path)["size"]) - offset
            # Both ends are given, else object stores are asked for the size first.
            data: bytes = self._fs.cat_file(path, start=offset, end=offset + length) if length > 0 else b""
        if len(data) != length:
            raise Corrupt(f"{kind.value} {name[:8]} is too short: {len(data)} bytes where {length} should be")
        return data

    def load_named(self, kind: FileType, name: str, size: int | None = None) -> bytes:
        """The whole of a file whose name is its SHA-256. Raises :class:`Damaged` where that is not so at a second
        reading either: bytes may be harmed on their way out of a storage that holds them whole."""
        try:
            return self._load_named(kind, name, size)
        except (Damaged, Corrupt):
            return self._load_named(kind, name, size)

    def _load_named(self, kind: FileType, name: str, size: int | None) -> bytes:
        data = self.load(kind, name, 0, size)
        if hashlib.sha256(data).hexdigest() != name:
            raise Damaged(f"{kind.value} {name[:8]} is damaged: its name is not its SHA-256")
        return data

    def list(self, kind: FileType) -> Files:
        """The name and size in bytes of each file of that kind, by name; files that are none of ours are skipped."""
        found = ((path.rsplit("/", 2)[-2:], size) for path, size in self._walk(kind))
        named = {name: size for (shelf, name), size in found if HEX_ID.match(name) and _belongs(kind, shelf, name)}
        return sorted(named.items())

    def exists(self, kind: FileType, name: str) -> bool:
        """Whether there is such a file."""
        try:
            with _translated(f"{kind.value} {name[:8]}"):
                self._fs.invalidate_cache()
                self._fs.info(self._path(kind, name))
        except BucketMissing:
            raise
        except NotFound:
            return False
        return True

    def remove(self, kind: FileType, name: str) -> None:
        """Delete the file. Raises :class:`NotFound` if the filesystem notices that there is none."""
        if kind in FENCED_REMOVAL:
            self.fence()
        with _translated(f"{kind.value} {name[:8]}"):
            kept_until: float | None = self._fs.rm_file(self._path(kind, name))
        self.kept_until = max(self.kept_until, kept_until or 0.0)

    def recipe(self) -> StoreRecipe | None:
        """How another process opens the same files; None where only this one can."""
        protocols = self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)
        arguments = {"protocol": protocols[0], "options": self._fs.storage_options, "root": self._root}
        if type(self) is not Store or protocols[0] not in known_implementations or self._fs.storage_args:
            return None
        try:
            msgspec.msgpack.encode(arguments)
            same = get_filesystem_class(protocols[0]) is type(self._fs)
        except (TypeError, NotImplementedError, ImportError, ValueError):
            return None
        return StoreRecipe(makers.name_of(reopen), arguments) if same and protocols[0] != "memory" else None

    def told(self, notice: bytes) -> None:
        """Hear from the process that gave this store's recipe."""

    def _path(self, kind: FileType, name: str) -> str:
        if kind is FileType.CONFIG:
            return f"{self._root}/{kind.value}"
        shelf = f"/{name[:2]}" if kind is FileType.PACK else ""
        return f"{self._root}/{kind.value}{shelf}/{name}"

    def _write(self, path: str, data: bytes | memoryview, create: bool) -> None:
        what = path.removeprefix(self._root + "/")
        options: dict[str, Any] = {"mode": "create"} if create else {}
        try:
            with _translated(what):
                self._fs.pipe_file(path, data, **options)
        except BucketMissing:
            raise  # some filesystems would make it
        except NotFound:
            with _translated(what):
                self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                self._fs.pipe_file(path, data, **options)

    def _holds(self, path: str, data: bytes | memoryview) -> bool:
        with _translated("the file"):
            return bool(self._fs.cat_file(path, start=0, end=len(data) + 1) == data)

    def _walk(self, kind: FileType) -> Files:
        folder = f"{self._root}/{kind.value}"
        try:
            with _translated(kind.value):
                self._fs.invalidate_cache()
                if kind is FileType.PACK:
                    infos = list(self._fs.find(folder, detail=True).values())
                else:
                    infos = self._fs.ls(folder, detail=True)
        except BucketMissing:
            raise
        except NotFound:
            return []
        return [(info["name"], int(info["size"] or 0)) for info in infos if info["type"] == "file"]


def _belongs(kind: FileType, shelf: str, name: str) -> bool:
    """Whether a file of that name is looked for there: a pack on the shelf of another is nobody's."""
    return kind is not FileType.PACK or name.startswith(shelf)


def reopen(protocol: str, options: dict[str, Any], root: str) -> Store:
    """What a store's recipe makes, for a filesystem that fsspec knows."""
    return Store(filesystem(protocol, **options), root)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except SnappyError:
        raise
    except Exception as error:
        raise storage_error(error, what) from error


def storage_error(error: BaseException, what: str) -> StorageError:
    """The one place where a filesystem's exception becomes ours; ``what`` says what was being touched.

    The message never quotes the exception, for that may name a server's path or an endpoint: it is the cause.
    """
    kind = _S3_ERRORS.get(_s3_code(error)) or _kind(error)
    sentence = (kind.__doc__ or "").split("\n")[0].rstrip(".").lower()
    return kind(f"{what}: {sentence}")


def _kind(error: BaseException) -> type[StorageError]:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return NotFound
    if isinstance(error, FileExistsError):
        return AlreadyExists
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return AccessDenied
    if isinstance(error, OSError) and error.errno in _FULL:
        return NoSpace
    return Unavailable


def _s3_code(error: BaseException) -> str:
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:  # s3fs raises errors that are their own cause
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        seen.add(id(link))
        link = link.__cause__
    return ""
