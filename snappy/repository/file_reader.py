"""Reads files one after another and stores what is new in them. Small files are stored together, for each of them alone
costs more than all that is done with its bytes; the chunks of larger ones are sealed by other threads meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Protocol

from snappy.errors import SnappyError
from snappy.repository.blocks import Cut, blocks
from snappy.repository.chunker import name_of
from snappy.repository.contents import passed_over, unreadable
from snappy.repository.entries import Entry
from snappy.repository.format import MIB, BlobId, BlobType
from snappy.repository.progress import Cancelled
from snappy.repository.relay import Told
from snappy.repository.repo import Repository
from snappy.repository.tally import Tally

SMALL = 32 << 10
"""Bytes; to hand over a smaller chunk costs more than it gives: the interpreter runs one thread at a time."""
FILES_TOGETHER = 64
BYTES_TOGETHER = MIB
"""Small files of which so many were read are stored."""
BYTES_IN_FLIGHT = 8 * MIB
"""With so many bytes being sealed, and the chunk that was read last, the reading waits."""


class Order(Told, Protocol):
    """A file that is to be stored, and who is told of it."""

    entry: Entry
    cut: Cut | None
    """The blocks that are wanted of an image; ``None``: all of the file, cut where its content says."""


@dataclass(slots=True)
class _Sealing:
    """A chunk that is being sealed, and what is to be done then."""

    order: Order
    future: Future[BlobId]
    size: int
    then: Callable[[], None] | None = None


class FileReader:
    """For one thread. ``check``, which raises to end all, is asked before each file and each large chunk; ``sealers``
    run what is for other threads."""

    def __init__(self, repo: Repository, tally: Tally, sealers: Executor, check: Cancelled) -> None:
        self._repo, self._tally, self._sealers, self._check = repo, tally, sealers, check
        self._small: list[tuple[Order, bytes, str]] = []
        self._small_bytes = 0
        self._sealing: deque[_Sealing] = deque()
        self._in_flight = 0

    def read(self, order: Order) -> None:
        """Read the file now; it is stored, and that told, some time soon. Raises what is not this one file's error."""
        self._check()
        try:
            self._read(order)
        except SnappyError:
            raise  # the repository's: some of them are an OSError too
        except OSError as error:
            self._end(order, partial(order.lost, unreadable(error)))

    def finish(self) -> None:
        """Return when all that was read is stored."""
        self._store_small()
        while self._sealing:
            self._settle()

    def _read(self, order: Order) -> None:
        entry = order.entry
        if entry.open is None:
            raise OSError("the source gave no content")
        with entry.open() as file:
            order.begun(passed_over(file, order.skip))
            small = self._read_chunks(order, file)
        changed = entry.changed() if entry.changed else ""
        if small is None:
            self._end(order, partial(order.done, changed))
        else:
            self._small.append((order, small, changed))
            self._small_bytes += len(small)
            if self._small_bytes >= BYTES_TOGETHER or len(self._small) >= FILES_TOGETHER:
                self._store_small()

    def _read_chunks(self, order: Order, file: BinaryIO) -> bytes | None:
        """Have them sealed, but for those of a small file: that is returned."""
        found = False
        for chunk in blocks(file, order.cut) if order.cut else self._repo.chunks(file):
            if len(chunk) < SMALL and not found:
                return chunk
            found = True
            self._have_sealed(order, chunk)
        return None if found else b""

    def _have_sealed(self, order: Order, chunk: bytes) -> None:
        while self._in_flight > BYTES_IN_FLIGHT or (self._sealing and self._sealing[0].future.done()):
            self._settle()
        self._check()
        self._in_flight += len(chunk)
        self._sealing.append(_Sealing(order, self._sealers.submit(self.save, chunk), len(chunk)))

    def save(self, chunk: bytes) -> BlobId:
        """Store a chunk now, unless it is there."""
        saved = self._repo.save_blob(BlobType.DATA, chunk, name_of(chunk))
        if saved.new:
            self._tally.blob(BlobType.DATA, len(chunk), saved.stored)
        return saved.id

    def _settle(self) -> None:
        self._check()
        first = self._sealing.popleft()
        self._in_flight -= first.size
        first.order.read(first.future.result(), first.size)
        if first.then:
            first.then()

    def _end(self, order: Order, tell: Callable[[], None]) -> None:
        """Tell it once all that was read of the file is stored."""
        if self._sealing and self._sealing[-1].order is order:
            self._sealing[-1].then = tell
        else:
            tell()

    def _store_small(self) -> None:
        small, self._small, self._small_bytes = self._small, [], 0
        named = [(name_of(content), content) for _, content, _ in small if content]
        saved = self._repo.save_blobs(BlobType.DATA, named)
        self._tally.blob(BlobType.DATA, saved.plain, saved.stored, saved.new)
        blobs = (blob for blob, _ in named)
        for order, content, changed in small:
            if content:
                order.read(next(blobs), len(content))
            order.done(changed)
