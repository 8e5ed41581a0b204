"""Makes trees anew without what is lost: a file keeps the blobs that are there, a directory that cannot be read becomes
empty. Nothing else in a tree changes, not even what only other programs understand.

What the index lists is taken to be there: damaged packs are repaired before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from snappy.errors import Damaged
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import BlobId, BlobType, blob_id, decode_json, encode_json, parse_id
from snappy.repository.gotext import unquote
from snappy.repository.progress import Cancelled, Problems
from snappy.repository.repo import Repository
from snappy.repository.tree import encode_tree
from snappy.repository.tree_walk import TreeWalk

_NOTHING = ("", "irregular")
"""Types of nodes that nobody can restore."""
_EMPTY = encode_tree([])

_Raw = dict[str, msgspec.Raw]


class _Node(msgspec.Struct, gc=False):
    """What may be wrong with a node."""

    name: str
    type: str
    size: int = 0
    content: list[str] | None = None
    subtree: str | None = None


class _Tree(msgspec.Struct, gc=False):
    nodes: list[_Node] | None


class _RawTree(msgspec.Struct):
    nodes: list[_Raw]


class _Whole(NamedTuple):
    """Of a file's blobs those that are there, and their plain bytes."""

    content: list[str]
    size: int


class TreeRepair:
    """Surveys the trees of snapshots, and replaces those in need of it. The index must be loaded. With ``dry_run``
    nothing is stored."""

    def __init__(
        self, repo: Repository, findings: Findings, problems: Problems, cancelled: Cancelled, *, dry_run: bool
    ) -> None:
        self._repo, self._findings, self._problems, self._cancelled = repo, findings, problems, cancelled
        self._dry_run = dry_run
        self._lock = threading.Lock()
        self._below: dict[BlobId, list[BlobId]] = {}
        self._lost: set[BlobId] = set()
        self._changing: set[BlobId] = set()
        self._replaced: dict[BlobId, BlobId] = {}

    # ---- survey --------------------------------------------------------------------------------------------------

    def survey(self, roots: Iterable[BlobId]) -> None:
        """Find out which trees cannot stay as they are: something is wrong with them, or with one below. Raises
        StorageError, and what ``cancelled`` raises."""
        TreeWalk(self._repo, self, self._cancelled).walk(roots)
        before = -1
        while len(self._changing) != before:
            before = len(self._changing)
            for tree, below in reversed(self._below.items()):  # most were met after those above them
                if not self._changing.isdisjoint(below):
                    self._changing.add(tree)

    def is_lost(self, tree: BlobId) -> bool:
        """Whether it cannot be read."""
        return tree in self._lost

    def is_changing(self, tree: BlobId) -> bool:
        """Whether it cannot stay as it is."""
        return tree in self._changing

    def follow(self, tree: BlobId, data: bytes) -> list[BlobId]:
        """Look at one tree of the walk. Raises :class:`Damaged`."""
        nodes = decode_json(data, _Tree, "the tree").nodes or []
        below = [parse_id(node.subtree) for node in nodes if node.type == "dir" and node.subtree]
        faults = [self._fault(node) for node in nodes]
        with self._lock:
            if below:
                self._below[tree] = below
            if any(faults):
                self._changing.add(tree)
        return below

    def lose(self, kind: Kind, tree: BlobId, message: str) -> None:
        """Note that one cannot be read."""
        self._findings.add(kind, tree, message)
        with self._lock:
            self._lost.add(tree)
            self._changing.add(tree)

    # ---- replacement ---------------------------------------------------------------------------------------------

    def replaced(self, root: BlobId) -> BlobId:
        """The tree that takes the place of ``root``, stored with all that is new below it; what that lacks becomes a
        problem of the first path that leads there. Raises StorageError, and what ``cancelled`` raises."""
        waiting = [(root, b"/", False)]
        while waiting:
            tree, path, is_ready = waiting.pop()
            if tree in self._replaced:
                continue
            self._cancelled()
            if tree in self._lost:
                self._problems.add(path, "what was in the directory is lost; it is empty now")
                self._replaced[tree] = self._save(_EMPTY)
            elif is_ready:
                self._replaced[tree] = self._save(self._rewritten(tree, path))
            else:
                waiting.append((tree, path, True))
                waiting += [(below, _join(path, name), False) for name, below in self._changing_below(tree)]
        return self._replaced[root]

    def _changing_below(self, tree: BlobId) -> Iterator[tuple[str, BlobId]]:
        for node in decode_json(self._load(tree), _Tree, "the tree").nodes or ():
            if node.type == "dir" and node.subtree and parse_id(node.subtree) in self._changing:
                yield node.name, parse_id(node.subtree)

    def _rewritten(self, tree: BlobId, path: bytes) -> bytes:
        data = self._load(tree)
        nodes = decode_json(data, _Tree, "the tree").nodes or []
        raw = decode_json(data, _RawTree, "the tree").nodes
        kept = [after for node, before in zip(nodes, raw, strict=True) if (after := self._mended(node, before, path))]
        return encode_json(_RawTree(kept)) + b"\n"

    def _mended(self, node: _Node, raw: _Raw, folder: bytes) -> _Raw | None:
        """The node as it can stay; None if it cannot."""
        if fault := self._fault(node):
            self._problems.add(_join(folder, node.name), fault)
        if not node.name or node.type in _NOTHING:
            return None
        if node.type == "dir":
            below = parse_id(node.subtree) if node.subtree else None
            after = self._replaced.get(below, below) if below else self._save(_EMPTY)
            return raw | {"subtree": _json(after.hex())}
        if node.type == "file" and fault:
            whole = self._whole(node)
            mended = raw | {"content": _json(whole.content), "size": _json(whole.size)}
            return mended if whole.size else _without_size(mended)
        return raw

    def _fault(self, node: _Node) -> str:
        """What is wrong with a node, but for what lies below it; empty if nothing is. Raises :class:`Damaged`."""
        if not node.name:
            return "something that has no name is left out"
        if node.type in _NOTHING:
            return "it is nothing that could be restored, and is left out"
        if node.type == "dir" and not node.subtree:
            return "what was in the directory is not said; it is empty now"
        if node.type != "file":
            return ""
        whole = self._whole(node)
        if missing := len(node.content or ()) - len(whole.content):
            return f"of {node.size} bytes {whole.size} are left; blobs that are lost: {missing}"
        return "" if whole.size == node.size else f"it has {whole.size} bytes, not {node.size}"

    def _whole(self, node: _Node) -> _Whole:
        sizes = [(blob, self._repo.stored_size(parse_id(blob))) for blob in node.content or ()]
        return _Whole([blob for blob, size in sizes if size is not None], sum(size or 0 for _, size in sizes))

    def _load(self, tree: BlobId) -> bytes:
        return self._repo.load_blob(BlobType.TREE, tree)

    def _save(self, data: bytes) -> BlobId:
        return blob_id(data) if self._dry_run else self._repo.save_blob(BlobType.TREE, data).id


def _without_size(node: _Raw) -> _Raw:
    """As restic writes an empty file."""
    return {name: value for name, value in node.items() if name != "size"}


def _json(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _join(folder: bytes, name: str) -> bytes:
    """A path for people: a name that cannot be read stays as it is stored."""
    try:
        return folder.rstrip(b"/") + b"/" + unquote(name)
    except Damaged:
        return folder.rstrip(b"/") + b"/" + name.encode()
