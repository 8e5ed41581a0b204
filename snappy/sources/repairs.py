"""What a source service does for a repair: the repository is opened and locked, and what was found becomes words."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager

from snappy import log
from snappy.errors import BadOptions, Damaged
from snappy.jobs import result_words
from snappy.jobs.messages import Result
from snappy.jobs.upkeep import RepairCommand
from snappy.repository.format import PackId, parse_id
from snappy.repository.index_repair import IndexRepair
from snappy.repository.mending import Repaired
from snappy.repository.pack_repair import PackRepair
from snappy.repository.repo import Repository
from snappy.repository.snapshot_repair import SnapshotRepair
from snappy.sources import telling
from snappy.sources.allow import Ask
from snappy.sources.workshop import Task, Workshop, locked, locked_if_allowed

_log = log.get(__name__)


def prepare(command: RepairCommand, asks: Ask) -> Task:
    """Raises BadOptions."""
    packs = _packs(command.ids) if command.what == "packs" else []
    return Task(asks, lambda shop: asyncio.to_thread(_repair, shop, command, packs))


def _packs(ids: list[str]) -> list[PackId]:
    try:
        return [parse_id(each) for each in ids]
    except Damaged as error:
        raise BadOptions(error.message, hint="a pack's id has 64 hexadecimal digits") from error


def _repair(shop: Workshop, command: RepairCommand, packs: list[PackId]) -> Result:
    """No cache of the index is of use here."""
    began = time.monotonic()
    with Repository.open(shop.store, shop.password) as repository, _held(repository, shop, command):
        done = _repaired(repository, shop, command, packs)
        for problem in done.lost[telling.WARNINGS_TOLD :]:
            _log.warning("lost too", path=telling.path(problem.path), reason=problem.message)
        return _result(done, command, repository, time.monotonic() - began)


def _held(repository: Repository, shop: Workshop, command: RepairCommand) -> AbstractContextManager[object]:
    """Who only looks is in nobody's way."""
    return locked_if_allowed(repository, shop) if command.dry_run else locked(repository, shop, exclusive=True)


def _repaired(repository: Repository, shop: Workshop, command: RepairCommand, packs: list[PackId]) -> Repaired:
    dry_run, progress, cancelled = command.dry_run, shop.progress, shop.hold.check
    if command.what == "index":
        index = IndexRepair(repository, dry_run=dry_run, progress=progress, cancelled=cancelled)
        return index.repair(read_all_packs=command.read_all_packs)
    if command.what == "packs":
        workers = shop.workers
        return PackRepair(repository, dry_run=dry_run, progress=progress, cancelled=cancelled, workers=workers).repair(
            packs
        )
    forget = command.forget
    return SnapshotRepair(repository, forget=forget, dry_run=dry_run, progress=progress, cancelled=cancelled).repair(
        command.ids
    )


def _result(done: Repaired, command: RepairCommand, repository: Repository, seconds: float) -> Result:
    return Result(
        repository=repository.id,
        seconds=seconds,
        findings=telling.findings(done.findings),
        finding_count=done.finding_count,
        warnings=telling.warnings(done.lost),
        warning_count=done.lost_count,
        repair=result_words.Repaired(
            what=command.what, dry_run=command.dry_run, written=done.written, removed=done.removed
        ),
    )
