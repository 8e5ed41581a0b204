"""The directories of a snapshot by path, as a file system has them: with links, and errors that help."""

from __future__ import annotations

import threading
from collections import OrderedDict

from snappy.errors import Damaged
from snappy.repository.browsable import Browsable, DirectoryThere, MissingPath, NoDirectory, NoFile
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType
from snappy.repository.gotext import unquote
from snappy.repository.paths import is_name, shown
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree import StoredNode, read_tree

KEPT_NODES = 50_000
"""Of the directories looked into last; the very last is kept whatever its size."""
MOST_LINKS = 40
"""On the way to one object, as Linux has it."""

Folder = dict[bytes, StoredNode]


class Folders:
    """What is in directories, by tree; those of last use are kept. Any thread may call."""

    def __init__(self, library: Browsable, kept_nodes: int = KEPT_NODES) -> None:
        self._library, self._room = library, kept_nodes
        self._lock = threading.Lock()
        self._kept: OrderedDict[BlobId, Folder] = OrderedDict()

    def load(self, tree: BlobId) -> Folder:
        """By name, in the order stored; without names that could lead elsewhere. Raises Damaged and StorageError."""
        with self._lock:
            if tree in self._kept:
                self._kept.move_to_end(tree)
                return self._kept[tree]
        stored = read_tree(self._library.load_blob(BlobType.TREE, tree))
        folder = {name: node for node in stored if is_name(name := unquote(node.name))}
        with self._lock:
            if tree not in self._kept:
                self._kept[tree] = folder
                self._room -= len(folder)
            while self._room < 0 and len(self._kept) > 1:
                self._room += len(self._kept.popitem(last=False)[1])
        return folder


class SnapshotTree:
    """One snapshot. Paths are bytes and begin at its root, with or without a ``/``; ``..`` leads up as on Unix.

    Beside what it says, each method raises :class:`Damaged` and StorageError. Any thread may call any of them.
    """

    def __init__(self, folders: Folders, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._folders = folders

    def node(self, path: bytes, *, follow: bool = False) -> Node:
        """What is at ``path``; with ``follow``, if that is a link, what it leads to. Links on the way are always
        followed. The root has the snapshot's time and an empty name.

        Raises :class:`MissingPath`, which names the nearest directory, and :class:`NoDirectory`.
        """
        return self._find(path, follow=follow)

    def children(self, path: bytes) -> list[Node]:
        """What is in the directory at ``path``, by name. Raises as :meth:`node` does."""
        found = self._find(path, follow=True)
        if found.type != "dir":
            raise NoDirectory(f"{_absolute(path)} is no directory, but a {found.type}")
        return [node.node() for node in self._folder(found, path).values()]

    def file(self, path: bytes) -> Node:
        """The file at ``path``, or that a link there leads to. Raises as :meth:`node`, and :class:`NoFile`."""
        found = self._find(path, follow=True)
        if found.type == "dir":
            raise DirectoryThere(f"{_absolute(path)} is a directory")
        if found.type != "file":
            raise NoFile(f"{_absolute(path)} is no file, but a {found.type}")
        return found

    def _root(self) -> Node:
        moment = int(self.snapshot.time.timestamp() * 1_000_000) * 1000
        return Node(
            name=b"",
            type="dir",
            mode=0o755,
            mtime_ns=moment,
            atime_ns=moment,
            ctime_ns=moment,
            subtree=self.snapshot.tree_id,
        )

    def _find(self, path: bytes, *, follow: bool) -> Node:
        """Walk down; a link puts the names of its target in front of those that are left."""
        names = _names(path)
        above: list[Node] = []
        here, links = self._root(), 0
        while names:
            name = names.pop(0)
            if name == b"..":
                here = above.pop() if above else here
                continue
            child = self._child(here, name, above, path)
            if child.type == "symlink" and (names or follow):
                links += 1
                if links > MOST_LINKS:
                    raise MissingPath(f"{_absolute(path)} leads through more than {MOST_LINKS} links")
                names = _names(child.link_target) + names
                if child.link_target.startswith(b"/"):
                    above, here = [], self._root()
            else:
                above.append(here)
                here = child
        return here

    def _child(self, here: Node, name: bytes, above: list[Node], path: bytes) -> Node:
        way = b"/".join([*(node.name for node in above), here.name]) or b"/"
        if here.type != "dir":
            raise NoDirectory(f"{_absolute(path)} is not there: {shown(way)} is no directory, but a {here.type}")
        found = self._folder(here, way).get(name)
        if found is None:
            raise MissingPath(
                f"snapshot {self.snapshot.id[:8]} has no {_absolute(path)}; the nearest that it has is {shown(way)}"
            )
        return found.node()

    def _folder(self, node: Node, path: bytes) -> Folder:
        if node.subtree is None:
            raise Damaged(f"the snapshot does not say what is in {_absolute(path)}")
        return self._folders.load(node.subtree)


def _names(path: bytes) -> list[bytes]:
    """``..`` stays: after a link it does not mean what it seems to."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _absolute(path: bytes) -> str:
    return shown(b"/" + path.strip(b"/"))
