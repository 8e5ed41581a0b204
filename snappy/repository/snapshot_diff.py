"""What differs between two snapshots, as restic's ``diff`` tells it. Source: its manual, "Comparing Snapshots"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from snappy.repository.browsable import Browsable
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.restored_file import plain_length
from snappy.repository.tree_reader import TreeReader, subtrees

Handle = tuple[BlobType, BlobId]
LOCATED_TOGETHER = 4000


class Change(NamedTuple):
    """``modifier``: ``+`` added, ``-`` removed, ``T`` another type, ``M`` another content, ``?`` another content and
    else the same, ``U`` other metadata. A directory's path ends with ``/``."""

    modifier: str
    path: bytes


Steps = Iterator["Change | Steps"]
"""Changes, and where to go on below: trees may be deeper than Python calls itself."""


class Side(msgspec.Struct):
    """What only one of the two has; ``bytes`` are plain bytes of its blobs."""

    files: int = 0
    dirs: int = 0
    others: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    bytes: int = 0

    def count(self, node: Node) -> None:
        """One more node."""
        name = {"file": "files", "dir": "dirs"}.get(node.type, "others")
        setattr(self, name, getattr(self, name) + 1)


class SnapshotDiff:
    """Compares once: :meth:`changes` to its end, then the figures. ``metadata``: tell also of what differs in nothing
    else. Raises :class:`snappy.errors.Damaged` and StorageError."""

    def __init__(self, library: Browsable, *, metadata: bool = False) -> None:
        self._library, self._metadata = library, metadata
        self._old, self._new = TreeReader(library), TreeReader(library)
        self._before: set[Handle] = set()
        self._after: set[Handle] = set()
        self._common: set[Handle] = set()
        self.changed_files = 0
        self.added, self.removed = Side(), Side()

    def changes(self, old: BlobId, new: BlobId) -> Iterator[Change]:
        """What is to be told of two trees, in the order of paths."""
        self._before.add((BlobType.TREE, old))
        self._after.add((BlobType.TREE, new))
        below: list[Steps] = [self._trees(b"/", old, new)]
        while below:
            step = next(below[-1], None)
            if step is None:
                below.pop()
            elif isinstance(step, Change):
                yield step
            else:
                below.append(step)
        both = (self._before & self._after) | self._common
        self._weigh(self.removed, self._before - both)
        self._weigh(self.added, self._after - both)

    def _trees(self, prefix: bytes, old: BlobId, new: BlobId) -> Steps:
        olds = {node.name: node for node in self._old.load(old)}
        news = {node.name: node for node in self._new.load(new)}
        for name in sorted({*olds, *news}):
            before, after = olds.get(name), news.get(name)
            self._before.update(_blobs(before))
            self._after.update(_blobs(after))
            if before and after:
                yield self._pair(prefix, before, after)
            elif before:
                yield self._whole(Change("-", prefix), before, self._old, self.removed, self._before)
            elif after:
                yield self._whole(Change("+", prefix), after, self._new, self.added, self._after)

    def _pair(self, prefix: bytes, before: Node, after: Node) -> Steps:
        modifier = self._modifier(before, after)
        if modifier:
            yield Change(modifier, _path(prefix, after))
        if before.type == after.type == "dir" and before.subtree and after.subtree:
            if before.subtree == after.subtree:
                self._share(before.subtree)
            else:
                yield self._trees(prefix + after.name + b"/", before.subtree, after.subtree)

    def _modifier(self, before: Node, after: Node) -> str:
        modifier = "" if before.type == after.type else "T"
        if before.type == after.type == "file" and before.content != after.content:
            self.changed_files += 1
            without = (msgspec.structs.replace(node, content=None) for node in (before, after))
            return modifier + ("M?" if next(without) == next(without) else "M")
        return modifier + ("U" if self._metadata and before != after else "")

    def _whole(self, change: Change, node: Node, trees: TreeReader, side: Side, blobs: set[Handle]) -> Steps:
        """A node, and all below it, that only one side has."""
        path = _path(change.path, node)
        side.count(node)
        yield Change(change.modifier, path)
        if node.type == "dir" and node.subtree:
            for child in trees.load(node.subtree):
                blobs.update(_blobs(child))
                yield self._whole(Change(change.modifier, path), child, trees, side, blobs)

    def _share(self, tree: BlobId) -> None:
        """Both have all that is below."""
        left = [tree]
        while left:
            found = self._new.load(left.pop())
            left += [one for one in subtrees(found) if (BlobType.TREE, one) not in self._common]
            for node in found:
                self._common.update(_blobs(node))

    def _weigh(self, side: Side, blobs: set[Handle]) -> None:
        for kind in BlobType:
            ids = [blob for each, blob in blobs if each is kind]
            name = f"{kind.value}_blobs"
            setattr(side, name, getattr(side, name) + len(ids))
            for start in range(0, len(ids), LOCATED_TOGETHER):
                found = self._library.locate(kind, ids[start : start + LOCATED_TOGETHER])
                side.bytes += sum(plain_length(place) for place in found if place)


def _blobs(node: Node | None) -> Iterable[Handle]:
    if node is None:
        return []
    if node.type == "dir" and node.subtree:
        return [(BlobType.TREE, node.subtree)]
    return [(BlobType.DATA, blob) for blob in node.content or ()] if node.type == "file" else []


def _path(prefix: bytes, node: Node) -> bytes:
    return prefix + node.name + (b"/" if node.type == "dir" else b"")
