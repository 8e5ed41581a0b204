"""Has files stored: small backups in a few threads of this process, and what there is more in worker processes. How
many files and chunks are in memory is bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from snappy import log
from snappy.errors import SnappyError
from snappy.repository.chunker import SMALLEST
from snappy.repository.contents import passed_over, torn, unreadable
from snappy.repository.crew import NO_WORKERS, Crew, Stored, Workers
from snappy.repository.entries import Entry, Node, Recipe
from snappy.repository.format import MIB, BlobId, BlobType
from snappy.repository.journal import UNKNOWN, Journal, Known, file_id
from snappy.repository.progress import Problems, Progress
from snappy.repository.relay import WORTH_PARTS
from snappy.repository.repo import Repository
from snappy.repository.tally import Tally

READERS = 1
"""To read small files keeps the interpreter busy, which runs one thread at a time: more would wait for each other."""
STREAM_READERS = 2
"""For what has to be waited for: the files of an object store, a program's output."""
SEALERS = 2
BATCHES_IN_FLIGHT = 4
CHUNKS_IN_FLIGHT = 3
"""Chunks of one file that are being sealed; a chunk is at most 8 MiB."""
FILES_IN_BATCH = 64
BYTES_IN_BATCH = MIB
"""Small files are handed over together, for a hand-over costs as much as reading one."""

FILES_FOR_WORKERS = 1000
BYTES_FOR_WORKERS = 64 * MIB
"""When so much has come, worker processes are started: before, they would cost more time than they save."""
FILES_IN_LARGE_BATCH = 256
BYTES_IN_LARGE_BATCH = 4 * MIB
"""What is handed to a worker together."""
READY_SECONDS = 5.0

Delivered = Callable[[Node | None], None]
"""Takes a file's node, complete with its content; ``None`` when the file could not be read."""

_log = log.get(__name__)


class Ledgers(NamedTuple):
    """Where it is written down what became of each file."""

    tally: Tally
    progress: Progress
    problems: Problems
    journal: Journal | None = None


class _Order:
    """A file that is to be stored: its blobs in their order, as they come in. One thread at a time may use it."""

    def __init__(self, entry: Entry, deliver: Delivered, known: Known, ledgers: Ledgers) -> None:
        self.entry, self.known, self._deliver, self._ledgers = entry, known, deliver, ledgers
        self.recipe = entry.recipe or Recipe("", ())
        self.size, self.skip = entry.node.size, known.size
        self._file = file_id(entry) if ledgers.journal else b""
        self._blobs: list[BlobId] = []
        self._bytes = 0

    def begun(self, skipped: bool) -> None:
        if skipped:
            self._blobs, self._bytes = self.known
            self._ledgers.progress.add(size=self.known.size)

    def read(self, blob: BlobId, size: int) -> None:
        tally, progress, _, journal = self._ledgers
        tally.read(size)
        progress.add(size=size)
        if journal:
            journal.note(self._file, len(self._blobs), blob, size)
        self._blobs.append(blob)
        self._bytes += size

    def done(self, changed: str) -> None:
        node = self.entry.node
        doubt = torn(changed, node.size, self._bytes)
        if doubt:
            self._ledgers.problems.add(self.entry.path, doubt)
        node.content, node.size = self._blobs, self._bytes
        self._deliver(node)

    def lost(self, why: str) -> None:
        self._ledgers.problems.add(self.entry.path, why)
        self._deliver(None)


class _Batch:
    """Files that are handed over together."""

    def __init__(self, files: int, size: int) -> None:
        self._files, self._size = files, size
        self._orders: list[_Order] = []
        self._bytes = 0

    def add(self, order: _Order) -> None:
        self._orders.append(order)
        self._bytes += order.size

    def is_full(self) -> bool:
        return self._bytes >= self._size or len(self._orders) >= self._files

    def take(self) -> list[_Order]:
        orders, self._orders, self._bytes = self._orders, [], 0
        return orders


class _Ends:
    """The last chunks of files that were read; they are stored together."""

    def __init__(self) -> None:
        self.files: list[tuple[_Order, bytes, str]] = []
        """Each with how it changed while it was read."""
        self.size = 0

    def add(self, order: _Order, end: bytes, changed: str) -> None:
        self.files.append((order, end, changed))
        self.size += len(end)


class FileStorer:
    """Stores files. The first error that is not one file's own stops all; ``check`` raises that error.

    ``cancelled`` is asked before each chunk and raises to stop.
    """

    def __init__(
        self, repo: Repository, ledgers: Ledgers, cancelled: Callable[[], None], workers: Workers = NO_WORKERS
    ) -> None:
        self._repo, self._ledgers, self._cancelled, self._workers = repo, ledgers, cancelled, workers
        self._room = threading.Semaphore(BATCHES_IN_FLIGHT)
        self._batch = _Batch(FILES_IN_BATCH, BYTES_IN_BATCH)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._stream_readers = ThreadPoolExecutor(STREAM_READERS, thread_name_prefix="read-stream")
        self._sealers = ThreadPoolExecutor(SEALERS, thread_name_prefix="seal")
        self._failure: BaseException | None = None
        self._crew: Crew | None = None
        self._crew_batch = _Batch(FILES_IN_LARGE_BATCH, BYTES_IN_LARGE_BATCH)
        self._may_have_crew = workers.most > 1
        self._files = self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failure = self._failure or error
        try:
            self._end_threads()
        finally:
            if self._crew:
                self._crew.close()

    def check(self) -> None:
        """Raise what has stopped the work, if anything has."""
        if self._failure is not None:
            raise self._failure
        if self._crew:
            self._crew.raise_failure()
        self._cancelled()

    def submit(self, entry: Entry, stored: Delivered, known: Known = UNKNOWN) -> None:
        """Store the file, but for what is ``known``, some time soon, then call ``stored`` from another thread. Blocks
        while many files wait."""
        order = _Order(entry, stored, known, self._ledgers)
        if entry.recipe is None:
            self._hand_over(self._batch.take(), self._readers)  # the source may wait until all this is read
            self._hand_over([order], self._stream_readers)
        elif (crew := self._crew or self._crew_if_worth(order.size)) and crew.is_ready(_patience(order)):
            self._crew_batch.add(order)
            if self._crew_batch.is_full():
                crew.submit(self._crew_batch.take())
        else:
            self._batch.add(order)
            if self._batch.is_full():
                self._hand_over(self._batch.take(), self._readers)

    def wait(self) -> None:
        """Until all files are stored; nothing can be submitted then."""
        if self._crew and (left := self._crew_batch.take()):
            self._crew.submit(left)
        self._end_threads()
        self.check()
        if self._crew:
            self._crew.finish()

    def _crew_if_worth(self, size: int) -> Crew | None:
        self._files += 1
        self._bytes += size
        if self._may_have_crew and (self._files > FILES_FOR_WORKERS or self._bytes > BYTES_FOR_WORKERS):
            self._may_have_crew = False
            self._crew = self._start_crew()
        return self._crew

    def _start_crew(self) -> Crew | None:
        setup = self._repo.worker_setup(self._workers.niceness)
        if setup is None:
            return None
        try:
            return Crew(self._repo, setup, self._workers, self._count, self.check)
        except OSError as error:
            _log.warning("no worker process could be started", reason=str(error))
            return None

    def _count(self, stored: Stored) -> None:
        self._ledgers.tally.blob(BlobType.DATA, stored.plain, stored.sealed, stored.blobs)

    def _end_threads(self) -> None:
        self._hand_over(self._batch.take(), self._readers)
        self._readers.shutdown()
        self._stream_readers.shutdown()
        self._sealers.shutdown()

    def _hand_over(self, orders: list[_Order], readers: ThreadPoolExecutor) -> None:
        if orders:
            self._room.acquire()
            readers.submit(self._run, orders)

    def _run(self, orders: list[_Order]) -> None:
        try:
            read = _Ends()
            for order in orders:
                self.check()
                self._read(order, read)
                if read.size >= BYTES_IN_BATCH:
                    self._finish(read)
                    read = _Ends()
            self._finish(read)
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._room.release()

    def _finish(self, read: _Ends) -> None:
        saved = self._repo.save_blobs(BlobType.DATA, [end for _, end, _ in read.files if end])
        self._ledgers.tally.blob(BlobType.DATA, saved.plain, saved.stored, saved.new)
        blobs = iter(saved.ids)
        for order, end, changed in read.files:
            if end:
                order.read(next(blobs), len(end))
            order.done(changed)

    def _read(self, order: _Order, read: _Ends) -> None:
        """Store the file but for its end, which goes to ``read``: of a small file that is all."""
        try:
            end, changed = self._store(order)
        except SnappyError:
            raise  # the repository's: some of them are an OSError too
        except OSError as error:
            order.lost(unreadable(error))
        else:
            read.add(order, end, changed)

    def _store(self, order: _Order) -> tuple[bytes, str]:
        entry = order.entry
        if entry.open is None:
            raise OSError("the source gave no content")
        with entry.open() as file:
            order.begun(passed_over(file, order.skip))
            end = self._store_chunks(self._repo.chunks(file), order)
        return end, entry.changed() if entry.changed else ""

    def _store_chunks(self, chunks: Iterable[bytes], order: _Order) -> bytes:
        """Store all but the last chunk, if that is a small one; it is returned then."""
        sealing: deque[tuple[Future[BlobId], int]] = deque()
        end = b""
        for chunk in chunks:
            if len(chunk) < SMALLEST:
                end = chunk
                continue
            self.check()
            if len(sealing) >= CHUNKS_IN_FLIGHT:
                _take_first(sealing, order)
            sealing.append((self._sealers.submit(self._save, chunk), len(chunk)))
        while sealing:
            _take_first(sealing, order)
        return end

    def _save(self, chunk: bytes) -> BlobId:
        saved = self._repo.save_blob(BlobType.DATA, chunk)
        if saved.new:
            self._ledgers.tally.blob(BlobType.DATA, len(chunk), saved.stored)
        return saved.id


def _patience(order: _Order) -> float:
    """Seconds to wait for workers that are not ready: a large file they do better, in parts."""
    return READY_SECONDS if order.size >= WORTH_PARTS else 0.0


def _take_first(sealing: deque[tuple[Future[BlobId], int]], order: _Order) -> None:
    future, size = sealing.popleft()
    order.read(future.result(), size)
