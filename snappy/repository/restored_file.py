"""One file on its way back into a sink."""

from __future__ import annotations

import hashlib
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from snappy.repository.crypto import OVERHEAD
from snappy.repository.entries import FileWriter, Identity, Node, SharedFile, SharedSink, Sink, Standing, StandingFile
from snappy.repository.format import MIB, BlobLocation, blob_id
from snappy.repository.progress import Cancelled

READ_TOGETHER = MIB
LARGE = 8 * MIB
LARGEST_TAKEN = 16 * MIB
"""A larger blob is rather fetched than taken from the file that stands there: it would have to be in memory whole."""


class Piece(NamedTuple):
    """A part of a file: which blob belongs at which offset."""

    offset: int
    blob: BlobLocation


class Reuse(NamedTuple):
    """What came of the file that stood there: whether it ``stays``, having been given its metadata but for the
    ``remarks``, or else which pieces of the new one are ``missing``."""

    stays: bool
    missing: list[Piece]
    remarks: list[str]


@dataclass(slots=True)
class Outcome:
    """Whether the file at ``path`` is lost, or another one's that was ``left`` there; outlives the file's own
    bookkeeping."""

    path: bytes
    failed: bool = False
    left: bool = False


class RestoredFile:
    """Thread-safe: blobs come in any order, from any thread. All methods raise what the sink raises."""

    __slots__ = ("_awaited", "_lock", "_sink", "_writer", "node", "outcome", "path")

    def __init__(self, outcome: Outcome, node: Node, sink: Sink, blobs: int) -> None:
        """So many blobs are to come."""
        self.path, self.node, self.outcome = outcome.path, node, outcome
        self._sink = sink
        self._lock = threading.Lock()
        self._awaited = blobs
        self._writer: FileWriter | None = None

    @property
    def is_large(self) -> bool:
        """Whether it is rather brought in parts than in one go."""
        return self.node.size >= LARGE

    @property
    def is_begun(self) -> bool:
        """Whether something was written to it."""
        return self._writer is not None

    def identity(self) -> Identity:
        """By which another process knows the file, which is created if it was not. Its sink is to be a shared one."""
        writer = self._open()
        assert isinstance(writer, SharedFile)
        return writer.identity()

    def standing(self) -> Standing:
        """What is to become of what stands in its place."""
        return self._sink.standing(self.path, self.node)

    def reuse(self, pieces: list[Piece], cancelled: Cancelled) -> Reuse:
        """Have the file that stands there stay if it is right, or else begin anew with what is right of it."""
        standing = self._sink.reuse(self.path, self.node)
        if standing is None:
            return Reuse(False, pieces, [])
        with closing(standing):
            if _is_right(standing, pieces, cancelled):
                return Reuse(True, [], standing.finish())
            return Reuse(False, self._take(standing, pieces, cancelled), [])

    def _take(self, standing: StandingFile, pieces: list[Piece], cancelled: Cancelled) -> list[Piece]:
        """Each blob is hashed as it is taken: who else writes to the old file can spoil nothing."""
        missing: list[Piece] = []
        for piece in pieces:
            cancelled()
            data = _right_bytes(standing, piece)
            if data is None:
                missing.append(piece)
            else:
                self.write(piece.offset, data)
        return missing

    def write(self, offset: int, data: bytes) -> None:
        """Put one blob in its place, creating the file for the first."""
        self._open().write_at(offset, data)

    def _open(self) -> FileWriter:
        with self._lock:
            if self._writer is None:
                self._writer = self._create()
            return self._writer

    def _create(self) -> FileWriter:
        return self._sink.file(self.path, self.node)

    def arrived(self, blobs: int = 1) -> bool:
        """Count blobs as dealt with; true for the last."""
        with self._lock:
            self._awaited -= blobs
            return not self._awaited

    def complete(self) -> list[str]:
        """Give the file its metadata and let go of it, for all is there. Returns what could not be kept."""
        try:
            return self._open().finish()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file, keeping what came; may be called twice."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """Let go of the file as it is, unless it is closed."""
        if self._writer is not None:
            self._writer.discard()


class FilePart(RestoredFile):
    """Some blobs of a file that another process has created, and will complete."""

    __slots__ = ("_identity", "_shared")

    def __init__(self, outcome: Outcome, node: Node, sink: SharedSink, blobs: int, identity: Identity) -> None:
        super().__init__(outcome, node, sink, blobs)
        self._shared, self._identity = sink, identity

    def _create(self) -> FileWriter:
        return self._shared.part(self.path, self._identity)


def plain_length(location: BlobLocation) -> int:
    """How many plain bytes the blob has."""
    return location.uncompressed_length or location.length - OVERHEAD


def _is_right(standing: StandingFile, pieces: list[Piece], cancelled: Cancelled) -> bool:
    """Whether the file may stay, and each blob lies in it where it belongs."""
    if standing.is_trusted or not standing.may_stay:
        return standing.is_trusted
    for piece in pieces:
        cancelled()
        if _hash(standing, piece) != piece.blob.id:
            return False
    return True


def _hash(standing: StandingFile, piece: Piece) -> bytes:
    found = hashlib.sha256()
    offset, end = piece.offset, piece.offset + plain_length(piece.blob)
    while offset < end and (data := standing.read_at(offset, min(READ_TOGETHER, end - offset))):
        found.update(data)
        offset += len(data)
    return found.digest()


def _right_bytes(standing: StandingFile, piece: Piece) -> bytes | None:
    length = plain_length(piece.blob)
    data = standing.read_at(piece.offset, length) if length <= LARGEST_TAKEN else b""
    return data if blob_id(data) == piece.blob.id else None
