"""Builds the trees of a snapshot bottom-up while its entries come depth-first and its files are still being read.

A directory is stored when its last child is known, by whichever thread brought that child; so nobody waits for a
file, and memory holds the directories that are open or have files on their way, not the whole tree.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from snappy.errors import SourceError, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.gotext import unquote
from snappy.repository.paths import ROOT, check_name, parent, shown
from snappy.repository.repo import Repository
from snappy.repository.tally import Tally
from snappy.repository.tree import EncodedNode, StoredNode, documents, encode_tree, read_tree
from snappy.repository.tree_reader import stored_subtrees

Child = Node | StoredNode
"""What a directory is made of: new nodes, and those of the parent snapshot that still hold."""
Delivery = Child | list[EncodedNode] | None
"""What comes for a place that was kept: a node or none, or those of several small files."""


class Before:
    """What the parent snapshot says of a directory: its nodes in order, and by the bytes of their names. ``data`` is
    the tree as it is stored. Raises :class:`snappy.errors.Damaged` for what is none, and for a name that is none."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data
        self.nodes: Sequence[StoredNode] = read_tree(data) if data else ()
        self.by_name = {unquote(node.name): node for node in self.nodes}

    def encoded(self, children: Iterable[Child | EncodedNode]) -> list[Node | EncodedNode]:
        """The same children, to be stored; what stands as it was is not written anew."""
        old: dict[int, bytes] = {}
        if self._data:
            old = {id(node): document for node, document in zip(self.nodes, documents(self._data), strict=True)}
        return [
            EncodedNode(unquote(child.name), old[id(child)]) if isinstance(child, StoredNode) else child
            for child in children
        ]


_NOTHING = Before()


class Folder:
    """A directory whose children are coming in. ``old`` is its node in the parent snapshot, and ``node`` too if that
    still says all but the tree; ``known`` are those in it by the bytes of their names."""

    def __init__(self, path: bytes, node: Child, above: Folder | None, old: StoredNode | None, before: Before) -> None:
        self.path, self.node, self.above, self.old = path, node, above, old
        self.before, self.known = before, before.by_name
        self._old_subtrees: deque[BlobId] | None = None
        self.slot = above.reserve() if above else 0
        self.children: list[Delivery] = []
        self.awaited = 1  # itself, until it is closed
        self.last_name = b""

    def reserve(self) -> int:
        """Keep a place for a child, so that the order is that of the entries."""
        self.children.append(None)
        self.awaited += 1
        return len(self.children) - 1

    def subtrees_after(self, tree: BlobId) -> Iterable[BlobId]:
        """The parent snapshot's directories that come after the one with ``tree``, here and then in each directory
        above; ask in their order."""
        if self._old_subtrees is None:
            self._old_subtrees = deque(stored_subtrees(self.before.nodes))
        while self._old_subtrees and self._old_subtrees.popleft() != tree:
            pass
        return self._ahead()

    def _ahead(self) -> Iterator[BlobId]:
        here: Folder | None = self
        while here is not None:
            yield from here._old_subtrees or ()
            here = here.above


class TreeBuilder:
    """The directories of one backup. ``deliver`` is for any thread, all else for the one that walks."""

    def __init__(self, repo: Repository, tally: Tally, before: Before) -> None:
        self._repo, self._tally = repo, tally
        self._lock = threading.Lock()
        self.root: BlobId | None = None
        """The root tree's id, once everything is stored."""
        self.took_any = False
        """Whether any entry was located."""
        self._stack = [Folder(ROOT, Node(name=b"", type="dir"), None, None, before)]

    def locate(self, path: bytes) -> Folder:
        """The directory of the entry ``path``; all those that the walk has left are closed.

        Raises :class:`SourceError` when the entries do not come in order, :class:`UnsafePath` for a bad name.
        """
        above = parent(path)
        name = check_name(path.rpartition(b"/")[2])
        if not path.startswith(ROOT):
            raise UnsafePath(f"{shown(path)} is not absolute inside the snapshot")
        here = self.folder(above)
        if here is None or name <= here.last_name:
            raise SourceError(f"the source yields {shown(path)} out of order")
        here.last_name = name
        self.took_any = True
        return here

    def folder(self, path: bytes) -> Folder | None:
        """The open directory at ``path``; all those that the walk has left are closed."""
        self._close_to(path)
        here = self._stack[-1]
        return here if here.path == path else None

    def follow(self, folder: Folder, names: list[bytes]) -> None:
        """Locate all of these in the directory. Raises :class:`SourceError` when they do not come in order."""
        if any(later <= former for former, later in pairwise([folder.last_name, *names])):
            raise SourceError(f"the source yields what lies in {shown(folder.path)} out of order")
        folder.last_name = names[-1]
        self.took_any = True

    def keep(self, folder: Folder, nodes: Iterable[StoredNode]) -> None:
        """Put nodes of the parent snapshot into the directory."""
        with self._lock:
            folder.children += nodes

    def enter(self, path: bytes, node: Child, old: StoredNode | None, before: Before) -> None:
        """Open a directory in the one that was located last; see :class:`Folder`."""
        with self._lock:
            self._stack.append(Folder(path, node, self._stack[-1], old, before))

    def pass_over(self, folder: Folder, node: Child, old: StoredNode | None, tree: BlobId) -> None:
        """Put in a directory of which the tree is stored; the rest as for :meth:`enter`."""
        kept = _with_tree(node, old, tree)
        self._tally.folder(new=old is None, same=kept is old)
        self.place(folder, kept)

    def place(self, folder: Folder, node: Child) -> None:
        """Put a finished node into the directory."""
        with self._lock:
            folder.children.append(node)

    def expect(self, folder: Folder) -> int:
        """Keep a place in the directory for what ``deliver`` will bring."""
        with self._lock:
            return folder.reserve()

    def deliver(self, folder: Folder, slot: int, node: Delivery) -> None:
        """Bring what was expected, ``None`` when there is nothing after all. Stores each directory that this
        completes."""
        arrived: Folder | None = folder
        while arrived is not None and self._arrive(arrived, slot, node):
            node, slot = self._store(arrived), arrived.slot
            arrived = arrived.above

    def finish(self) -> None:
        """Close all directories; the root is stored when the last expected node was delivered."""
        self._close_to(None)

    def _close_to(self, path: bytes | None) -> None:
        while self._stack and not _holds(self._stack[-1].path, path):
            self._close(self._stack.pop())

    def _close(self, folder: Folder) -> None:
        folder.known = {}
        with self._lock:
            folder.awaited -= 1
            complete = not folder.awaited
        if complete:
            node = self._store(folder)
            if folder.above is not None:
                self.deliver(folder.above, folder.slot, node)

    def _arrive(self, folder: Folder, slot: int, node: Delivery) -> bool:
        with self._lock:
            folder.children[slot] = node
            folder.awaited -= 1
            return not folder.awaited

    def _store(self, folder: Folder) -> Child:
        children = list(_each(folder.children))
        tree = self._stored_before(folder, children) or self._save(folder.before.encoded(children))
        folder.children, folder.before = [], _NOTHING
        node = _with_tree(folder.node, folder.old, tree)
        if folder.above is None:
            self.root = tree
        else:
            self._tally.folder(new=folder.old is None, same=node is folder.old)
        return node

    def _stored_before(self, folder: Folder, children: list[Child | EncodedNode]) -> BlobId | None:
        """The parent snapshot's tree, if nothing in it changed: comparing costs less than writing it again."""
        before = folder.before.nodes
        if not children or folder.old is None or len(children) != len(before):
            return None
        if children != before and not all(map(_is_same, before, children)):
            return None
        tree = bytes.fromhex(folder.old.subtree or "")
        return tree if self._repo.has_blob(BlobType.TREE, tree) else None

    def _save(self, children: list[Node | EncodedNode]) -> BlobId:
        data = encode_tree(children)
        saved = self._repo.save_blob(BlobType.TREE, data)
        if saved.new:
            self._tally.blob(BlobType.TREE, len(data), saved.stored)
        return saved.id


def _with_tree(node: Child, old: StoredNode | None, tree: BlobId) -> Child:
    """The node of a directory with that tree: the parent snapshot's, if it says the same."""
    if isinstance(node, StoredNode):
        if node.subtree == tree.hex():
            return node
        node = node.node()
    node.subtree = tree
    return old if old is not None and old.equals(node) else node


def _each(delivered: Iterable[Delivery]) -> Iterator[Child | EncodedNode]:
    for one in delivered:
        if isinstance(one, list):
            yield from one
        elif one is not None:
            yield one


def _is_same(old: StoredNode, child: Child | EncodedNode) -> bool:
    return child is old or (isinstance(child, Node) and old.equals(child))


def _holds(folder: bytes, path: bytes | None) -> bool:
    """Whether the directory ``folder`` is ``path`` or above it."""
    return path is not None and (folder in (path, ROOT) or path.startswith(folder + b"/"))
