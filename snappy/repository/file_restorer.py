"""Plans how the contents of files come back: blobs are fetched pack by pack, whatever file they belong to.

Files are planned in batches. While some batches are brought, the next is planned; so memory and open files are bounded,
however large the snapshot or one file of it is. A batch is brought by a few threads, or, in a restore that is worth it,
by a worker process. Where a file stands already, it is read first, in the threads, and only what is wrong in it is
fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from snappy.errors import Damaged
from snappy.repository.batch import Batch, Plan
from snappy.repository.batch_runner import BatchRunner
from snappy.repository.bringer import Bringer
from snappy.repository.entries import Sink
from snappy.repository.format import MIB, BlobType
from snappy.repository.guard import Guard
from snappy.repository.progress import Cancelled, Problems, Progress
from snappy.repository.repo import Repository
from snappy.repository.restored_file import Piece, RestoredFile, plain_length
from snappy.repository.team import NO_WORKERS, Workers

FETCHERS = 3
READ_TOGETHER_FILES = 64
READ_TOGETHER_BYTES = 4 * MIB
"""So many files that stand there already, or so many bytes of them, are read in one go."""


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
    kept of a file's metadata. Files are read and written in threads and by workers, all else happens in the caller's
    thread."""

    def __init__(
        self,
        repo: Repository,
        sink: Sink,
        progress: Progress,
        problems: Problems,
        remarks: Problems,
        cancelled: Cancelled,
        workers: Workers = NO_WORKERS,
    ) -> None:
        self._repo, self._progress, self._cancelled = repo, progress, cancelled
        self._problems, self._remarks = problems, remarks
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")
        self._bringer = Bringer(repo.load_blobs, progress, problems, remarks, cancelled)
        self._batches = BatchRunner(repo, sink, workers, self._bringer, self._pool, cancelled)
        self._next, self._standing = Batch(), _Standing()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bringer.stopped = True
        self._pool.shutdown(cancel_futures=True)
        self._batches.close()
        self._next.abandon()
        for file in self._standing.read:
            file.abandon()

    @property
    def complete(self) -> int:
        """Files that are without loss now."""
        return self._bringer.complete

    @property
    def unmodified(self) -> int:
        """Of them those that were so before."""
        return self._bringer.unmodified

    def guard(self, path: bytes, problems: Problems | None = None) -> Guard:
        """For what is done with one object; what fails becomes one of ``problems``."""
        return self._bringer.guard(path, problems)

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
            self._bringer.close(file)

    def afterwards(self, action: Callable[[], object]) -> None:
        """Call ``action`` when all files that were added before are done, in the order of these calls."""
        self._next.afterwards.append(action)
        self._next.blobs += 1
        self._send_if_full()

    def finish(self) -> None:
        """Restore all that is left. Raises what stops the whole restore."""
        self._send()
        self._batches.finish()

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
        file.node.content = None  # workers need it no more
        return pieces

    def _plan(self, file: RestoredFile, pieces: list[Piece]) -> None:
        """Only what is large is brought in several batches."""
        self._next.large += len(pieces) > 1
        for piece in pieces:
            self._next.add(file, piece)
            if file.is_large:
                self._send_if_full()
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
        if self._batches.is_enough(self._next):
            self._send()

    def _send(self) -> None:
        """Have the batch brought, and as many others before it as are needed for what standing files lack."""
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
        batch, self._next = self._next, Batch()
        self._batches.send(batch)

    # ---- in threads

    def _reuse_all(self, files: list[Plan]) -> list[Plan]:
        """Make use of what stands there. Returns what has to be fetched all the same."""
        try:
            missing = [(file, self._reuse(file, pieces)) for file, pieces in files if not self._bringer.stopped]
        except BaseException:
            self._bringer.stopped = True
            raise
        return [(file, pieces) for file, pieces in missing if pieces]

    def _reuse(self, file: RestoredFile, pieces: list[Piece]) -> list[Piece]:
        with self.guard(file.path) as guard:
            stays, missing, remarks = file.reuse(pieces, self._cancelled)
            guard.remark(remarks)
        if guard.failed:
            self._bringer.close_lost(file)
            return []
        self._progress.add(size=file.node.size - sum(plain_length(piece.blob) for piece in missing))
        if stays:
            self._bringer.count(file, unmodified=True)
        elif file.arrived(len(pieces) - len(missing)):
            self._bringer.close(file)
        return missing
