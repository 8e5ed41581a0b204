"""Reads the trees of a snapshot ahead of whoever walks them: one read brings many, not one each.

A backup stores a directory when all below it is stored. So what is below lies right before it in its pack, and its next
siblings, each with what is below them, right after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, Protocol

from snappy.errors import Corrupt, Damaged, NotFound
from snappy.repository.entries import Node
from snappy.repository.format import HEX_ID, MIB, BlobId, BlobLocation, BlobType, PackId
from snappy.repository.tree import StoredNode, read_tree

AROUND = MIB // 2
"""Bytes that one read brings from before the tree asked for, and, if siblings lie there, from after it."""
SIBLINGS = 256
"""How many siblings one read looks at."""
KEPT = 8
"""Stretches of packs in memory."""


class _Stretch(NamedTuple):
    """Bytes of a pack as they lie there, from ``start`` on."""

    pack: PackId
    start: int
    data: memoryview

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def holds(self, place: BlobLocation) -> bool:
        return self.pack == place.pack and self.start <= place.offset and place.offset + place.length <= self.end

    def blob(self, place: BlobLocation) -> memoryview:
        return self.data[place.offset - self.start :][: place.length]


class Library(Protocol):
    """Where trees are, and how they come out; see :class:`snappy.repository.repo.Repository`."""

    def location(self, kind: BlobType, blob: BlobId) -> BlobLocation | None: ...

    def load_blob(self, kind: BlobType, blob: BlobId, ahead: Iterable[BlobId] = ()) -> bytes:
        """Where blobs come from afar, those ``ahead`` of the kind may come with it."""

    def read_pack(self, pack: PackId, offset: int, length: int) -> bytes: ...

    def open_blob(self, blob: BlobLocation, sealed: memoryview) -> bytes: ...


class TreeReader:
    """Loads trees for one walk, depth first. Not thread-safe."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._kept = deque[_Stretch](maxlen=KEPT)

    def load(self, tree: BlobId, siblings: Iterable[BlobId] = ()) -> list[Node]:
        """The nodes of ``tree``; ``siblings`` will be asked for soon, in their order.

        Raises :class:`Damaged` and StorageError.
        """
        return [node.node() for node in self.load_stored(tree, siblings)]

    def load_stored(self, tree: BlobId, siblings: Iterable[BlobId] = ()) -> list[StoredNode]:
        """The same as they are stored: what is wrong within a node shows only when somebody looks at it."""
        return read_tree(self.load_plain(tree, siblings))

    def load_plain(self, tree: BlobId, siblings: Iterable[BlobId] = ()) -> bytes:
        """The same as bytes."""
        place = self._library.location(BlobType.TREE, tree)
        data = self._open(place, siblings) if place else None
        return self._library.load_blob(BlobType.TREE, tree, siblings) if data is None else data

    def _open(self, place: BlobLocation, siblings: Iterable[BlobId]) -> bytes | None:
        """The plain bytes of a tree; ``None`` if that copy is damaged: there may be another."""
        try:
            stretch = self._holding(place) or self._read(place, siblings)
            return self._library.open_blob(place, stretch.blob(place))
        except (Damaged, NotFound, Corrupt):
            return None

    def _holding(self, place: BlobLocation) -> _Stretch | None:
        """The stretch that has the tree; what was of use last is kept longest."""
        found = next((kept for kept in self._kept if kept.holds(place)), None)
        if found is not None and found is not self._kept[0]:
            self._kept.remove(found)
            self._kept.appendleft(found)
        return found

    def _read(self, place: BlobLocation, siblings: Iterable[BlobId]) -> _Stretch:
        known = (kept.end for kept in self._kept if kept.pack == place.pack and kept.end <= place.offset)
        start = max(0, place.offset - AROUND, *known)
        end = max([place.offset + place.length, *self._ends(place, siblings)])
        stretch = _Stretch(place.pack, start, memoryview(self._library.read_pack(place.pack, start, end - start)))
        self._kept.appendleft(stretch)
        return stretch

    def _ends(self, place: BlobLocation, siblings: Iterable[BlobId]) -> Iterable[int]:
        """Where the siblings that lie close behind end."""
        found = (self._library.location(BlobType.TREE, tree) for tree in islice(siblings, SIBLINGS))
        behind = (other for other in found if other and other.pack == place.pack)
        return [one.offset + one.length for one in behind if place.offset < one.offset < place.offset + AROUND]


def subtrees(nodes: Iterable[Node]) -> list[BlobId]:
    """The ids of the directories among ``nodes``, in order."""
    return [node.subtree for node in nodes if node.type == "dir" and node.subtree is not None]


def stored_subtrees(nodes: Iterable[StoredNode]) -> list[BlobId]:
    """The same of nodes as they are stored, but for what is no id."""
    found = (node.subtree for node in nodes if node.type == "dir" and node.subtree is not None)
    return [bytes.fromhex(tree) for tree in found if HEX_ID.match(tree)]
