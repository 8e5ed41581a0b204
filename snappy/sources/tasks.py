"""What a source service does for each kind of job: here a plug-in meets a repository.

Plug-ins are made and frozen on the event loop; the engine runs in a thread of its own and asks ``hold`` whether it
may go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import msgspec

from snappy import log
from snappy.errors import BadOptions
from snappy.jobs.command import Command
from snappy.jobs.kinds import BackupCommand, InitCommand, RestoreCommand
from snappy.jobs.messages import Result
from snappy.jobs.upkeep import (
    CheckCommand,
    CopyCommand,
    DrillCommand,
    ForgetCommand,
    KeyCommand,
    PruneCommand,
    RepairCommand,
)
from snappy.repository.entries import Sink, StreamSink
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.snapshot_walk import Selection
from snappy.repository.snapshots import Snapshot
from snappy.repository.stream_restorer import StreamRestorer
from snappy.sources import backups, base, checks, copies, drills, forgets, keys, prunes, repairs, telling
from snappy.sources.allow import Ask
from snappy.sources.site import NOWHERE, Site
from snappy.sources.workshop import Task, Workshop, interrupting, locked_if_allowed

_log = log.get(__name__)


def asked(kind: str, command: Command) -> Ask:
    """What a command asks for as it stands, before any plug-in is loaded."""
    if isinstance(command, BackupCommand):
        plugin, *beside = [part.plugin for part in command.parts()]
        return Ask(kind=kind, target=command.target, plugin=plugin, beside=beside)
    return Ask(kind=kind, target=command.target, plugin=getattr(command, "plugin", ""))


def prepare(kind: str, command: Command, site: Site = NOWHERE) -> Task:
    """Load the plug-in, for that site, and check its options. Raises UnknownPlugin or BadOptions."""
    asks = asked(kind, command)
    if isinstance(command, BackupCommand):
        return backups.prepare(command, asks, site)
    if isinstance(command, RestoreCommand):
        return _prepare_restore(command, asks, site)
    if isinstance(command, CheckCommand):
        return checks.prepare(command, asks)
    if isinstance(command, DrillCommand):
        return drills.prepare(command, asks, site)
    if isinstance(command, PruneCommand):
        return prunes.prepare(command, asks)
    if isinstance(command, ForgetCommand):
        return forgets.prepare(command, asks)
    if isinstance(command, RepairCommand):
        return repairs.prepare(command, asks)
    if isinstance(command, CopyCommand):
        return copies.prepare(command, asks)
    if isinstance(command, KeyCommand):
        return keys.prepare(command, asks)
    assert isinstance(command, InitCommand)
    return Task(asks, _init)


# ---- init --------------------------------------------------------------------------------------------------------


async def _init(shop: Workshop) -> Result:
    return await asyncio.to_thread(_init_blocking, shop)


def _init_blocking(shop: Workshop) -> Result:
    began = time.monotonic()
    with Repository.init(shop.store, shop.password) as repository:
        return Result(repository=repository.id, seconds=time.monotonic() - began)


# ---- restore -----------------------------------------------------------------------------------------------------


def _prepare_restore(command: RestoreCommand, asks: Ask, site: Site) -> Task:
    plugin = base.load(command.plugin)
    options = base.parse(plugin.RestoreOptions, command.options)
    _check_patterns(command)
    writes = msgspec.structs.replace(asks, writes=plugin.restore_claims(options, site))
    open_sink = partial(plugin.import_, options, writes.writes, site)
    return Task(writes, lambda shop: asyncio.to_thread(_restore_blocking, shop, command, open_sink))


def _check_patterns(command: RestoreCommand) -> None:
    try:
        Selection(command.include, command.exclude)
    except ValueError as error:
        raise BadOptions(f"a pattern cannot be read: {error}") from error


def _restore_blocking(shop: Workshop, command: RestoreCommand, open_sink: Callable[[], Sink | StreamSink]) -> Result:
    began = time.monotonic()
    opened = Repository.open(shop.store, shop.password, cache=shop.index_cache)
    with opened as repository, locked_if_allowed(repository, shop):
        hosts = [command.host] if command.host else []
        snapshot = repository.find_snapshot(command.snapshot, hosts=hosts, paths=command.paths)
        repository.load_index()
        with closing(open_sink()) as sink, interrupting(sink, shop.hold):
            restorer = _restorer(repository, sink, shop)
            done = restorer.restore(snapshot, include=command.include, exclude=command.exclude)
        _raise_failure(done)
        return _restore_result(done, snapshot, repository, time.monotonic() - began)


def _restorer(repository: Repository, sink: Sink | StreamSink, shop: Workshop) -> Restorer | StreamRestorer:
    progress, cancelled = shop.progress, shop.hold.check
    if isinstance(sink, StreamSink):
        return StreamRestorer(repository, sink, progress=progress, cancelled=cancelled)
    return Restorer(repository, sink, progress=progress, cancelled=cancelled, workers=shop.workers)


def _raise_failure(done: RestoreResult) -> None:
    """A restore that lost something has failed, whatever else it brought back; the log names all of it."""
    failure = done.failure()
    if failure is None:
        return
    for problem in done.errors:
        _log.error("not restored", path=telling.path(problem.path), reason=problem.message)
    raise failure


def _restore_result(done: RestoreResult, snapshot: Snapshot, repository: Repository, seconds: float) -> Result:
    return Result(
        snapshot=snapshot.id,
        repository=repository.id,
        files=done.files,
        files_unmodified=done.unmodified,
        directories=done.directories,
        bytes_processed=done.bytes,
        seconds=seconds,
        warnings=telling.warnings(done.warnings),
        warning_count=done.warnings_total,
    )
