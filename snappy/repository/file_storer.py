"""Has files stored: small backups in this process, and what there is more in worker processes. How many files and
chunks are in memory is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from snappy import log
from snappy.errors import SnappyError
from snappy.repository import worker
from snappy.repository.blocks import Cut
from snappy.repository.bunch import Bunch, BunchReader
from snappy.repository.contents import torn, unreadable
from snappy.repository.crew import Crew, Stored
from snappy.repository.entries import Entry, Image, Look, Node, Recipe
from snappy.repository.file_reader import FileReader
from snappy.repository.format import MIB, BlobId, BlobType
from snappy.repository.journal import UNKNOWN, Journal, Known, entry_id
from snappy.repository.link import BunchRead
from snappy.repository.mosaic import Moment, Mosaic, Stretch, mark
from snappy.repository.progress import Problems, Progress
from snappy.repository.relay import WORTH_PARTS
from snappy.repository.repo import Repository
from snappy.repository.tally import Tally
from snappy.repository.team import NO_WORKERS, Workers
from snappy.repository.tree import EncodedNode

SEALERS = 2
STREAM_READERS = 2
STREAMS_IN_FLIGHT = 4
"""What only this process can read has to be waited for: the files of an object store, a program's output."""

FILES_FOR_WORKERS = 1000
BYTES_FOR_WORKERS = 64 * MIB
"""When so much has come, worker processes are started: before, they would cost more time than they save."""
FILES_IN_BATCH = 256
BYTES_IN_BATCH = 4 * MIB
"""What is handed to a worker together."""
READY_SECONDS = 5.0

Delivered = Callable[[Node | None], None]
"""Takes a file's node, complete with its content; ``None`` when the file could not be read."""

DeliveredAll = Callable[[list[EncodedNode]], None]
"""Takes the nodes of those files that could be read."""

_log = log.get(__name__)


class Ledgers(NamedTuple):
    """Where it is written down what became of each file."""

    tally: Tally
    progress: Progress
    problems: Problems
    journal: Journal | None = None


class _Order:
    """A file that is to be stored: its blobs in their order, as they come in. One thread at a time may use it."""

    files = 1
    cut: Cut | None = None

    def __init__(self, entry: Entry, deliver: Delivered, known: Known, ledgers: Ledgers) -> None:
        self.entry, self.known, self._deliver, self._ledgers = entry, known, deliver, ledgers
        self.recipe = entry.recipe or Recipe("", ())
        self.size, self.skip = entry.node.size, known.size
        self._file = entry_id(entry) if ledgers.journal else b""
        self.moment: Moment | None = None
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

    def kept(self, blob: BlobId, size: int) -> None:
        """The next blob of an image, which was not read."""
        self._ledgers.progress.add(size=size)
        if self._ledgers.journal:
            self._ledgers.journal.note(self._file, len(self._blobs), blob, 0)
        self._blobs.append(blob)
        self._bytes += size

    def done(self, changed: str) -> None:
        node = self.entry.node
        doubt = torn(changed, node.size, self._bytes)
        if doubt:
            self._ledgers.problems.add(self.entry.path, doubt)
        node.content, node.size = self._blobs, self._bytes
        if self.moment and not doubt:
            mark(node, self.moment)
        self._deliver(node)

    def lost(self, why: str) -> None:
        self._ledgers.problems.add(self.entry.path, why)
        self._deliver(None)


_Work = _Order | Stretch | Bunch


class _Batch:
    """Files that are handed over together."""

    def __init__(self, files: int, size: int) -> None:
        self._files, self._size = files, size
        self._orders: list[_Work] = []
        self._count = self._bytes = 0

    def add(self, order: _Work) -> None:
        self._orders.append(order)
        self._count += order.files
        self._bytes += order.size

    def is_full(self) -> bool:
        return self._bytes >= self._size or self._count >= self._files

    def take(self) -> list[_Work]:
        orders, self._orders, self._count, self._bytes = self._orders, [], 0, 0
        return orders


class FileStorer:
    """Stores files. The first error that is not one file's own stops all; ``check`` raises that error.

    ``cancelled`` is asked before each chunk and raises to stop.
    """

    def __init__(
        self, repo: Repository, ledgers: Ledgers, cancelled: Callable[[], None], workers: Workers = NO_WORKERS
    ) -> None:
        self._repo, self._ledgers, self._cancelled, self._workers = repo, ledgers, cancelled, workers
        self._room = threading.Semaphore(STREAMS_IN_FLIGHT)
        self._stream_readers = ThreadPoolExecutor(STREAM_READERS, thread_name_prefix="read")
        self._sealers = ThreadPoolExecutor(SEALERS, thread_name_prefix="seal")
        self._reader = self._new_reader()
        self._failure: BaseException | None = None
        self._crew: Crew | None = None
        self._crew_batch = _Batch(FILES_IN_BATCH, BYTES_IN_BATCH)
        self._may_have_crew = workers.most > 1
        self._has_left = False
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
        """Store the file, but for what is ``known``, some time soon, then call ``stored`` from some thread. What only
        this process can read is read by another thread, for the source may wait until it is read; blocks while much
        of that waits."""
        self._have_read(_Order(entry, stored, known, self._ledgers))

    def submit_image(
        self, entry: Entry, image: Image, old: Node | None, stored: Delivered, known: Known = UNKNOWN
    ) -> None:
        """The same of a disk's image, without what cannot have changed since ``old``."""
        order = _Order(entry, stored, known, self._ledgers)
        lost = order.lost
        try:
            mosaic = Mosaic(self._repo, order, image, old, self._reader.save)
            lost = mosaic.lost
            for stretch in mosaic.stretches():
                self.check()
                self._have_read(stretch)
        except SnappyError:
            raise  # some of them are an OSError too
        except OSError as error:
            lost(unreadable(error))

    def _have_read(self, order: _Order | Stretch) -> None:
        if order.entry.recipe is None:
            self._hand_over(order)
        elif crew := self._ready_crew(order, _patience(order)):
            self._submit(crew, order)
        else:
            self._reader.read(order)

    def submit_bunch(self, folder: bytes, recipe: Recipe, looks: Sequence[Look], stored: DeliveredAll) -> None:
        """Store these small files of the directory some time soon, and tell of all of them together."""
        bunch = Bunch(folder, recipe, looks, partial(self._told, len(looks), stored))
        if crew := self._ready_crew(bunch):
            self._submit(crew, bunch)
        else:
            self._store_here(bunch)

    def _ready_crew(self, order: _Work, seconds: float = 0.0) -> Crew | None:
        crew = self._crew or self._crew_if_worth(order)
        return crew if crew and crew.is_ready(seconds) else None

    def _submit(self, crew: Crew, order: _Work) -> None:
        self._leave_files()
        self._crew_batch.add(order)
        if self._crew_batch.is_full():
            crew.submit(self._crew_batch.take())

    def _store_here(self, bunch: Bunch) -> None:
        reader = BunchReader(bunch.order(0))
        saved = self._repo.save_blobs(BlobType.DATA, reader.chunks)
        self._ledgers.tally.blob(BlobType.DATA, saved.plain, saved.stored, saved.new)
        bunch.done(reader.result)

    def _told(self, files: int, stored: DeliveredAll, read: BunchRead) -> None:
        tally, progress, problems, journal = self._ledgers
        for remark in read.remarks:
            problems.add(remark.path, remark.text)
        size = sum(read.sizes)
        tally.read(size)
        tally.new(files=len(read.nodes), size=size)
        progress.add(files=files, size=size)
        if journal:
            journal.note_all((file, 0, *named) for file, named in zip(read.ids, read.named(), strict=True))
        stored(read.nodes)

    def wait(self) -> None:
        """Until all files are stored; nothing can be submitted then."""
        if self._crew and (left := self._crew_batch.take()):
            self._crew.submit(left)
        self._reader.finish()
        self._end_threads()
        self.check()
        if self._crew:
            self._crew.finish()

    def _crew_if_worth(self, order: _Work) -> Crew | None:
        self._files += order.files
        self._bytes += order.size
        if self._may_have_crew and (self._files > FILES_FOR_WORKERS or self._bytes > BYTES_FOR_WORKERS):
            self._may_have_crew = False
            self._crew = self._start_crew()
        return self._crew

    def _leave_files(self) -> None:
        """Once: what this process has begun it ends."""
        if not self._has_left:
            self._has_left = True
            self._reader.finish()
            self._repo.leave_files()

    def _start_crew(self) -> Crew | None:
        setup = self._repo.worker_setup(worker.work, self._workers.niceness)
        if setup is None:
            return None
        try:
            return Crew(self._repo, setup, self._workers, self._count, self.check)
        except OSError as error:
            _log.warning("no worker process could be started", reason=str(error))
            return None

    def _count(self, stored: Stored) -> None:
        self._ledgers.tally.blob(BlobType.DATA, stored.plain, stored.sealed, stored.blobs)

    def _hand_over(self, order: _Order | Stretch) -> None:
        self._room.acquire()
        self._stream_readers.submit(self._read_stream, order)

    def _read_stream(self, order: _Order | Stretch) -> None:
        try:
            reader = self._new_reader()
            reader.read(order)
            reader.finish()
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._room.release()

    def _new_reader(self) -> FileReader:
        return FileReader(self._repo, self._ledgers.tally, self._sealers, self.check)

    def _end_threads(self) -> None:
        self._stream_readers.shutdown()
        self._sealers.shutdown()


def _patience(order: _Order | Stretch) -> float:
    """Seconds to wait for workers that are not ready: a large file they do better, in parts."""
    return READY_SECONDS if order.size >= WORTH_PARTS else 0.0
