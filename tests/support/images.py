"""Backups and restores of disks with their plug-ins, and no service around."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer
from snappy.repository.snapshots import Snapshot
from snappy.sources import base
from snappy.sources.site import Site


def back_up(repository: Repository, source: base.Source, parent: Snapshot | None = None) -> BackupResult:
    async def run() -> BackupResult:
        async with source.snap() as frozen:
            archiver = Archiver(repository, parent=parent)
            entries, paths = source.export(frozen), source.claims()
            return await asyncio.to_thread(archiver.backup, entries, paths=paths, hostname="host-a")

    return asyncio.run(run())


def bring_back(repository: Repository, snapshot: Snapshot, plugin: str, site: Site, **options: Any) -> None:
    kind = base.load(plugin)
    chosen = base.parse(kind.RestoreOptions, options)
    with closing(kind.import_(chosen, kind.restore_claims(chosen, site), site)) as sink:
        done = Restorer(repository, sink).restore(snapshot)  # type: ignore[arg-type]
    assert (done.errors, done.warnings) == ([], [])
