"""What a source service does for a copy: both repositories are opened, the one that is written is locked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from snappy.errors import NotARepository
from snappy.jobs.messages import Result
from snappy.jobs.result_words import SnapshotCopy
from snappy.jobs.upkeep import CopyCommand
from snappy.repository.copier import Copied, Copier
from snappy.repository.repo import Repository
from snappy.repository.retention import Filters, tag_list
from snappy.repository.snapshots import Snapshot
from snappy.sources.allow import Ask
from snappy.sources.workshop import Task, Workshop, listed_if_cancelled, locked

TOLD = 100
"""Copies in a result."""


def prepare(command: CopyCommand, asks: Ask) -> Task:
    """Nothing can be wrong with it before the repositories are open."""
    both = msgspec.structs.replace(asks, others=[command.origin])
    return Task(both, lambda shop: asyncio.to_thread(_copy, shop, command))


def _copy(shop: Workshop, command: CopyCommand) -> Result:
    began = time.monotonic()
    assert shop.origin is not None
    with (
        Repository.open(shop.origin.store, shop.origin.password) as source,
        _opened(shop, command.init) as target,
        locked(target, shop, settle_later=True),
    ):
        copier = Copier(
            source, target, progress=shop.progress, cancelled=shop.hold.check, resumes=shop.hold.attempt > 1
        )
        with listed_if_cancelled(target):
            done = copier.copy(chosen(source, command))
        return _result(done, target, time.monotonic() - began)


def _opened(shop: Workshop, init: bool) -> Repository:
    try:
        return Repository.open(shop.store, shop.password, cache=shop.index_cache)
    except NotARepository:
        if not init:
            raise
        return Repository.init(shop.store, shop.password, cache=shop.index_cache)


def chosen(source: Repository, command: CopyCommand) -> list[Snapshot]:
    """The snapshots that the command means. Raises :class:`snappy.errors.SnapshotNotFound`."""
    if command.snapshots:
        found = map(source.find_snapshot, command.snapshots)
        return list({snapshot.id: snapshot for snapshot in found}.values())
    filters = Filters(command.hosts, [tag_list(text) for text in command.tags], command.paths)
    return list(filter(filters.let, source.snapshots(strict=True)))


def _result(done: Sequence[Copied], target: Repository, seconds: float) -> Result:
    told = sorted(done, key=lambda copied: not copied.is_new)[:TOLD]
    return Result(
        repository=target.id,
        snapshots=len(done),
        copied=sum(copied.is_new for copied in done),
        copies=[SnapshotCopy(snapshot=one.snapshot.id, copy=one.name, is_new=one.is_new) for one in told],
        bytes_new=target.stats.bytes_new,
        bytes_stored=target.stats.bytes_sealed,
        packs=target.stats.packs_written,
        seconds=seconds,
    )
