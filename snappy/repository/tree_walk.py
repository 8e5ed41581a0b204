"""Reads the trees of snapshots, each once, however many share it: level by level, a pack's trees in few reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from snappy.errors import Damaged
from snappy.repository.findings import Kind
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId
from snappy.repository.levels import walk_levels
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository


class Follower(Protocol):
    """Hears of each tree, from any of several threads."""

    def follow(self, tree: BlobId, data: bytes) -> list[BlobId]:
        """The trees below the one with these bytes. Raises :class:`Damaged` where they make no sense."""

    def lose(self, kind: Kind, tree: BlobId, message: str) -> None:
        """The tree cannot be read."""


class TreeWalk:
    """One walk by one ``follower``. The index must be loaded."""

    def __init__(self, repo: Repository, follower: Follower, cancelled: Cancelled) -> None:
        self._repo, self._follower, self._cancelled = repo, follower, cancelled
        self._seen: set[BlobId] = set()

    @property
    def trees(self) -> int:
        """How many different trees were met."""
        return len(self._seen)

    def walk(self, roots: Iterable[BlobId]) -> None:
        """Raises StorageError, and what ``cancelled`` raises."""
        walk_levels(roots, self._unseen, self._located, self._read)

    def _unseen(self, trees: Iterable[BlobId]) -> list[BlobId]:
        new = [tree for tree in dict.fromkeys(trees) if tree not in self._seen]
        self._seen.update(new)
        return new

    def _located(self, trees: Iterable[BlobId]) -> dict[PackId, list[BlobLocation]]:
        packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        for tree in trees:
            found = self._repo.locations(BlobType.TREE, tree)
            if found:
                packs[found[0].pack].append(found[0])
            else:
                self._follower.lose(Kind.TREE_MISSING, tree, "a snapshot needs it, and no index file lists it")
        return packs

    def _read(self, pack: PackId, wanted: list[BlobLocation]) -> list[BlobId]:
        """The trees below these."""
        self._cancelled()
        below: list[BlobId] = []
        try:
            for location, data in self._repo.load_blobs(pack, wanted):
                below += self._follow(location.id, data)
        except Damaged as error:
            for location in error.details["blobs"]:
                self._follower.lose(Kind.TREE_DAMAGED, location.id, f"it cannot be read from pack {pack.hex()}")
        return below

    def _follow(self, tree: BlobId, data: bytes) -> list[BlobId]:
        try:
            return self._follower.follow(tree, data)
        except Damaged as error:
            self._follower.lose(Kind.TREE_DAMAGED, tree, error.message)
            return []
