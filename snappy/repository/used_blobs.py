"""Marks what snapshots use: every tree below theirs, each read once, and every blob that one of them names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from snappy.errors import Damaged
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId
from snappy.repository.levels import walk_levels
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.snapshots import load_snapshot
from snappy.repository.store import File, FileType
from snappy.repository.tree_needs import TreeNeeds

_READERS = 4


class UsedBlobs:
    """Goes through all snapshots, and when asked again through those that are new. Whatever cannot be read raises: who
    does not know what is used must delete nothing."""

    def __init__(self, repo: Repository, blobs: ListedBlobs, cancelled: Cancelled, without: Iterable[str] = ()) -> None:
        """``without`` the snapshots of these ids."""
        self._repo, self._blobs, self._cancelled = repo, blobs, cancelled
        self._snapshots = set(without)

    def roots(self) -> list[BlobId]:
        """The trees of the snapshots that were not asked about before. Raises :class:`Damaged` and StorageError; list
        before the index is read."""
        listed = [file for file in self._repo.store.list(FileType.SNAPSHOT) if file[0] not in self._snapshots]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="snapshots") as pool:
            found = list(pool.map(self._root, listed))
        self._snapshots.update(name for name, _ in listed)
        return found

    def _root(self, file: File) -> BlobId:
        self._cancelled()
        name, size = file
        return load_snapshot(self._repo.documents, name, size).tree_id

    def start_over(self) -> None:
        """Forget all marks: some may be of snapshots that are there no more."""
        self._snapshots.clear()
        self._blobs.used[:] = bytes(len(self._blobs))

    def mark(self, roots: Iterable[BlobId]) -> None:
        """Follow these trees to their ends. Raises :class:`Damaged`, StorageError, and what ``cancelled`` raises."""
        walk_levels(roots, self._new, self._located, self._read)

    def _new(self, trees: Iterable[BlobId]) -> list[BlobId]:
        return [tree for tree in trees if self._blobs.use(BlobType.TREE, tree)]

    def _located(self, trees: Iterable[BlobId]) -> dict[PackId, list[BlobLocation]]:
        packs: defaultdict[PackId, list[BlobLocation]] = defaultdict(list)
        for tree in trees:
            place = self._repo.location(BlobType.TREE, tree)
            assert place is not None, "it was marked, so it is listed"
            packs[place.pack].append(place)
        return packs

    def _read(self, pack: PackId, wanted: list[BlobLocation]) -> list[BlobId]:
        """The trees below these."""
        self._cancelled()
        return [tree for place, data in self._repo.load_blobs(pack, wanted) for tree in self._follow(place.id, data)]

    def _follow(self, tree: BlobId, data: bytes) -> Iterator[BlobId]:
        try:
            needs = TreeNeeds(data)
            for blob in needs.contents():
                self._blobs.use(BlobType.DATA, blob)
            yield from needs.subtrees()
        except Damaged as error:
            raise Damaged(f"tree {tree.hex()[:8]}: {error.message}") from error
