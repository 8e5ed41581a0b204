"""What a backup has read so far, kept while it runs: whoever goes on with it need not read that again.

A *record* is a blob set apart (see :meth:`Repository.save_apart`): sealed as all others, with nothing that refers to
it, and in no index file before the backup's end. It names files by a hash of all by which a change is noticed, and
lists their blobs. Nothing has to be believed: a blob that the repository does not have is read anew.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from snappy import log
from snappy.decoding import from_msgpack
from snappy.repository.entries import Entry
from snappy.repository.format import MIB, BlobId
from snappy.repository.repo import Apart, Repository

VERSION = 2
LEAST_STEP = 64 * MIB
MOST_STEP = 1024 * MIB
"""How many bytes are read between two records: what may have to be read twice."""
STEPS = 128
"""Between those two, that part of all that was read: so the number of records stays small."""
OPENING = MIB // 32
"""What it costs to open a file, in bytes that could have been read meanwhile."""
ID_SIZE = 32
FILE_ID_SIZE = 16
"""Bytes; nothing compresses them, and there is one for each file."""

FileId = bytes
_STAT = struct.Struct("<QqqQ")

_log = log.get(__name__)


class Known(NamedTuple):
    """The first ``size`` bytes of a file, by their blobs, which are all stored."""

    blobs: list[BlobId]
    size: int


UNKNOWN = Known([], 0)


class _Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Blobs of one file, joined; ``first`` is the place of the first one among the file's."""

    file: FileId
    first: int
    blobs: bytes


class _Record(msgspec.Struct, array_like=True, frozen=True):
    version: int
    backup: str
    attempt: int
    number: int
    parts: list[_Part]


class Journal:
    """Of one attempt at the backup that is known as ``backup``. ``note`` is for any thread, all else for one."""

    def __init__(self, repo: Repository, backup: str, attempt: int = 1, least_step: int = LEAST_STEP) -> None:
        self._repo, self._backup, self._attempt, self._least_step = repo, backup, attempt, least_step
        self._lock = threading.Lock()
        self._parts: dict[FileId, tuple[int, bytearray]] = {}
        self._numbers = 0
        self._read = self._due = 0
        self._known: dict[FileId, bytearray] = {}

    def take_up(self, found: Iterable[Apart]) -> int:
        """Learn from the records among ``found`` that earlier attempts at this backup left; how many files."""
        records = sorted(self._ours(found), key=lambda record: (record.attempt, record.number))
        for record in records:
            for part in record.parts:
                blobs = self._known.setdefault(part.file, bytearray())
                if len(blobs) >= part.first * ID_SIZE:  # else the record before was lost
                    blobs[part.first * ID_SIZE :] = part.blobs
        return len(self._known)

    def is_new(self) -> bool:
        """Whether nothing is known of any file that was not asked for."""
        return not self._known

    def known(self, entry: Entry) -> Known:
        """How much of the file is stored, if nothing says that it changed. Asked once for each file."""
        joined = self._known.pop(entry_id(entry), b"") if self._known else b""
        blobs: list[BlobId] = []
        size = 0
        for start in range(0, len(joined), ID_SIZE):
            blob = bytes(joined[start : start + ID_SIZE])
            length = self._repo.stored_size(blob)
            if length is None or size + length > entry.node.size:
                break
            blobs.append(blob)
            size += length
        return Known(blobs, size)

    def note(self, file: FileId, place: int, blob: BlobId, size: int) -> None:
        """Add the next blob, of ``size`` plain bytes, that a file's content has at ``place``; a file's in order. Saves
        a record when enough has come together, and raises what that raises."""
        self.note_all([(file, place, blob, size)])

    def note_all(self, blobs: Iterable[tuple[FileId, int, BlobId, int]]) -> None:
        """The same of several."""
        with self._lock:
            for file, place, blob, size in blobs:
                self._note(file, place, blob, size)
            record = self._cut() if self._due >= self._step() else b""
        if record:
            self._repo.save_apart(record)

    def _note(self, file: FileId, place: int, blob: BlobId, size: int) -> None:
        if not file:
            return
        begun = self._parts.get(file)
        if begun is None:
            begun = self._parts[file] = place, bytearray()
            size += OPENING
        begun[1].extend(blob)
        self._read += size
        self._due += size

    def _step(self) -> int:
        return min(max(self._least_step, self._read // STEPS), MOST_STEP)

    def _cut(self) -> bytes:
        parts = [_Part(file, first, bytes(blobs)) for file, (first, blobs) in self._parts.items()]
        self._numbers += 1
        self._parts, self._due = {}, 0
        return msgspec.msgpack.encode(_Record(VERSION, self._backup, self._attempt, self._numbers, parts))

    def _ours(self, found: Iterable[Apart]) -> list[_Record]:
        ours: list[_Record] = []
        for apart in found:
            try:
                record = from_msgpack(apart.data, _Record)
            except msgspec.DecodeError as error:
                _log.info("a journal's record is not understood", reason=str(error))
                continue
            if (record.version, record.backup) == (VERSION, self._backup):
                ours.append(record)
                self._repo.list_at_end(apart)
        return ours


def entry_id(entry: Entry) -> FileId:
    """The :func:`file_id` of an entry."""
    node = entry.node
    return file_id(entry.path, node.size, node.mtime_ns, node.ctime_ns, node.inode)


def file_id(path: bytes, size: int, mtime_ns: int, ctime_ns: int, inode: int) -> FileId:
    """Names the file as it is now; empty for one whose changes would not be noticed."""
    if not size or (mtime_ns, ctime_ns) == (0, 0):
        return b""
    return hashlib.sha256(_STAT.pack(size, mtime_ns, ctime_ns, inode) + path).digest()[:FILE_ID_SIZE]
