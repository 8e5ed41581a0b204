"""What a backup counts on its way: restic's summary, and the bytes that were read."""

from __future__ import annotations

import threading

from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.snapshots import Summary


class Tally:
    """What a backup has counted so far, in the terms of restic's summary. Thread-safe."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._lock = threading.Lock()
        self.bytes_read = 0

    def read(self, size: int) -> None:
        """Count bytes that were read from the source."""
        with self._lock:
            self.bytes_read += size

    def kept(self, *, files: int, size: int, folders: int = 0) -> None:
        """Count files that are known to be as they were, of so many bytes together, and directories."""
        with self._lock:
            self._summary.dirs_unmodified += folders
            self._summary.total_files_processed += files
            self._summary.total_bytes_processed += size
            self._summary.files_unmodified += files

    def new(self, *, files: int, size: int) -> None:
        """Count files that the parent snapshot does not have, of so many bytes together."""
        with self._lock:
            self._summary.total_files_processed += files
            self._summary.total_bytes_processed += size
            self._summary.files_new += files

    def file(self, old: Node | None, node: Node) -> None:
        """Count one file."""
        with self._lock:
            self._summary.total_files_processed += 1
            self._summary.total_bytes_processed += node.size
            if old is None:
                self._summary.files_new += 1
            elif old == node:
                self._summary.files_unmodified += 1
            else:
                self._summary.files_changed += 1

    def folder(self, *, new: bool, same: bool) -> None:
        """Count one directory, that the parent snapshot does not have, or has just the same."""
        with self._lock:
            if new:
                self._summary.dirs_new += 1
            elif same:
                self._summary.dirs_unmodified += 1
            else:
                self._summary.dirs_changed += 1

    def blob(self, kind: BlobType, plain: int, stored: int, count: int = 1) -> None:
        """Count one blob that the repository did not have, or so many."""
        with self._lock:
            if kind is BlobType.DATA:
                self._summary.data_blobs += count
            else:
                self._summary.tree_blobs += count
            self._summary.data_added += plain
            self._summary.data_added_packed += stored
