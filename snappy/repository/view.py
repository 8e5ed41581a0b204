"""A repository as it was when it was looked at: its snapshots, their directories and files, to be read in any order."""

from __future__ import annotations

import threading

from snappy.repository.blob_shelf import KEPT_BYTES, BlobShelf
from snappy.repository.browsable import Browsable
from snappy.repository.entries import Node
from snappy.repository.snapshot_tree import Folders, SnapshotTree
from snappy.repository.snapshots import Snapshot
from snappy.repository.stored_file import StoredFile


class View:
    """Any thread may call any method. What a name such as ``latest`` means stays until :meth:`refresh`. Each method
    raises :class:`snappy.errors.Damaged` and StorageError."""

    def __init__(self, library: Browsable, *, kept_bytes: int = KEPT_BYTES) -> None:
        self.library = library
        self._shelf, self._folders = BlobShelf(library, kept_bytes), Folders(library)
        self._lock = threading.RLock()
        self._listed: list[Snapshot] | None = None
        self._trees: dict[str, SnapshotTree] = {}
        self._is_indexed = False

    def snapshots(self) -> list[Snapshot]:
        """All of them, oldest first."""
        with self._lock:
            if self._listed is None:
                self._listed = self.library.snapshots()
            return self._listed

    def tree(self, snapshot: str) -> SnapshotTree:
        """That of the snapshot with that id or first letters of one, or of the ``latest``. Raises
        :class:`snappy.errors.SnapshotNotFound`."""
        with self._lock:
            if snapshot not in self._trees:
                self._trees[snapshot] = self.tree_of(self.library.find_snapshot(snapshot))
            return self._trees[snapshot]

    def tree_of(self, snapshot: Snapshot) -> SnapshotTree:
        """That of a snapshot that was found."""
        with self._lock:
            if not self._is_indexed:
                self.library.load_index()  # after the snapshots: it holds what the newest of them needs
                self._is_indexed = True
        return SnapshotTree(self._folders, snapshot)

    def file(self, node: Node) -> StoredFile:
        """The content of a file."""
        return StoredFile(self.library, self._shelf, node)

    def refresh(self) -> None:
        """Look again: what was stored meanwhile is seen from now on."""
        with self._lock:
            self._listed, self._is_indexed = None, False
            self._trees.clear()
