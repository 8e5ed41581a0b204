"""Where in snapshots trees and blobs are, found by their ids: for who wonders what damage, or a pack, means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from snappy.errors import Damaged, NotFound, UsageError
from snappy.repository.entries import Node
from snappy.repository.format import BlobId, BlobType, PackId, parse_id
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType

PREFIX = re.compile(r"[0-9a-f]{1,64}\Z")
ID_DIGITS = 64


class Ids:
    """Ids, or first letters of ids. Raises :class:`UsageError` for what is neither."""

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._whole: set[BlobId] = set()
        prefixes = []
        for text in given:
            if not PREFIX.match(text):
                raise UsageError(f"{text!r} is no id, nor the first letters of one")
            if len(text) == ID_DIGITS:
                self._whole.add(parse_id(text))
            else:
                prefixes.append(text)
        self._prefixes = tuple(prefixes)

    def __contains__(self, found: BlobId) -> bool:
        return found in self._whole or (bool(self._prefixes) and found.hex().startswith(self._prefixes))

    def add(self, found: BlobId) -> None:
        """One more."""
        self._whole.add(found)


class Found(NamedTuple):
    """A tree is that of the directory at ``path``; a blob is part of the file there, which is listed in ``parent``."""

    kind: Literal["tree", "blob"]
    id: BlobId
    path: bytes
    parent: BlobId | None

    @property
    def blob_type(self) -> BlobType:
        return BlobType.TREE if self.kind == "tree" else BlobType.DATA


class ObjectSearch:
    """What is wanted of snapshots: trees and data blobs of these ids."""

    def __init__(self, *, trees: Ids | None = None, blobs: Ids | None = None) -> None:
        self._trees, self._blobs = trees or Ids(), blobs or Ids()

    def search(self, snapshot: Snapshot, entries: Iterable[tuple[bytes, Node]]) -> Iterator[Found]:
        """Among ``entries``, which are all of the snapshot, directories before what is in them."""
        above = [(b"", snapshot.tree_id)]
        if snapshot.tree_id in self._trees:
            yield Found("tree", snapshot.tree_id, b"/", None)
        for path, node in entries:
            while path.rpartition(b"/")[0] != above[-1][0]:
                above.pop()
            if node.subtree is not None:
                above.append((path, node.subtree))
                if node.subtree in self._trees:
                    yield Found("tree", node.subtree, path, None)
            for blob in node.content or ():
                if blob in self._blobs:
                    yield Found("blob", blob, path, above[-1][1])


def in_packs(repository: Repository, packs: Iterable[str]) -> ObjectSearch:
    """A search for all that lies in packs of these ids or first letters: as the packs themselves say, else the index.
    Raises :class:`NotFound`, :class:`UsageError` and StorageError."""
    trees, blobs = Ids(), Ids()
    stored = {parse_id(name): size for name, size in repository.store.list(FileType.PACK)}
    listed = stored.keys() | repository.index.packs()
    for text in packs:
        wanted = Ids([text])
        found = [pack for pack in listed if pack in wanted]
        if not found:
            raise NotFound(f"there is no pack {text}", hint="`snappy check` names what is missing")
        for pack in found:
            for kind, blob in _contents(repository, pack, stored.get(pack, 0)):
                (trees if kind is BlobType.TREE else blobs).add(blob)
    return ObjectSearch(trees=trees, blobs=blobs)


def _contents(repository: Repository, pack: PackId, size: int) -> list[tuple[BlobType, BlobId]]:
    try:
        return [(blob.kind, blob.id) for blob in repository.pack_blobs(pack, size)]
    except (Damaged, NotFound):
        return [(place.kind, place.id) for place in repository.index if place.pack == pack]
