"""Brings the contents of files back: blobs are fetched pack by pack, whatever file they belong to.

Files are planned in batches. While the packs of one batch are fetched in a few threads, the next is planned; so
memory and open files are bounded, however large the snapshot or one file of it is.
"""

from __future__ import annotations

import errno
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from snappy.errors import Damaged, NoSpace, UnsafePath
from snappy.repository.crypto import OVERHEAD
from snappy.repository.entries import FileWriter, Node, Sink
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, PackId
from snappy.repository.progress import Problems, Progress
from snappy.repository.repo import Repository

FETCHERS = 3
BATCH_BYTES = 64 * MIB
BATCH_BLOBS = 8192
BATCH_LARGE_FILES = 150
"""Files of several blobs stay open until all have come."""
FULL = (errno.ENOSPC, errno.EDQUOT)

Finished = Callable[[], None]


@dataclass(slots=True)
class Outcome:
    """Whether the file at ``path`` is lost; outlives the file's own bookkeeping."""

    path: bytes
    failed: bool = False


class RestoredFile:
    """One file on its way back. Thread-safe: blobs come in any order, from any thread."""

    def __init__(self, outcome: Outcome, node: Node, sink: Sink) -> None:
        self.path, self.node, self.outcome = outcome.path, node, outcome
        self._sink = sink
        self._lock = threading.Lock()
        self._awaited = len(node.content or ())
        self._writer: FileWriter | None = None

    def write(self, offset: int, data: bytes) -> None:
        """Put one blob in its place, creating the file for the first. Raises what the sink raises."""
        self.open().write_at(offset, data)

    def open(self) -> FileWriter:
        """The writer, the file being created if it is not. Raises what the sink raises."""
        with self._lock:
            if self._writer is None:
                self._writer = self._sink.file(self.path, self.node)
            return self._writer

    def arrived(self) -> bool:
        """Count one blob as dealt with; true for the last."""
        with self._lock:
            self._awaited -= 1
            return not self._awaited

    def close(self) -> None:
        """Close the file; may be called twice. Raises what the sink raises."""
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        """Let go of the file as it is, unless it is closed."""
        if self._writer is not None:
            self._writer.discard()

    def finish(self) -> list[str]:
        """Give the file its metadata. Returns what could not be kept."""
        return self._sink.finish(self.path, self.node)


class _Batch:
    """Places that wait for blobs, and what is to be done when all have come."""

    def __init__(self) -> None:
        self.places: defaultdict[BlobId, list[tuple[RestoredFile, int]]] = defaultdict(list)
        self.packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        self.afterwards: list[Finished] = []
        self.bytes = self.blobs = self.large = 0

    def add(self, file: RestoredFile, offset: int, location: BlobLocation) -> None:
        if location.id not in self.places:
            self.packs[location.pack].append(location)
            self.bytes += plain_length(location)
        self.places[location.id].append((file, offset))
        self.blobs += 1

    def abandon(self) -> None:
        """Let go of what is still open."""
        for places in self.places.values():
            for file, _ in places:
                file.abandon()

    @property
    def is_full(self) -> bool:
        return self.bytes >= BATCH_BYTES or self.blobs >= BATCH_BLOBS or self.large >= BATCH_LARGE_FILES


class FileRestorer:
    """Restores the files that it is given, in batches. ``problems`` gets what is lost, ``remarks`` what could not be
    kept of a file's metadata. Blobs are fetched and written in threads, all else happens in the caller's."""

    def __init__(
        self,
        repo: Repository,
        sink: Sink,
        progress: Progress,
        problems: Problems,
        remarks: Problems,
        cancelled: Callable[[], None],
    ) -> None:
        self._repo, self._sink, self._progress = repo, sink, progress
        self._problems, self._remarks, self._cancelled = problems, remarks, cancelled
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
        self._next = _Batch()
        self._running: tuple[_Batch, list[Future[None]]] = (_Batch(), [])
        self._stopped = False
        self.complete = 0
        """Files that were restored without loss."""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)
        for batch in (self._running[0], self._next):
            batch.abandon()

    def add(self, file: RestoredFile) -> None:
        """Restore the file soon. What fails for this file alone becomes a problem."""
        locations = self._locate(file)
        if locations is None:
            return
        if not locations:
            self._create_empty(file)
        if len(locations) > 1:
            self._next.large += 1
        offset = 0
        for location in locations:
            self._next.add(file, offset, location)
            offset += plain_length(location)
            self._send_if_full()

    def afterwards(self, action: Finished) -> None:
        """Call ``action`` when all files that were added before are done, in the order of these calls."""
        self._next.afterwards.append(action)
        self._next.blobs += 1
        self._send_if_full()

    def finish(self) -> None:
        """Restore all that is left. Raises what stops the whole restore."""
        self._send()
        self._settle()

    def guarded(self, path: bytes, action: Callable[[], list[str]], problems: Problems | None = None) -> bool:
        """Do something with one object: what it could not keep is remarked, what fails becomes a problem.

        Raises :class:`NoSpace`; returns whether it worked.
        """
        try:
            for message in action():
                self._remarks.add(path, message)
        except UnsafePath as error:
            self._problems.add(path, error.message, error.code)
            return False
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace("the place restored to is full", hint="free space there, and restore again") from error
            (problems or self._problems).add(path, error.strerror or str(error))
            return False
        return True

    def _locate(self, file: RestoredFile) -> list[BlobLocation] | None:
        """Where the file's blobs lie, and its true size with them; ``None`` with a problem when one is unknown."""
        locations: list[BlobLocation] = []
        for blob in file.node.content or ():
            found = self._repo.locations(BlobType.DATA, blob)
            if not found:
                self._problems.add(file.path, f"its blob {blob.hex()[:8]} is in no index", Damaged.code)
                file.outcome.failed = True
                return None
            locations.append(found[0])
        size = sum(map(plain_length, locations))
        if size != file.node.size:
            self._remarks.add(file.path, f"the snapshot says {file.node.size} bytes, there are {size}")
            file.node.size = size
        return locations

    def _create_empty(self, file: RestoredFile) -> None:
        file.outcome.failed = not self.guarded(file.path, quietly(file.open))
        self._close(file)

    def _send_if_full(self) -> None:
        if self._next.is_full:
            self._send()

    def _send(self) -> None:
        self._settle()
        batch, self._next = self._next, _Batch()
        futures = [self._pool.submit(self._fetch, batch, pack, blobs) for pack, blobs in batch.packs.items()]
        self._running = batch, futures

    def _settle(self) -> None:
        """Wait for the batch that is running, then do what waits for it."""
        batch, futures = self._running
        for future in futures:
            future.result()
        self._running = batch, []
        for action in batch.afterwards:
            action()
        batch.afterwards = []

    def _fetch(self, batch: _Batch, pack: PackId, blobs: list[BlobLocation]) -> None:
        try:
            for location, data in self._repo.load_blobs(pack, blobs):
                self._cancelled()
                if self._stopped:
                    return
                for file, offset in batch.places[location.id]:
                    self._deliver(file, offset, data)
        except Damaged as error:
            self._lose(batch, error.details["blobs"])
        except BaseException:
            self._stopped = True
            raise

    def _deliver(self, file: RestoredFile, offset: int, data: bytes) -> None:
        if not file.outcome.failed and not self.guarded(file.path, quietly(lambda: file.write(offset, data))):
            file.outcome.failed = True
        self._progress.add(size=len(data))
        if file.arrived():
            self._close(file)

    def _lose(self, batch: _Batch, blobs: list[BlobLocation]) -> None:
        for location in blobs:
            for file, _ in batch.places[location.id]:
                if not file.outcome.failed:
                    self._problems.add(
                        file.path, f"its blob {location.id.hex()[:8]} is damaged or missing", Damaged.code
                    )
                    file.outcome.failed = True
                if file.arrived():
                    self._close(file)

    def _close(self, file: RestoredFile) -> None:
        """The last blob was dealt with. A file that lost something keeps what came, but not its times and mode."""
        if not self.guarded(file.path, quietly(file.close)):
            file.outcome.failed = True
        if not file.outcome.failed:
            self.guarded(file.path, file.finish, self._remarks)
            with self._lock:
                self.complete += 1
        self._progress.add(files=1)


def plain_length(location: BlobLocation) -> int:
    """How many plain bytes the blob has."""
    return location.uncompressed_length or location.length - OVERHEAD


def quietly(action: Callable[[], object]) -> Callable[[], list[str]]:
    """``action`` as one that has nothing to remark."""

    def act() -> list[str]:
        action()
        return []

    return act
