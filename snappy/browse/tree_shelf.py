"""Trees of snapshots from afar: one question brings many that a walk will come to, and those of last use are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from snappy.errors import Damaged
from snappy.repository.format import MIB, BlobId, blob_id
from snappy.repository.tree_needs import TreeNeeds

KEPT_BYTES = 32 * MIB
LOOK = 1024
"""How many trees that come next are looked at for one that is not here."""

Fetch = Callable[[Sequence[BlobId]], Sequence[bytes]]
"""The plain bytes of as many of the first trees as one answer holds: of none if the very first is too large."""


class _Kept(NamedTuple):
    data: bytes
    below: list[BlobId]


class TreeShelf:
    """Any thread may call. ``load`` brings one tree of any size; ``most`` are asked for at once."""

    def __init__(
        self, fetch: Fetch, load: Callable[[BlobId], bytes], *, most: int, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._fetch, self._load, self._most, self._room = fetch, load, most, kept_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[BlobId, _Kept] = OrderedDict()

    def take(self, tree: BlobId, ahead: Iterable[BlobId]) -> bytes:
        """The plain bytes of a tree; those ``ahead`` will be asked for soon, each with what is below it. Raises
        :class:`Damaged` and what the ways to it raise."""
        with self._lock:
            if tree not in self._kept:
                self._bring(self._wanted(tree, ahead))
            self._kept.move_to_end(tree)
            return self._kept[tree].data

    def _wanted(self, tree: BlobId, ahead: Iterable[BlobId]) -> list[BlobId]:
        """The tree, and what is missing of the next ones, in the order in which a walk comes to them."""
        found = {tree: None}
        coming = list(islice(ahead, LOOK))[::-1]
        for _ in range(LOOK):
            if not coming or len(found) >= self._most:
                break
            one = coming.pop()
            kept = self._kept.get(one)
            if kept is None:
                found[one] = None
            else:
                coming += reversed(kept.below)
        return list(found)

    def _bring(self, wanted: Sequence[BlobId]) -> None:
        """The first is kept as the newest."""
        came = self._fetch(wanted) or [self._load(wanted[0])]
        for tree, data in reversed(list(zip(wanted, came, strict=False))):
            if blob_id(data) != tree:
                raise Damaged(f"the tree blob {tree.hex()[:8]} came changed")
            self._keep(tree, data)

    def _keep(self, tree: BlobId, data: bytes) -> None:
        self._kept[tree] = _Kept(data, _below(data))
        self._room -= len(data)
        while self._room < 0 and len(self._kept) > 1:
            self._room += len(self._kept.popitem(last=False)[1].data)


def _below(data: bytes) -> list[BlobId]:
    """None of a tree that makes no sense: who reads it says so."""
    try:
        return list(TreeNeeds(data).subtrees())
    except Damaged:
        return []
