"""Walks a snapshot depth-first, as far as patterns select, and refuses names that are none."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator
from enum import Enum
from itertools import chain
from typing import NamedTuple

from snappy.errors import Damaged, SnapshotNotFound, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.format import BlobId
from snappy.repository.paths import ROOT, join, shown, split
from snappy.repository.patterns import Patterns
from snappy.repository.progress import Cancelled, Problems, never
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree_reader import Library, TreeReader, subtrees


class Kind(Enum):
    """``ENTER`` and ``LEAVE`` a directory, or pass by a ``KNOWN`` one; an ``ITEM`` is anything else."""

    ENTER = "enter"
    KNOWN = "known"
    ITEM = "item"
    LEAVE = "leave"


class Step(NamedTuple):
    """One step of the walk."""

    kind: Kind
    path: bytes
    node: Node


class Selection:
    """What ``include`` names (all, when it is empty) without what ``exclude`` names; patterns as in
    :class:`Patterns`. Raises :class:`snappy.errors.BadOptions` for one that is malformed."""

    def __init__(self, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> None:
        self._include, self._exclude = Patterns(include), Patterns(exclude)

    def __bool__(self) -> bool:
        return bool(self._include) or bool(self._exclude)

    def takes(self, path: bytes, *, directory: bool) -> bool:
        """Whether the object itself is selected."""
        wanted = not self._include or self._include.match(path, directory=directory)
        return wanted and not self._exclude.match(path, directory=directory)

    def looks_into(self, folder: bytes) -> bool:
        """Whether something in a directory that is not selected itself may be."""
        if self._exclude.match(folder, directory=True):
            return False
        return bool(self._include) and self._include.may_match_below(folder)


class _Frame:
    """A directory on the way; ``entered`` once its step was given, which waits until something in it is selected."""

    def __init__(self, path: bytes, node: Node, children: list[Node], *, entered: bool) -> None:
        self.path, self.node, self.entered = path, node, entered
        self.children = deque(children)
        self.ahead = deque(subtrees(children))


class SnapshotWalk:
    """The steps through a snapshot, or through the directory ``subpath`` of it as if that were the root.

    What cannot be read, and every name that could lead outside, becomes one of ``problems``; the walk goes on.
    Directories that are ``known``, by path and tree, are told of and not entered.
    """

    def __init__(
        self,
        library: Library,
        selection: Selection,
        problems: Problems,
        cancelled: Cancelled = never,
        known: Container[tuple[bytes, BlobId | None]] = (),
    ) -> None:
        self._trees = TreeReader(library)
        self._selection, self._problems, self._cancelled = selection, problems, cancelled
        self._known = known
        self._stack: list[_Frame] = []

    def steps(self, snapshot: Snapshot, subpath: bytes = ROOT) -> Iterator[Step]:
        """Iterate once. Raises :class:`SnapshotNotFound` when ``subpath`` is no directory of the snapshot, and
        :class:`Damaged` when its own tree cannot be read."""
        top = self._trees.load(self._find(snapshot, subpath))
        self._stack = [_Frame(ROOT, Node(name=b"", type="dir"), top, entered=True)]
        while self._stack:
            frame = self._stack[-1]
            if frame.children:
                yield from self._visit(frame, frame.children.popleft())
            else:
                self._stack.pop()
                if frame.entered and self._stack:
                    yield Step(Kind.LEAVE, frame.path, frame.node)

    def _find(self, snapshot: Snapshot, subpath: bytes) -> BlobId:
        tree = snapshot.tree_id
        for name in split(subpath):
            below = (node.subtree for node in self._trees.load(tree) if node.name == name)
            found = next(below, None)
            if found is None:
                raise SnapshotNotFound(f"snapshot {snapshot.id[:8]} has no directory {shown(subpath)}")
            tree = found
        return tree

    def _visit(self, frame: _Frame, node: Node) -> Iterator[Step]:
        try:
            path = join(frame.path, node.name)
        except UnsafePath as error:
            self._problems.add(frame.path, error.message, error.code)
            return
        if node.type == "dir":
            yield from self._enter(frame, path, node)
        elif self._selection.takes(path, directory=False):
            yield from self._announce()
            yield Step(Kind.ITEM, path, node)

    def _enter(self, frame: _Frame, path: bytes, node: Node) -> Iterator[Step]:
        selected = self._selection.takes(path, directory=True)
        if not selected and not self._selection.looks_into(path):
            return
        if (path, node.subtree) in self._known:
            yield Step(Kind.KNOWN, path, node)
            return
        children = self._load(frame, path, node)
        if selected:
            yield from self._announce()
            yield Step(Kind.ENTER, path, node)
        self._stack.append(_Frame(path, node, children, entered=selected))

    def _announce(self) -> Iterator[Step]:
        """Enter the directories above, now that something in them is selected."""
        for frame in self._stack:
            if not frame.entered:
                frame.entered = True
                yield Step(Kind.ENTER, frame.path, frame.node)

    def _load(self, frame: _Frame, path: bytes, node: Node) -> list[Node]:
        self._cancelled()
        if node.subtree is None:
            self._problems.add(path, "the snapshot does not say what is in it", Damaged.code)
            return []
        while frame.ahead and frame.ahead.popleft() != node.subtree:
            pass
        try:
            return self._trees.load(node.subtree, chain.from_iterable(one.ahead for one in reversed(self._stack)))
        except Damaged as error:
            self._problems.add(path, f"what was in it is lost: {error.message}", error.code)
            return []
