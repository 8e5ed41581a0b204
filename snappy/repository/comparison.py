"""What a scout does, a worker process of a backup: it compares directories with the parent snapshot, from the end of
the source towards its beginning, and tells of each below which all is as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec

from snappy.decoding import from_msgpack
from snappy.errors import Damaged, SourceError
from snappy.repository import makers
from snappy.repository.crypto import SealingKey
from snappy.repository.documents import Documents
from snappy.repository.entries import Below, Directory, Entry, Exported, Siblings
from snappy.repository.format import BlobId, BlobType, parse_id
from snappy.repository.gotext import unquote
from snappy.repository.index import MemoryIndex
from snappy.repository.index_cache import IndexCache
from snappy.repository.index_loader import IndexLoader
from snappy.repository.link import Brought, Ended, Errand, Notice, Setup, Stop, ToWorker, WorkerLink
from snappy.repository.lstat import says_same
from snappy.repository.paths import ROOT, parent
from snappy.repository.reader import BlobReader
from snappy.repository.store import Store
from snappy.repository.tree import StoredNode
from snappy.repository.tree_reader import TreeReader
from snappy.repository.worker_process import listen

FOUND_TOGETHER = 16
"""Directories that are told of together."""
MOST_IN_VAIN = 10_000
"""So many files more in directories that have changed, which the backup has to look at again, than in others, and a
scout is of no use."""


class Mission(msgspec.Struct, array_like=True, frozen=True):
    """What a scout is sent for: what ``maker`` makes of ``arguments`` is what the source yields in the opposite order,
    ``tree`` is the root of the parent snapshot, in ``cache`` lies what the index files of ``repository`` say."""

    maker: str
    arguments: Sequence[Any]
    tree: BlobId
    cache: str
    repository: str


class Found(msgspec.Struct, array_like=True, frozen=True):
    """Directories below which all is as it was, and what lies there; those inside of one are told of before it."""

    folders: list[tuple[bytes, Below]]


Tell = Callable[[bytes, Below], None]


class _Folder:
    """A directory that is compared with ``nodes``, which the parent snapshot has in its ``tree``."""

    def __init__(self, path: bytes, tree: BlobId = b"", nodes: Sequence[StoredNode] = ()) -> None:
        self.path = path
        self.left = {unquote(node.name): node for node in nodes}
        """What did not come yet."""
        self.is_same = bool(tree) and len(self.left) == len(nodes)
        self.below = Below(tree, 0, 0, 0)
        self.looks = 0
        """At what is right in it."""

    def add(self, files: int, size: int, folders: int = 0) -> None:
        below = self.below
        self.below = Below(below.tree, below.files + files, below.size + size, below.folders + folders)


class Comparison:
    """Compares what a source yields, siblings in the opposite order, with the snapshot of the root ``tree``. ``has``
    says whether data blobs are stored. ``tell`` hears of each directory below which nothing has changed, after those
    inside it."""

    def __init__(self, trees: TreeReader, has: Callable[[Iterable[BlobId]], bool], tree: BlobId, tell: Tell) -> None:
        self._trees, self._has, self._tell = trees, has, tell
        self._in_vain = 0
        self._stack = [self._folder(ROOT, tree.hex())]

    def take(self, one: Exported) -> None:
        """Compare what comes next."""
        if isinstance(one, Siblings):
            self._take_siblings(one)
        elif isinstance(one, Directory):
            stored = self._compare(one.path, lambda stored: says_same(stored, one.found))
            self._stack.append(self._folder(one.path, stored.subtree if stored else None))
        else:
            self._take_entry(one)

    def finish(self) -> None:
        """That was all."""
        self._open(ROOT)

    def is_in_vain(self) -> bool:
        """Whether nearly everything has changed."""
        return self._in_vain > MOST_IN_VAIN

    def _take_siblings(self, siblings: Siblings) -> None:
        folder = self._open(siblings.folder)
        folder.looks += len(siblings.looks)
        files = size = 0
        for name, found in siblings.looks if folder.is_same else ():
            stored = folder.left.pop(name, None)
            if stored is None or not says_same(stored, found) or not self._is_whole(stored):
                folder.is_same = False
                break
            if stored.type == "file":
                files += 1
                size += stored.size
        folder.add(files, size)

    def _take_entry(self, entry: Entry) -> None:
        """What there is something to be said of is another matter; and what is no file, such as a device, is compared
        as a whole."""
        node, remarked = entry.node, entry.error or entry.warning
        is_plain = not remarked and node.type not in ("file", "dir")
        self._compare(entry.path, lambda stored: is_plain and stored.equals(node))
        if node.type == "dir":
            self._stack.append(_Folder(entry.path))

    def _compare(self, path: bytes, is_same: Callable[[StoredNode], bool]) -> StoredNode | None:
        """What the parent snapshot has there."""
        folder = self._open(parent(path))
        stored = folder.left.pop(path.rpartition(b"/")[2], None)
        folder.is_same = folder.is_same and stored is not None and is_same(stored)
        return stored

    def _is_whole(self, stored: StoredNode) -> bool:
        """Whether the repository has the content, where there has to be some."""
        if stored.type != "file":
            return True
        try:
            return stored.content is not None and self._has(map(parse_id, stored.content))
        except Damaged:
            return False

    def _open(self, path: bytes) -> _Folder:
        """The directory at ``path``; all those inside it that the walk has left are compared."""
        while self._stack[-1].path != path:
            if len(self._stack) == 1:
                raise SourceError("the source yields its entries in no order")
            self._close(self._stack.pop())
        return self._stack[-1]

    def _close(self, folder: _Folder) -> None:
        above = self._stack[-1]
        if not folder.is_same or folder.left:
            above.is_same = False
            self._in_vain += folder.looks
            return
        self._in_vain -= folder.looks
        below = folder.below
        above.add(below.files, below.size, below.folders + 1)
        self._tell(folder.path, below)

    def _folder(self, path: bytes, tree: str | None) -> _Folder:
        """One without a tree, or with one that cannot be read, is another."""
        try:
            return _Folder(path, known := parse_id(tree or ""), self._trees.load_stored(known))
        except Damaged:
            return _Folder(path)


class _Library:
    """The trees of a repository, for who has its index."""

    def __init__(self, reader: BlobReader, index: MemoryIndex) -> None:
        self.location, self._load = index.location, reader.load
        self.read_pack, self.open_blob = reader.read, reader.open

    def load_blob(self, kind: BlobType, blob: BlobId, ahead: Iterable[BlobId] = ()) -> bytes:
        return self._load(kind, blob)


class _Scout:
    """Does what ``link`` says until all is compared. Told to stop, it is gone: it leaves nothing behind."""

    def __init__(self, link: WorkerLink, setup: Setup, store: Store) -> None:
        self._link, self._store = link, store
        self._key = SealingKey.from_json(setup.key)
        self._missions: SimpleQueue[bytes] = SimpleQueue()
        self._found: list[tuple[bytes, Below]] = []

    def run(self) -> None:
        listen(self._link, self._heed)
        self._compare(from_msgpack(self._missions.get(), Mission))

    def _heed(self, message: ToWorker) -> None:
        if isinstance(message, Notice):
            self._store.told(message.body)
        elif isinstance(message, Errand):
            self._missions.put(message.body)
        elif isinstance(message, Stop):
            self._link.send(Ended())
            os._exit(0)

    def _compare(self, mission: Mission) -> None:
        index = MemoryIndex()
        cache = IndexCache(Path(mission.cache), mission.repository, self._key.stamp)
        IndexLoader(self._store, Documents(self._store, self._key, None), index, cache).load()
        trees = TreeReader(_Library(BlobReader(self._store, self._key, index), index))
        comparison = Comparison(trees, partial(index.has_all, BlobType.DATA), mission.tree, self._tell)
        for one in makers.find(mission.maker)(*mission.arguments):
            comparison.take(one)
            if comparison.is_in_vain():
                break
        else:
            comparison.finish()
        self._send()

    def _tell(self, path: bytes, below: Below) -> None:
        self._found.append((path, below))
        if len(self._found) >= FOUND_TOGETHER:
            self._send()

    def _send(self) -> None:
        self._link.send(Brought(msgspec.msgpack.encode(Found(self._found))))
        self._found = []


def work(link: WorkerLink, setup: Setup, store: Store) -> None:
    """Compare, as the one errand says that comes."""
    _Scout(link, setup, store).run()
