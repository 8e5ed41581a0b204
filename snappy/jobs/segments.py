"""Append-only, hash-chained storage for TinyDB: a folder of segments, each a file of JSON lines.

A segment's first line is its header, every further line one entry::

    {"v":1,"segment":2,"first":1001,"previous":"<hash of entry 1000>"}
    {"i":1001,"d":{...},"h":"<hash>"}

A hash is SHA-256 in hexadecimal: of a header, over its line; of an entry, over the hash before it and the line's text
up to ``,"h":``. So anyone checks a log with a dozen lines of any language. What a chain cannot show is that its end
was cut off: keep the newest hash elsewhere too.

An append is one write and one fdatasync, whatever the log's length. A full segment is made read-only and never
written again. One process writes, others may read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
from tinydb.storages import Storage

from snappy.decoding import from_json
from snappy.errors import Corrupt, InvalidCommand, NoSpace, Unavailable, UsageError
from snappy.log import get

log = get(__name__)

SEGMENT_BYTES = 16 << 20
ENTRY_BYTES = 2 << 20
TABLE = "audit"
_HASH_MARK = b',"h":"'
_START = "0" * 64


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a segment. ``first`` is the number of its first entry, ``previous`` the hash before it."""

    v: int
    segment: int
    first: int
    previous: str


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    i: int
    d: msgspec.Raw
    h: str


class Segment(NamedTuple):
    path: Path
    number: int
    first: int


class Position(NamedTuple):
    """Where a chain stands: the next entry's number, the newest hash, the length in bytes of what holds."""

    following: int
    head: str
    length: int


class SegmentStorage(Storage):
    """The storage of :class:`~snappy.jobs.auditlog.AuditDB`.

    Raises UsageError if another process writes the log, Corrupt if its last segment does not hold together.
    """

    def __init__(self, folder: str | os.PathLike[str], *, writable: bool = True, segment_bytes: int = SEGMENT_BYTES):
        self.folder = Path(folder)
        self.segment_bytes = segment_bytes
        self._lock = self._take_lock() if writable else None
        self._file = -1
        self.segments = _find_segments(self.folder)
        self.position = Position(1, _START, 0)
        if self.segments:
            self.position = self._open_last(writable=writable)
        elif writable:
            self._new_segment()

    def read(self) -> dict[str, Any]:
        """TinyDB's view: one table, whose entries are read from the segments as they are asked for."""
        if self._lock is None:
            self.refresh()
        return {TABLE: Entries(self)}

    def write(self, data: Any) -> NoReturn:
        raise PermissionError("an audit log is only appended to")

    def append(self, documents: Sequence[Mapping[str, Any]]) -> list[int]:
        """The new entries' numbers, once they are on the disk. All of ``documents`` are stored, or none.

        Raises InvalidCommand for what is no JSON or over 2 MiB, NoSpace, Unavailable.
        """
        bodies = [_encode(document) for document in documents]
        if self.position.length >= self.segment_bytes:
            self._new_segment()
        first, text = self.position.following, bytearray()
        position = self.position
        for body in bodies:
            line, head = _line(position.following, body, position.head)
            text += line
            position = Position(position.following + 1, head, position.length + len(line))
        self._write(bytes(text))
        self.position = position
        return list(range(first, position.following))

    def lines(self, segment: Segment) -> Iterator[Line]:
        """The entries of one segment, the hashes not checked."""
        with segment.path.open("rb") as file:
            file.readline()
            for text in file:
                if not text.endswith(b"\n"):
                    return
                yield decode(text, segment.path)

    def holding(self, number: int) -> Segment | None:
        """The segment in which an entry is, if it is anywhere."""
        place = bisect_right(self.segments, number, key=lambda segment: segment.first)
        return self.segments[place - 1] if place else None

    def verify(self) -> Position:
        """Read everything and check every hash. Raises Corrupt, and names the first entry that does not fit.

        A reader may see the writer's newest entry half written.
        """
        position = Position(1, _START, 0)
        for number, segment in enumerate(self.segments, 1):
            if segment.number != number:
                raise Corrupt(f"segment {number} of the audit log is missing")
            position = _verify(segment, position, torn_end=self._lock is None and segment == self.segments[-1])
        return position

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self._file, self._lock = -1, None

    def refresh(self) -> None:
        """See what another process appended since (for readers)."""
        self.segments = _find_segments(self.folder)
        if self.segments:
            self.position = self._open_last(writable=False)

    def _take_lock(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise UsageError(f"another process writes the audit log {self.folder}") from None
        return lock

    def _open_last(self, *, writable: bool) -> Position:
        segment = self.segments[-1]
        position = _verify(segment, Position(segment.first, _header(segment.path).previous, 0), torn_end=True)
        if writable:
            self._file = os.open(segment.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            _cut(self._file, segment.path, position.length)
        return position

    def _new_segment(self) -> None:
        """Begin the next segment, on the disk before an entry enters it, and seal the last one."""
        number = len(self.segments) + 1
        header = Header(1, number, self.position.following, self.position.head)
        line = msgspec.json.encode(header) + b"\n"
        path = self.folder / f"audit-{number:06}.jsonl"
        sealed, self._file = self._file, _create(path, line)
        if sealed >= 0:
            os.fchmod(sealed, 0o444)
            os.close(sealed)
        self.segments.append(Segment(path, number, header.first))
        self.position = Position(header.first, hashlib.sha256(line).hexdigest(), len(line))

    def _write(self, text: bytes) -> None:
        """Write and sync; on failure cut away what was written, so that the file ends with a whole entry."""
        try:
            _write_all(self._file, text)
            os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self.position.length)
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
            raise kind(f"the audit log cannot be written: {error.strerror}") from error


class Entries(Mapping[str, Mapping[str, Any]]):
    """The entries of a log by their number (as text, which is how TinyDB's tables ask), oldest first."""

    def __init__(self, storage: SegmentStorage) -> None:
        self._storage = storage

    def __len__(self) -> int:
        return self._storage.position.following - 1

    def __iter__(self) -> Iterator[str]:
        return (str(line.i) for line in self._lines())

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        segment = self._storage.holding(int(key))
        for line in self._storage.lines(segment) if segment else ():
            if str(line.i) == key:
                return _document(line)
        raise KeyError(key)

    def items(self) -> Iterator[tuple[str, Mapping[str, Any]]]:  # type: ignore[override]
        return ((str(line.i), _document(line)) for line in self._lines())

    def newest_first(self, containing: bytes = b"") -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Entries whose text holds ``containing``; one segment at a time is in memory."""
        for segment in reversed(self._storage.segments):
            found = [line for line in self._storage.lines(segment) if containing in bytes(line.d)]
            yield from ((line.i, _document(line)) for line in reversed(found))

    def _lines(self) -> Iterator[Line]:
        for segment in list(self._storage.segments):
            yield from self._storage.lines(segment)


def _encode(document: Mapping[str, Any]) -> bytes:
    try:
        body = msgspec.json.encode(dict(document))
    except (TypeError, ValueError) as error:
        raise InvalidCommand(f"an audit entry must be JSON: {error}") from error
    if len(body) > ENTRY_BYTES:
        raise InvalidCommand(f"an audit entry of {len(body)} bytes is too large")
    return body


def _line(number: int, body: bytes, previous: str) -> tuple[bytes, str]:
    start = b'{"i":%d,"d":%b' % (number, body)
    head = chain(previous, start)
    return start + _HASH_MARK + head.encode() + b'"}\n', head


def chain(previous: str, start: bytes) -> str:
    """The hash of an entry: ``start`` is its line's text up to ``,"h":``."""
    return hashlib.sha256(previous.encode() + start).hexdigest()


def decode(text: bytes, path: Path) -> Line:
    """One entry's line. Raises Corrupt."""
    try:
        return from_json(text, Line)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path.name} of the audit log holds a line that is no entry") from error


def _document(line: Line) -> dict[str, Any]:
    document: dict[str, Any] = from_json(line.d)
    return document


def _find_segments(folder: Path) -> list[Segment]:
    return [Segment(path, header.segment, header.first) for path, header in _headers(folder)]


def _headers(folder: Path) -> Iterator[tuple[Path, Header]]:
    """A newest segment without a whole header is what a crash left of its creation: it holds nothing."""
    paths = sorted(folder.glob("audit-*.jsonl"))
    for path in paths:
        try:
            yield path, _header(path)
        except Corrupt:
            if path != paths[-1] or b"\n" in path.read_bytes():
                raise
            log.warning("an unfinished segment of the audit log is ignored", segment=path.name)


def _header(path: Path) -> Header:
    with path.open("rb") as file:
        text = file.readline()
    try:
        if text.endswith(b"\n"):
            return from_json(text, Header)
    except msgspec.DecodeError:
        pass
    raise Corrupt(f"{path.name} of the audit log has no header")


def _verify(segment: Segment, position: Position, *, torn_end: bool = False) -> Position:
    """Where the chain stands after ``segment``. With ``torn_end`` an unfinished last line is no fault: a crash during
    an append leaves one, and nobody was told that it was stored."""
    with segment.path.open("rb") as file:
        text = file.readline()
        header = from_json(text, Header)
        if (header.first, header.previous) != position[:2]:
            raise Corrupt(f"the audit log's chain is broken before entry {header.first}")
        position = Position(header.first, hashlib.sha256(text).hexdigest(), len(text))
        for text in file:
            if not text.endswith(b"\n"):
                if torn_end:
                    break
                raise Corrupt(f"entry {position.following} of the audit log is cut short")
            position = _verify_line(text, position)
    return position


def _verify_line(text: bytes, position: Position) -> Position:
    start, _, end = text.rpartition(_HASH_MARK)
    head = chain(position.head, start)
    if not start.startswith(b'{"i":%d,' % position.following) or end != head.encode() + b'"}\n':
        raise Corrupt(f"the audit log's chain is broken at entry {position.following}")
    return Position(position.following + 1, head, position.length + len(text))


def _cut(file: int, path: Path, length: int) -> None:
    surplus = os.fstat(file).st_size - length
    if surplus:
        log.warning("the audit log ended in the middle of an entry, which is cut", segment=path.name, bytes=surplus)
        os.ftruncate(file, length)
        os.fsync(file)


def _create(path: Path, text: bytes) -> int:
    """A new file that holds ``text``; durable, with its name, on return."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    _write_all(file, text)
    os.fsync(file)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file


def _write_all(file: int, text: bytes) -> None:
    view = memoryview(text)
    while view:
        view = view[os.write(file, view) :]
