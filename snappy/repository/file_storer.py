"""Reads files into blobs in a few threads, with a bound on how many files and chunks are in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from snappy.errors import SnappyError
from snappy.repository.chunker import SMALLEST
from snappy.repository.entries import Entry, Node
from snappy.repository.format import MIB, BlobId, BlobType
from snappy.repository.journal import UNKNOWN, Journal, Known, file_id
from snappy.repository.progress import Problems, Progress
from snappy.repository.repo import Repository
from snappy.repository.tally import Tally

READERS = 2
SEALERS = 2
BATCHES_IN_FLIGHT = 4
FILES_IN_BATCH = 64
BYTES_IN_BATCH = MIB
"""Small files are handed over together, for a hand-over costs as much as reading one."""
CHUNKS_IN_FLIGHT = 3
"""Chunks of one file that are being sealed; a chunk is at most 8 MiB."""

Stored = Callable[[Node | None], None]
"""Takes a file's node, complete with its content; ``None`` when the file could not be read."""


class _Order(NamedTuple):
    entry: Entry
    stored: Stored
    known: Known


class _Content:
    """A file's blobs in their order, as they are stored; each is noted in ``journal``."""

    def __init__(self, entry: Entry, known: Known, journal: Journal | None) -> None:
        self.blobs, self.size = known.blobs, known.size
        self._file, self._journal = file_id(entry) if journal else b"", journal

    def add(self, blob: BlobId, size: int) -> None:
        if self._journal:
            self._journal.note(self._file, len(self.blobs), blob, size)
        self.blobs.append(blob)
        self.size += size


class FileStorer:
    """A pool that stores files. The first error that is not one file's own stops it; ``check`` raises that error.

    ``cancelled`` is asked before each chunk and raises to stop.
    """

    def __init__(
        self,
        repo: Repository,
        tally: Tally,
        progress: Progress,
        problems: Problems,
        cancelled: Callable[[], None],
        journal: Journal | None = None,
    ) -> None:
        self._repo, self._tally, self._progress, self._problems = repo, tally, progress, problems
        self._cancelled, self._journal = cancelled, journal
        self._room = threading.Semaphore(BATCHES_IN_FLIGHT)
        self._batch: list[_Order] = []
        self._bytes = 0
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._sealers = ThreadPoolExecutor(SEALERS, thread_name_prefix="seal")
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failure = self._failure or error
        self.wait()

    def check(self) -> None:
        """Raise what has stopped the work, if anything has."""
        if self._failure is not None:
            raise self._failure
        self._cancelled()

    def submit(self, entry: Entry, stored: Stored, known: Known = UNKNOWN) -> None:
        """Store the file, but for what is ``known``, some time soon, then call ``stored`` from another thread. Blocks
        while many files wait."""
        self._batch.append(_Order(entry, stored, known))
        self._bytes += entry.node.size
        # The source may wait until a file without a recipe is read.
        if entry.recipe is None or self._bytes >= BYTES_IN_BATCH or len(self._batch) >= FILES_IN_BATCH:
            self._hand_over()

    def wait(self) -> None:
        """Until all files are stored; nothing can be submitted then."""
        if self._batch:
            self._hand_over()
        self._readers.shutdown()
        self._sealers.shutdown()

    def _hand_over(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        self._room.acquire()
        self._readers.submit(self._run, batch)

    def _run(self, batch: list[_Order]) -> None:
        try:
            for order in batch:
                self.check()
                order.stored(self._store(order.entry, order.known))
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._room.release()

    def _store(self, entry: Entry, known: Known) -> Node | None:
        """The file's node, or ``None`` with a warning."""
        try:
            return self._read(entry, known)
        except SnappyError:
            raise  # the repository's: some of them are an OSError too
        except FileNotFoundError:
            self._problems.add(entry.path, "it vanished before it could be read")
        except OSError as error:
            self._problems.add(entry.path, f"it cannot be read: {error.strerror or error}")
        return None

    def _read(self, entry: Entry, known: Known) -> Node:
        node = entry.node
        if entry.open is None:
            raise OSError("the source gave no content")
        with entry.open() as file:
            content = _Content(entry, self._passed_over(file, known), self._journal)
            self._store_content(file, content)
        size = content.size
        changed = entry.changed() if entry.changed else ""
        if not changed and node.size and size != node.size:
            changed = f"it had {node.size} bytes and gave {size}"
        if changed:
            self._problems.add(entry.path, f"its content may be torn: {changed}")
        node.content, node.size = content.blobs, size
        return node

    def _passed_over(self, file: BinaryIO, known: Known) -> Known:
        """What of it the file lets us pass over. A chunk depends on nothing before it: what follows is cut the same."""
        if not (known.size and file.seekable()):
            return Known([], 0)
        file.seek(known.size)
        self._progress.add(size=known.size)
        return known

    def _store_content(self, file: BinaryIO, content: _Content) -> None:
        sealing: deque[tuple[Future[BlobId], int]] = deque()
        for chunk in self._repo.chunks(file):
            self.check()
            if len(sealing) >= CHUNKS_IN_FLIGHT:
                _take_first(sealing, content)
            if len(chunk) < SMALLEST and not sealing:  # a small file: handing it over would cost more than it gives
                content.add(self._save(chunk), len(chunk))
            else:
                sealing.append((self._sealers.submit(self._save, chunk), len(chunk)))
        while sealing:
            _take_first(sealing, content)

    def _save(self, chunk: bytes) -> BlobId:
        saved = self._repo.save_blob(BlobType.DATA, chunk)
        self._tally.read(len(chunk))
        if saved.new:
            self._tally.blob(BlobType.DATA, len(chunk), saved.stored)
        self._progress.add(size=len(chunk))
        return saved.id


def _take_first(sealing: deque[tuple[Future[BlobId], int]], content: _Content) -> None:
    future, size = sealing.popleft()
    content.add(future.result(), size)
