"""Repositories in which much lies about that no snapshot uses."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec

from snappy.repository.entries import Node
from snappy.repository.format import BlobType
from snappy.repository.locks import LockOwner
from snappy.repository.pack_writer import Options
from snappy.repository.prune_plan import PruneOptions
from snappy.repository.pruner import Held, Pruner, PruneResult
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from tests.support.engine import CHEAP, OWNER, PASSWORD

START = datetime(2026, 1, 1, tzinfo=UTC)
SMALL_PACKS = Options(pack_size=30_000)
WHOLE_PACKS = Options(pack_size=8 << 20)
FILES = 12


def store_of(folder: object) -> Store:
    return Store(fsspec.filesystem("file"), str(folder))


def back_up(repository: Repository, number: int, text: bytes = b"") -> str:
    """A snapshot of twelve files of noise, of which a third differ from those of the number before, and of a folder for
    each of them; its id."""
    below = []
    for file in range(FILES):
        noise = random.Random(file if file % 3 else 1000 * number + file).randbytes(2000 + 500 * file) + text
        blob = repository.save_blob(BlobType.DATA, noise)
        node = Node(name=b"%02d" % file, type="file", size=len(noise), content=[blob.id])
        folder = repository.save_tree([node])
        below.append(Node(name=b"folder%02d" % file, type="dir", subtree=folder.id))
    root = repository.save_tree(below)
    repository.flush()
    time = START + timedelta(days=number)
    return repository.save_snapshot(Snapshot(time=time, tree=root.id.hex(), paths=["/"], hostname="h"))


def opened(store: Store, options: Options = SMALL_PACKS) -> Repository:
    """The repository, as a job opens it."""
    repository = Repository.open(store, PASSWORD, options=options)
    repository.load_index()
    return repository


def litter(store: Store, snapshots: int = 8, *, twice: bool = True, options: Options = SMALL_PACKS) -> None:
    """Make a repository with blobs that are used, unused, with ``twice`` also stored twice, and in packs that no index
    file lists; every second snapshot is forgotten."""
    with Repository.init(store, PASSWORD, cost=CHEAP, options=options):
        pass
    for number in range(snapshots):
        with opened(store, options) as repository:
            name = back_up(repository, number)
        if not number % 2:
            store.remove(FileType.SNAPSHOT, name)
    if twice:
        _store_twice(store, options)
    _leave_unlisted(store, options)


def _store_twice(store: Store, options: Options) -> None:
    with opened(store, options) as repository:
        places = sorted(place for place in repository.index if place.kind is BlobType.DATA)[::3]
        repository.save_again(BlobType.DATA, [(place.id, repository.reader.load_at(place)) for place in places])
        repository.flush()


def _leave_unlisted(store: Store, options: Options) -> None:
    with opened(store, options) as repository:
        before = store.list(FileType.INDEX)
        for number in range(8):
            repository.save_blob(BlobType.DATA, random.Random(-1 - number).randbytes(5000))
        repository.flush()
        for name in {name for name, _ in store.list(FileType.INDEX)} - {name for name, _ in before}:
            store.remove(FileType.INDEX, name)


def held(repository: Repository, owner: LockOwner = OWNER) -> Held:
    """The locks of a prune."""
    return lambda exclusive: repository.lock(owner=owner, exclusive=exclusive, settle=0)


def prune(
    store: Store, *, owner: LockOwner = OWNER, dry_run: bool = False, packs: Options = SMALL_PACKS, **options: Any
) -> PruneResult:
    """A prune, as a job does it, with these :class:`PruneOptions`."""
    with Repository.open(store, PASSWORD, options=packs) as repository:
        return Pruner(repository, PruneOptions(**options), patience=0).prune(held(repository, owner), dry_run=dry_run)


def contents(store: Store) -> dict[str, dict[bytes, bytes]]:
    """What every file of every snapshot holds."""
    found: dict[str, dict[bytes, bytes]] = {}
    with opened(store) as repository:
        for snapshot in repository.snapshots(strict=True):
            files = found[snapshot.id] = {}
            for folder in repository.load_tree(snapshot.tree_id):
                for node in repository.load_tree(folder.subtree or b""):
                    files[node.name] = b"".join(
                        repository.load_blob(BlobType.DATA, blob) for blob in node.content or ()
                    )
    return found
