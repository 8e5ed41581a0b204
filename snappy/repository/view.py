"""A repository as it was when it was looked at: its snapshots, their directories and files, to be read in any order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice

from snappy.errors import Damaged
from snappy.repository.blob_shelf import KEPT_BYTES, BlobShelf
from snappy.repository.browsable import Browsable
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobLocation, BlobType
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
        self.indexed()
        return SnapshotTree(self._folders, snapshot)

    def indexed(self) -> Browsable:
        """The repository, for what is to be read of snapshots that were found before."""
        with self._lock:
            if not self._is_indexed:
                self.library.load_index()  # after the snapshots: it holds what the newest of them needs
                self._is_indexed = True
        return self.library

    def file(self, node: Node) -> StoredFile:
        """The content of a file."""
        return StoredFile(self._shelf, self._places(node.content or []))

    def files(self, nodes: Sequence[Node]) -> list[StoredFile]:
        """The contents of files, fetched together: some megabytes at most."""
        places = self._places([blob for node in nodes for blob in node.content or ()])
        self._shelf.take(places)
        following = iter(places)
        return [StoredFile(self._shelf, list(islice(following, len(node.content or ())))) for node in nodes]

    def _places(self, blobs: Sequence[BlobId]) -> list[BlobLocation]:
        places: list[BlobLocation] = []
        for blob, place in zip(blobs, self.library.locate(BlobType.DATA, blobs), strict=True):
            if place is None:
                raise Damaged(f"the data blob {blob.hex()[:8]} is in no index")
            places.append(place)
        return places

    def refresh(self) -> None:
        """Look again: what was stored meanwhile is seen from now on."""
        with self._lock:
            self._listed, self._is_indexed = None, False
            self._trees.clear()
