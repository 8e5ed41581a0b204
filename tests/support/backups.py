"""A backup and a restore in one call each, with the ``files`` plug-in and no service around."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.entries import Node
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.snapshots import Snapshot
from snappy.sources.files import FilesOptions, FilesRestore, FilesSource

HOST = "host-a"


def back_up(
    repository: Repository, *paths: str | Path, parent: Snapshot | None = None, force: bool = False, **options: Any
) -> BackupResult:
    """Back up local paths or URLs; ``options`` are those of the plug-in."""
    source = FilesSource(FilesOptions(paths=tuple(map(str, paths)), **options))
    archiver = Archiver(repository, parent=parent)
    return archiver.backup(source.export(None), paths=source.claims(), hostname=HOST, force=force)


def bring_back(
    repository: Repository,
    snapshot: Snapshot,
    place: str | Path,
    *,
    owners: Any = "auto",
    overwrite: Any = "always",
    **choices: Any,
) -> RestoreResult:
    """Restore into ``place``, devices too; ``choices`` are those of :meth:`Restorer.restore`."""
    options = FilesRestore(to=str(place), allow_devices=True, owners=owners, overwrite=overwrite)
    sink = FilesSource.import_(options, FilesSource.restore_claims(options))
    try:
        return Restorer(repository, sink).restore(snapshot, **choices)
    finally:
        sink.close()


def inside(place: Path, tree: Path) -> Path:
    """Where the restore into ``place`` put what was backed up at ``tree``."""
    return place / os.path.realpath(tree).lstrip("/")


def tree_below(repository: Repository, done: BackupResult, top: Path) -> list[Node]:
    """The nodes of ``top``; what lies above it may change while a test runs."""
    nodes = repository.load_tree(done.snapshot.tree_id)
    for name in os.path.realpath(top).encode().strip(b"/").split(b"/"):
        (found,) = [node for node in nodes if node.name == name]
        assert found.subtree
        nodes = repository.load_tree(found.subtree)
    return nodes
