"""Brings the contents of files back: blobs are fetched pack by pack, whatever file they belong to.

Files are planned in batches. While the packs of some batches are fetched in a few threads, the next is planned; so
memory and open files are bounded, however large the snapshot or one file of it is. Where a file stands already, it is
read first, in the same threads, and only what is wrong in it is fetched.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from snappy.errors import Damaged
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType, PackId
from snappy.repository.guard import Guard
from snappy.repository.progress import Cancelled, Problems, Progress
from snappy.repository.repo import Repository
from snappy.repository.restored_file import Piece, RestoredFile, plain_length

FETCHERS = 3
BATCHES_RUNNING = 2
BATCH_BYTES = 64 * MIB
BATCH_BLOBS = 4096
BATCH_LARGE_FILES = 100
"""Files of several blobs stay open until all have come."""
READ_TOGETHER_FILES = 64
READ_TOGETHER_BYTES = 4 * MIB
"""So many files that stand there already, or so many bytes of them, are read in one go."""

Plan = tuple[RestoredFile, list[Piece]]


class _Batch:
    """Places that wait for blobs, and what is to be done when all have come."""

    def __init__(self) -> None:
        self.places: defaultdict[BlobId, list[tuple[RestoredFile, int]]] = defaultdict(list)
        self.packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        self.afterwards: list[Callable[[], object]] = []
        self.futures: list[Future[None]] = []
        self.bytes = self.blobs = self.large = 0

    def add(self, file: RestoredFile, piece: Piece) -> None:
        offset, location = piece
        places = self.places[location.id]
        if not places:
            self.packs[location.pack].append(location)
            self.bytes += plain_length(location)
        places.append((file, offset))
        self.blobs += 1

    def abandon(self) -> None:
        """Let go of what is still open."""
        for places in self.places.values():
            for file, _ in places:
                file.abandon()

    @property
    def is_full(self) -> bool:
        return self.bytes >= BATCH_BYTES or self.blobs >= BATCH_BLOBS or self.large >= BATCH_LARGE_FILES


class _Standing:
    """Files whose places are taken, and what is found missing in those that are read."""

    def __init__(self) -> None:
        self.unread: list[Plan] = []
        self.bytes = 0
        self.read: list[RestoredFile] = []
        self.missing: list[Future[list[Plan]]] = []

    def add(self, file: RestoredFile, pieces: list[Piece]) -> None:
        self.unread.append((file, pieces))
        self.bytes += file.node.size

    def group(self) -> list[Plan]:
        """What is to be read next."""
        group, self.unread, self.bytes = self.unread, [], 0
        self.read += [file for file, _ in group]
        return group

    @property
    def is_group(self) -> bool:
        return len(self.unread) >= READ_TOGETHER_FILES or self.bytes >= READ_TOGETHER_BYTES


class FileRestorer:
    """Restores the files that it is given, in batches. ``problems`` gets what is lost, ``remarks`` what could not be
    kept of a file's metadata. Files are read and written in threads, all else happens in the caller's."""

    def __init__(
        self, repo: Repository, progress: Progress, problems: Problems, remarks: Problems, cancelled: Cancelled
    ) -> None:
        self._repo, self._progress = repo, progress
        self._problems, self._remarks, self._cancelled = problems, remarks, cancelled
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
        self._next, self._standing = _Batch(), _Standing()
        self._running: deque[_Batch] = deque()
        self._stopped = False
        self._lock = threading.Lock()
        self.complete = self.unmodified = 0
        """Files that are without loss now; of them those that were so before."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._pool.shutdown(cancel_futures=True)
        for batch in (*self._running, self._next):
            batch.abandon()
        for file in self._standing.read:
            file.abandon()

    def guard(self, path: bytes, problems: Problems | None = None) -> Guard:
        """For what is done with one object; what fails becomes one of ``problems``."""
        return Guard(path, problems or self._problems, self._remarks)

    # ---- planning

    def add(self, file: RestoredFile, *, reuse: bool) -> None:
        """Restore the file soon; with ``reuse`` one stands in its place that may serve. What fails for this file
        alone becomes a problem."""
        pieces = self._locate(file)
        if pieces is None:
            return
        if reuse:
            self._read_standing(file, pieces)
        elif pieces:
            self._plan(file, pieces)
        else:
            self._close(file)

    def afterwards(self, action: Callable[[], object]) -> None:
        """Call ``action`` when all files that were added before are done, in the order of these calls."""
        self._next.afterwards.append(action)
        self._next.blobs += 1
        self._send_if_full()

    def finish(self) -> None:
        """Restore all that is left. Raises what stops the whole restore."""
        self._send()
        while self._running:
            self._settle()

    def _locate(self, file: RestoredFile) -> list[Piece] | None:
        """Where the file's blobs lie, and its true size with them; ``None`` with a problem when one is unknown."""
        pieces: list[Piece] = []
        size = 0
        for blob in file.node.content or ():
            found = self._repo.location(BlobType.DATA, blob)
            if found is None:
                self._problems.add(file.path, f"its blob {blob.hex()[:8]} is in no index", Damaged.code)
                file.outcome.failed = True
                return None
            pieces.append(Piece(size, found))
            size += plain_length(found)
        if size != file.node.size:
            self._remarks.add(file.path, f"the snapshot says {file.node.size} bytes, there are {size}")
            file.node.size = size
        return pieces

    def _plan(self, file: RestoredFile, pieces: list[Piece]) -> None:
        self._next.large += len(pieces) > 1
        for piece in pieces:
            self._next.add(file, piece)
            self._send_if_full()

    def _read_standing(self, file: RestoredFile, pieces: list[Piece]) -> None:
        """What is missing in a file is planned when the batch is sent; until then the file counts as a part of it."""
        self._standing.add(file, pieces)
        self._next.large += len(pieces) > 1
        self._next.blobs += 1 + len(pieces)
        self._next.bytes += file.node.size
        if self._standing.is_group:
            self._read_group()
        self._send_if_full()

    def _read_group(self) -> None:
        self._standing.missing.append(self._pool.submit(self._reuse_all, self._standing.group()))

    def _send_if_full(self) -> None:
        if self._next.is_full:
            self._send()

    def _send(self) -> None:
        """Have the batch fetched, and as many others before it as are needed for what standing files lack."""
        if self._standing.unread:
            self._read_group()
        afterwards, self._next.afterwards = self._next.afterwards, []
        found, self._standing.missing = self._standing.missing, []
        read, self._standing.read = self._standing.read, []  # to plan may send, and so come here again
        try:
            for missing in found:
                for file, pieces in missing.result():
                    self._plan(file, pieces)
        except BaseException:
            self._standing.read += read  # to be abandoned
            raise
        self._next.afterwards = afterwards
        self._fetch_next()

    def _fetch_next(self) -> None:
        batch, self._next = self._next, _Batch()
        batch.futures = [self._pool.submit(self._fetch, batch, pack, blobs) for pack, blobs in batch.packs.items()]
        self._running.append(batch)
        while len(self._running) > BATCHES_RUNNING:
            self._settle()

    def _settle(self) -> None:
        """Wait for the batch that has run longest, then do what waits for it."""
        batch = self._running[0]
        for future in batch.futures:
            future.result()
        self._running.popleft()
        for action in batch.afterwards:
            action()

    # ---- in threads

    def _reuse_all(self, files: list[Plan]) -> list[Plan]:
        """Make use of what stands there. Returns what has to be fetched all the same."""
        try:
            missing = [(file, self._reuse(file, pieces)) for file, pieces in files if not self._stopped]
        except BaseException:
            self._stopped = True
            raise
        return [(file, pieces) for file, pieces in missing if pieces]

    def _reuse(self, file: RestoredFile, pieces: list[Piece]) -> list[Piece]:
        with self.guard(file.path) as guard:
            stays, missing, remarks = file.reuse(pieces, self._cancelled)
            guard.remark(remarks)
        if guard.failed:
            self._close_lost(file, pieces)
            return []
        self._progress.add(size=file.node.size - sum(plain_length(piece.blob) for piece in missing))
        if stays:
            self._count(unmodified=1)
        elif file.arrived(len(pieces) - len(missing)):
            self._close(file)
        return missing

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
        if not file.outcome.failed:
            with self.guard(file.path) as guard:
                file.write(offset, data)
            file.outcome.failed |= guard.failed
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

    def _close_lost(self, file: RestoredFile, pieces: list[Piece]) -> None:
        file.outcome.failed = True
        self._progress.add(size=file.node.size)
        self._close(file)

    def _close(self, file: RestoredFile) -> None:
        """The last blob was dealt with. A file that lost something keeps what came, but not its times and mode."""
        with self.guard(file.path) as guard:
            if file.outcome.failed:
                file.close()
            else:
                guard.remark(file.complete())
        file.outcome.failed |= guard.failed
        if file.outcome.failed:
            self._progress.add(files=1)
        else:
            self._count()

    def _count(self, unmodified: int = 0) -> None:
        """One more file is as it should be."""
        self._progress.add(files=1)
        with self._lock:
            self.complete += 1
            self.unmodified += unmodified
