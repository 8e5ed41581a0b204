"""Follows every snapshot's trees to their ends: each can be read, and each blob that one names is in the index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from snappy.errors import Damaged
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.tree_needs import TreeNeeds

_READERS = 4
_AT_ONCE = 8192
"""Trees that are read together, a pack's few reads each."""


class TreeChecker:
    """Reads each tree once, however many snapshots share it, level by level. The index must be loaded."""

    def __init__(self, repo: Repository, findings: Findings, cancelled: Cancelled) -> None:
        self._repo, self._findings, self._cancelled = repo, findings, cancelled
        self._seen: set[BlobId] = set()
        self._missing: set[BlobId] = set()

    @property
    def trees(self) -> int:
        """How many different trees were met."""
        return len(self._seen)

    def check(self, roots: Iterable[BlobId]) -> None:
        """Raises StorageError, and what ``cancelled`` raises."""
        level = self._unseen(roots)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="trees") as pool:
            while level:
                below: list[BlobId] = []
                remaining = iter(level)
                while together := list(islice(remaining, _AT_ONCE)):
                    for found in pool.map(lambda of_pack: self._read(*of_pack), self._located(together).items()):
                        below += self._unseen(found)
                level = below

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
                self._findings.add(Kind.TREE_MISSING, tree, "a snapshot needs it, and no index file lists it")
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
                self._findings.add(Kind.TREE_DAMAGED, location.id, f"it cannot be read from pack {pack.hex()}")
        return below

    def _follow(self, tree: BlobId, data: bytes) -> list[BlobId]:
        try:
            needs = TreeNeeds(data)
            for blob in needs.contents():
                if not self._repo.index.has(BlobType.DATA, blob):
                    self._miss(blob, tree)
            return list(needs.subtrees())
        except Damaged as error:
            self._findings.add(Kind.TREE_DAMAGED, tree, error.message)
            return []

    def _miss(self, blob: BlobId, tree: BlobId) -> None:
        if blob not in self._missing:
            self._missing.add(blob)
            self._findings.add(Kind.BLOB_MISSING, blob, f"tree {tree.hex()} needs it, and no index file lists it")
