"""Follows every snapshot's trees to their ends: each can be read, and each blob that one names is in the index."""

from __future__ import annotations

from collections.abc import Iterable

from snappy.repository.findings import Findings, Kind
from snappy.repository.format import BlobId, BlobType
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.tree_needs import TreeNeeds
from snappy.repository.tree_walk import TreeWalk


class TreeChecker:
    """Checks the trees of snapshots. The index must be loaded."""

    def __init__(self, repo: Repository, findings: Findings, cancelled: Cancelled) -> None:
        self._repo, self._findings = repo, findings
        self._walk = TreeWalk(repo, self, cancelled)
        self._missing: set[BlobId] = set()

    @property
    def trees(self) -> int:
        """How many different trees were met."""
        return self._walk.trees

    def check(self, roots: Iterable[BlobId]) -> None:
        """Raises StorageError, and what ``cancelled`` raises."""
        self._walk.walk(roots)

    def follow(self, tree: BlobId, data: bytes) -> list[BlobId]:
        """Check one, and name the trees below it. Raises :class:`snappy.errors.Damaged`."""
        needs = TreeNeeds(data)
        for blob in needs.contents():
            if not self._repo.index.has(BlobType.DATA, blob):
                self._miss(blob, tree)
        return list(needs.subtrees())

    def lose(self, kind: Kind, tree: BlobId, message: str) -> None:
        """Find that it cannot be read."""
        self._findings.add(kind, tree, message)

    def _miss(self, blob: BlobId, tree: BlobId) -> None:
        if blob not in self._missing:
            self._missing.add(blob)
            self._findings.add(Kind.BLOB_MISSING, blob, f"tree {tree.hex()} needs it, and no index file lists it")
