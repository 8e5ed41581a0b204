"""Reads the trees of a snapshot ahead of whoever walks them: one read brings many, not one each.

A backup stores neighbouring directories beside each other, so the trees below the one asked for, and of its next
siblings, are mostly one range of one pack.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice

from snappy.errors import Damaged
from snappy.repository.entries import Node
from snappy.repository.format import HEX_ID, MIB, BlobId, BlobLocation, BlobType, PackId
from snappy.repository.repo import Repository
from snappy.repository.tree import StoredNode, read_tree

READ_AHEAD = 2 * MIB
"""Plain bytes of trees that one miss may bring."""
SIBLINGS = 256
"""How many siblings one miss looks at."""
KEPT = 8 * MIB
"""Plain bytes of trees that are kept; as nodes in memory they take several times that."""


class TreeReader:
    """Loads trees for one walk, depth first. Not thread-safe."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._ahead: OrderedDict[BlobId, tuple[int, list[StoredNode]]] = OrderedDict()
        self._kept = 0

    def load(self, tree: BlobId, siblings: Iterable[BlobId] = ()) -> list[Node]:
        """The nodes of ``tree``; ``siblings`` will be asked for soon, in their order.

        Raises :class:`Damaged` and StorageError.
        """
        return [node.node() for node in self.load_stored(tree, siblings)]

    def load_stored(self, tree: BlobId, siblings: Iterable[BlobId] = ()) -> list[StoredNode]:
        """The same as they are stored: what is wrong within a node shows only when somebody looks at it."""
        if tree not in self._ahead:
            self._read_ahead([tree, *islice(siblings, SIBLINGS)])
        found = self._ahead.pop(tree, None)
        if found is None:
            return read_tree(self._repo.load_blob(BlobType.TREE, tree))
        self._kept -= found[0]
        return found[1]

    def _read_ahead(self, level: list[BlobId]) -> None:
        """Level by level below the trees asked for, as far as the budget goes."""
        budget = READ_AHEAD
        while level:
            wanted, budget = self._affordable(level, budget)
            level = [below for tree, data in self._fetch(wanted) for below in self._keep(tree, data)]

    def _affordable(self, level: list[BlobId], budget: int) -> tuple[list[BlobLocation], int]:
        wanted: list[BlobLocation] = []
        for tree in dict.fromkeys(level):
            if budget <= 0:
                break
            location = self._unread(tree)
            if location is not None:
                wanted.append(location)
                budget -= location.uncompressed_length or location.length
        return wanted, budget

    def _unread(self, tree: BlobId) -> BlobLocation | None:
        locations = self._repo.locations(BlobType.TREE, tree) if tree not in self._ahead else []
        return locations[0] if locations else None

    def _fetch(self, wanted: list[BlobLocation]) -> Iterator[tuple[BlobId, bytes]]:
        packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        for location in wanted:
            packs[location.pack].append(location)
        for pack, locations in packs.items():
            try:
                for location, data in self._repo.load_blobs(pack, locations):
                    yield location.id, data
            except Damaged:
                continue  # whoever asks for the damaged tree itself will hear of it

    def _keep(self, tree: BlobId, data: bytes) -> list[BlobId]:
        try:
            nodes = read_tree(data)
        except Damaged:
            return []
        self._ahead[tree] = len(data), nodes
        self._kept += len(data)
        while self._kept > KEPT and len(self._ahead) > 1:
            self._kept -= self._ahead.popitem(last=False)[1][0]
        return stored_subtrees(nodes)


def subtrees(nodes: Iterable[Node]) -> list[BlobId]:
    """The ids of the directories among ``nodes``, in order."""
    return [node.subtree for node in nodes if node.type == "dir" and node.subtree is not None]


def stored_subtrees(nodes: Iterable[StoredNode]) -> list[BlobId]:
    """The same of nodes as they are stored, but for what is no id."""
    found = (node.subtree for node in nodes if node.type == "dir" and node.subtree is not None)
    return [bytes.fromhex(tree) for tree in found if HEX_ID.match(tree)]
