"""Objects on their way into a filesystem: nothing shows before the commit, and then all of it.

A draft promises:

* before ``commit`` returns, no reader sees the object under its name; after it, every reader sees the whole object;
* ``settle`` does what takes long and shows nothing, so that the commit after it is an instant where it can be;
* where it cannot be, the commit is given up after ``within`` seconds with ``TimeoutError``;
* an *exclusive* draft never replaces: where the name is taken, ``commit`` raises ``FileExistsError``;
* ``discard`` leaves nothing behind; after ``commit`` it does nothing, and it may be called twice.

How that is done depends on the filesystem; :func:`draft` chooses.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO, Protocol

from fsspec import AbstractFileSystem

from snappy import log
from snappy.bus.failures import store_code
from snappy.errors import NoSpace

Bytes = bytes | bytearray | memoryview

SINGLE_PUT = 64 << 20
"""An object below this many bytes is one PUT: atomic, and no parts can be left behind."""
SPOOL = 1 << 20
"""Bytes of a draft kept in memory; what is longer waits in a temporary file: packs come several at a time, and a store
whose library sends bytes holds each of them up to three times."""
PART = 16 << 20
READS_FILES = frozenset({"s3", "s3a", "swift"})
"""Filesystems whose ``pipe_file`` sends a file as it reads it; the others want all bytes at once."""
ATOMIC_UPLOADS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "r2", "swift"})
PART_SUFFIX = ".snappy-part"
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
"""What an object store calls it when ``If-None-Match`` found an object."""

_FULL = (errno.ENOSPC, errno.EDQUOT)

_memory_lock = threading.Lock()
_log = log.get(__name__)


class Draft(Protocol):
    def write(self, data: Bytes) -> None: ...

    def settle(self) -> None: ...

    def commit(self, within: float | None = None) -> None: ...

    def discard(self) -> None: ...


def draft(fs: AbstractFileSystem, path: str, *, exclusive: bool) -> Draft:
    """A draft of ``path`` in the way that ``fs`` can keep the promises."""
    own = getattr(fs, "draft", None)
    if own is not None:
        made: Draft = own(path, exclusive=exclusive)
        return made
    if "memory" in protocols(fs):
        return MemoryDraft(fs, path, exclusive)
    if protocols(fs) & ATOMIC_UPLOADS:
        return UploadDraft(fs, path, exclusive)
    return RenamedDraft(fs, path, exclusive)


def protocols(fs: AbstractFileSystem) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)


def part_name(path: str) -> str:
    """A temporary name in the same directory."""
    folder, _, _ = path.rpartition("/")
    return f"{folder}/.{secrets.token_hex(8)}{PART_SUFFIX}"


def without_parts(items: Iterable[Any]) -> list[Any]:
    """Of a listing, with or without details, what is not on its way."""
    return [item for item in items if not str(item["name"] if isinstance(item, dict) else item).endswith(PART_SUFFIX)]


@contextmanager
def _kept_aside() -> Iterator[None]:
    """Raises NoSpace where it is not the storage that is full, but the folder that drafts wait in."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _log.error("the folder for temporary files is full", folder=tempfile.gettempdir())
        hint = "make room in it, or set TMPDIR for the target's service to a larger one; its log names the folder"
        raise NoSpace("the target's folder for temporary files is full", hint=hint) from error


class Kept:
    """Keeps the bytes aside until the commit: in memory, and from :data:`SPOOL` bytes on in a temporary file."""

    def __init__(self, fs: AbstractFileSystem, path: str, exclusive: bool) -> None:
        self._fs, self._path, self._exclusive = fs, path, exclusive
        self._pieces: list[Bytes] = []
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, data: Bytes) -> None:
        self._size += len(data)
        if self._file is not None:
            with _kept_aside():
                self._file.write(data)
            return
        # What cannot change any more need not be copied.
        self._pieces.append(data if memoryview(data).readonly else bytes(data))
        if self._size > SPOOL:
            self._spill()

    def settle(self) -> None:
        """There is no place yet where the bytes could settle."""

    def discard(self) -> None:
        self._pieces = []
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # where its folder is full it cannot be written to its end
                file.close()

    @_kept_aside()
    def _spill(self) -> None:
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._file.writelines(self._pieces)
        self._pieces = []

    @_kept_aside()
    def _flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def _content(self) -> bytes:
        if self._file is None:
            self._pieces = [b"".join(self._pieces)]  # not kept twice while they are sent
            return bytes(self._pieces[0])
        self._flush()
        self._file.seek(0)
        return self._file.read()

    def _body(self) -> BinaryIO:
        """The same for who sends it as it reads it."""
        if self._file is None:
            return io.BytesIO(self._content())
        self._flush()
        return Body(self._file.name)


class Body(io.FileIO):
    """A file as the content of one request, read while it is sent.

    Who is about to send it asks where it stands: then it stands at its start, so that a try after one that broke off
    in the middle sends it whole again.
    """

    def __len__(self) -> int:
        return os.fstat(self.fileno()).st_size

    def tell(self) -> int:
        return self.seek(0)


class MemoryDraft(Kept):
    """For ``memory://``, whose open files show at once."""

    def commit(self, within: float | None = None) -> None:
        with _memory_lock:
            self._fs.pipe_file(self._path, self._content(), mode="create" if self._exclusive else "overwrite")
        self.discard()


class UploadDraft(Kept):
    """For object stores: an upload shows when it is complete, and ``If-None-Match`` makes it exclusive."""

    single_put = SINGLE_PUT
    """From so many bytes on it is made in parts."""

    def commit(self, within: float | None = None) -> None:
        try:
            self._upload(within)
        except OSError as error:
            if self._exclusive and store_code(error) in TAKEN:
                raise FileExistsError(self._path) from error
            raise
        self.discard()

    def options(self, within: float | None) -> dict[str, Any]:
        """What the filesystem is told beside path and content."""
        mode: dict[str, Any] = {"mode": "create"} if self._exclusive else {}
        if within is not None and getattr(self._fs, "async_impl", False):
            mode["timeout"] = within  # fsspec's own: what is on its way then is cut off
        return mode

    def _upload(self, within: float | None) -> None:
        options = self.options(within)
        self._flush()
        if self._file is not None and self._size >= self.single_put:
            self._fs.put_file(self._file.name, self._path, chunksize=PART, max_concurrency=2, **options)
        elif self._file is not None and READS_FILES.intersection(protocols(self._fs)):
            with Body(self._file.name) as body:
                self._fs.pipe_file(self._path, body, chunksize=self.single_put, **options)
        else:
            self._fs.pipe_file(self._path, self._content(), chunksize=self.single_put, **options)


class RenamedDraft:
    """For filesystems that can rename: a temporary name in the same directory.

    The exclusive form asks before it renames; of two writers at the same instant both may win.
    """

    def __init__(self, fs: AbstractFileSystem, path: str, exclusive: bool) -> None:
        self._fs, self._path, self._exclusive = fs, path, exclusive
        self._part = part_name(path)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._file: Any = fs.open(self._part, "wb")
        self._open = True

    def write(self, data: Bytes) -> None:
        self._file.write(data)

    def settle(self) -> None:
        self._file.close()

    def commit(self, within: float | None = None) -> None:
        self.settle()
        if self._exclusive and self._fs.exists(self._path):
            raise FileExistsError(self._path)
        self._fs.mv(self._part, self._path)
        self._open = False

    def discard(self) -> None:
        if self._open:
            self._open = False
            self._file.close()
            self._fs.rm_file(self._part)
