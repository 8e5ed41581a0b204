"""Brings blobs into the files that they belong to: read pack by pack, written as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from snappy.errors import Damaged
from snappy.repository.batch import Places
from snappy.repository.format import BlobLocation, PackId
from snappy.repository.guard import Guard
from snappy.repository.progress import Cancelled, Problems, Progress
from snappy.repository.restored_file import RestoredFile

LoadBlobs = Callable[[PackId, Iterable[BlobLocation]], Iterator[tuple[BlobLocation, bytes]]]
"""See :meth:`snappy.repository.reader.BlobReader.load_many`."""


class Bringer:
    """For several threads. ``problems`` gets what is lost, ``remarks`` what could not be kept of a file's metadata."""

    def __init__(
        self, load_blobs: LoadBlobs, progress: Progress, problems: Problems, remarks: Problems, cancelled: Cancelled
    ) -> None:
        self._load_blobs, self._cancelled = load_blobs, cancelled
        self.progress, self.problems, self.remarks = progress, problems, remarks
        self._lock = threading.Lock()
        self.stopped = False
        self.complete = self.unmodified = 0
        """Files that are without loss now; of them those that were so before."""

    def guard(self, path: bytes, problems: Problems | None = None) -> Guard:
        """For what is done with one object; what fails becomes one of ``problems``."""
        return Guard(path, problems or self.problems, self.remarks)

    def fetch(self, wanted: Places, pack: PackId) -> None:
        """Bring what is wanted of one pack. What fails for one file alone becomes a problem."""
        try:
            for location, data in self._load_blobs(pack, wanted.packs[pack]):
                self._cancelled()
                if self.stopped:
                    return
                for file, offset in wanted.places[location.id]:
                    self._deliver(file, offset, data)
        except Damaged as error:
            for location in error.details["blobs"]:
                for file, _ in wanted.places[location.id]:
                    self._miss(file, location)
        except BaseException:
            self.stopped = True
            raise

    def _deliver(self, file: RestoredFile, offset: int, data: bytes) -> None:
        if not file.outcome.failed:
            with self.guard(file.path) as guard:
                file.write(offset, data)
            file.outcome.failed |= guard.failed
        self.progress.add(size=len(data))
        if file.arrived():
            self.close(file)

    def _miss(self, file: RestoredFile, location: BlobLocation) -> None:
        if not file.outcome.failed:
            self.lose(file, location)
            file.outcome.failed = True
        if file.arrived():
            self.close(file)

    def lose(self, file: RestoredFile, location: BlobLocation) -> None:
        """Note that a file lacks a blob."""
        message = f"its blob {location.id.hex()[:8]} is damaged or missing"
        self.problems.add(file.path, message, Damaged.code)

    def close_lost(self, file: RestoredFile) -> None:
        """Nothing more can come into the file."""
        file.outcome.failed = True
        self.progress.add(size=file.node.size)
        self.close(file)

    def close(self, file: RestoredFile) -> None:
        """The last blob was dealt with. A file that lost something keeps what came, but not its times and mode."""
        with self.guard(file.path) as guard:
            if file.outcome.failed:
                file.close()
            else:
                guard.remark(file.complete())
        file.outcome.failed |= guard.failed
        self.count(file)

    def count(self, file: RestoredFile, *, unmodified: bool = False) -> None:
        """One more file is done."""
        self.progress.add(files=1)
        with self._lock:
            self.complete += not file.outcome.failed
            self.unmodified += unmodified
