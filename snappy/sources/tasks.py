"""What a source service does for each kind of job: here a plug-in meets a repository.

Plug-ins are made and frozen on the event loop; the engine runs in a thread of its own and asks ``hold`` whether it
may go on.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import msgspec

from snappy import log
from snappy.errors import BadOptions, NotARepository, SnappyError
from snappy.jobs.command import Command
from snappy.jobs.kinds import BackupCommand, InitCommand, RestoreCommand
from snappy.jobs.messages import Result, Warn
from snappy.jobs.upkeep import (
    CheckCommand,
    CopyCommand,
    DrillCommand,
    ForgetCommand,
    KeyCommand,
    PruneCommand,
    RepairCommand,
)
from snappy.repository import scout
from snappy.repository.archiver import Archiver, BackupResult, find_parent
from snappy.repository.compression import DEFAULT_LEVEL
from snappy.repository.entries import Exported, Sink, StreamSink
from snappy.repository.journal import Journal
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.snapshot_walk import Selection
from snappy.repository.snapshots import Snapshot
from snappy.repository.stream_restorer import StreamRestorer
from snappy.sources import base, checks, copies, drills, forgets, keys, prunes, repairs, telling
from snappy.sources.allow import Ask
from snappy.sources.hold import Hold
from snappy.sources.site import NOWHERE, Site
from snappy.sources.workshop import (
    JOB_TAG,
    Task,
    Workshop,
    listed_if_cancelled,
    locked,
    locked_if_allowed,
    user_name,
)

LEVELS = {"off": None, "fastest": 1, "default": DEFAULT_LEVEL, "better": 7, "max": 11}
"""The levels of zstd that restic's words stand for, and what ``default`` means."""
UNKNOWN = "an attempt that was lost finished this; whether it left anything out is not known"
CENSUS_AFTER = 10.0
"""Seconds: a backup that is over by then ends later for being counted."""

_log = log.get(__name__)


def prepare(kind: str, command: Command, site: Site = NOWHERE) -> Task:
    """Load the plug-in, for that site, and check its options. Raises UnknownPlugin or BadOptions."""
    asks = Ask(kind=kind, target=command.target, plugin=getattr(command, "plugin", ""))
    if isinstance(command, BackupCommand):
        return _prepare_backup(command, asks, site)
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


def job_tag(job: str) -> str:
    """The tag by which a later attempt finds what an earlier one finished."""
    return JOB_TAG + job


def _check_tags(tags: Iterable[str]) -> None:
    """Another job's next attempt would take the snapshot for its own."""
    for tag in tags:
        if tag.startswith(JOB_TAG):
            raise BadOptions(f"the tag {tag!r} is not yours to give: {JOB_TAG} is what jobs are known by")


# ---- init --------------------------------------------------------------------------------------------------------


async def _init(shop: Workshop) -> Result:
    return await asyncio.to_thread(_init_blocking, shop)


def _init_blocking(shop: Workshop) -> Result:
    began = time.monotonic()
    with Repository.init(shop.store, shop.password) as repository:
        return Result(repository=repository.id, seconds=time.monotonic() - began)


# ---- backup ------------------------------------------------------------------------------------------------------


def _prepare_backup(command: BackupCommand, asks: Ask, site: Site) -> Task:
    _check_tags(command.tags)
    plugin = base.load(command.plugin)
    source = plugin(base.parse(plugin.Options, command.options), site)
    others = [place.target for place in command.targets]
    reads = msgspec.structs.replace(asks, reads=source.claims(), others=others)
    return Task(reads, lambda shop: _backup(shop, command, source))


async def _backup(shop: Workshop, command: BackupCommand, source: base.Source) -> Result:
    """Open the repository, freeze the source, and only then make a repository that is not there: neither a wrong
    password freezes anything, nor does a source that is missing leave an empty repository."""
    began = time.monotonic()
    options = Options(compression=LEVELS[command.compression])
    repository = await asyncio.to_thread(_open_unless_missing, shop, command, options)
    try:
        async with source.snap() as frozen:
            if repository is None:
                made = partial(Repository.init, shop.store, shop.password, options=options, cache=shop.index_cache)
                repository = await asyncio.to_thread(made)
            with _interrupting(source, shop.hold):
                done = await asyncio.to_thread(_backup_blocking, shop, command, source, frozen, repository)
            return msgspec.structs.replace(done, seconds=time.monotonic() - began)
    finally:
        if repository is not None:
            await asyncio.to_thread(repository.close)


@contextmanager
def _interrupting(waiting: object, hold: Hold) -> Iterator[None]:
    """Once the attempt is over, a plug-in that waits for something hears of it."""
    if not isinstance(waiting, base.Interruptible):
        yield
        return
    told = threading.Event()

    def listen(_: bytes) -> None:
        if hold.ended and not told.is_set():
            told.set()
            waiting.interrupt()

    forget = hold.watch(listen)
    try:
        yield
    finally:
        forget()


def _open_unless_missing(shop: Workshop, command: BackupCommand, options: Options) -> Repository | None:
    try:
        return Repository.open(shop.store, shop.password, options=options, cache=shop.index_cache)
    except NotARepository:
        if not command.init:
            raise
        return None


def _backup_blocking(
    shop: Workshop, command: BackupCommand, source: base.Source, frozen: Any, repository: Repository
) -> Result:
    host = command.host or shop.host
    with locked(repository, shop, settle_later=True):
        finished = _finished_before(repository, shop.hold)
        if finished is not None:
            doubt = Warn(path=telling.shortened(", ".join(source.claims())), message=UNKNOWN)
            return msgspec.structs.replace(_adopted(finished, repository), warnings=[doubt], warning_count=1)
        parent = _parent(repository, command, host, source.claims())
        repository.load_index()  # after the snapshots: it holds what the newest of them needs
        journal = _journal(repository, shop.hold)
        archiver = Archiver(
            repository,
            parent=parent,
            progress=shop.progress,
            cancelled=shop.hold.check,
            journal=None if command.force else journal,
            workers=shop.workers,
        )
        with (
            listed_if_cancelled(repository),
            _expected(shop.progress, source, frozen, parent),
            _entries(repository, shop, command, source, frozen, parent) as entries,
        ):
            done = archiver.backup(
                entries,
                paths=source.claims(),
                hostname=host,
                username=user_name(),
                uid=os.getuid(),
                gid=os.getgid(),
                tags=[*command.tags, job_tag(shop.hold.job.id)],
                excludes=list(command.options.get("exclude", [])),
                force=command.force,
            )
        return _backup_result(done, repository)


@contextmanager
def _entries(
    repository: Repository,
    shop: Workshop,
    command: BackupCommand,
    source: base.Source,
    frozen: Any,
    parent: Snapshot | None,
) -> Iterator[Iterable[Exported]]:
    """What the source yields, without what a scout has passed, where one is worth it."""
    backwards = source.backwards(frozen) if isinstance(source, base.Divisible) and not command.force else None
    sent = scout.send(repository, parent, backwards, shop.workers) if parent and backwards else None
    if sent is None or not isinstance(source, base.Divisible):
        yield source.export(frozen)
        return
    with sent:
        yield source.export_rest(frozen, sent.passed)


def _journal(repository: Repository, hold: Hold) -> Journal:
    """Of this attempt, with what earlier ones that were lost have stored and read."""
    journal = Journal(repository, hold.job.id, hold.attempt)
    if hold.attempt > 1:
        found = repository.load_unlisted()
        files = journal.take_up(found.apart)
        _log.info("going on with what is stored", job=hold.job.id, unlisted_packs=found.packs, files_begun=files)
    return journal


@contextmanager
def _expected(progress: Progress, source: base.Source, frozen: Any, parent: Snapshot | None) -> Iterator[None]:
    """Totals for who watches: those of the last time, or those of a census beside the backup."""
    if parent and parent.summary:
        progress.expect(files=parent.summary.total_files_processed, size=parent.summary.total_bytes_processed)
    if (parent and parent.summary) or not isinstance(source, base.Measurable):
        yield
        return
    over = threading.Event()
    census = threading.Thread(target=_count, args=(progress, source.sizes(frozen), over), name="census", daemon=True)
    census.start()
    try:
        yield
    finally:
        over.set()
        census.join()


def _count(progress: Progress, sizes: Iterator[int], over: threading.Event) -> None:
    if over.wait(CENSUS_AFTER):
        return
    files = total = 0
    try:
        for size in sizes:
            files, total = files + 1, total + size
            if over.is_set():
                return
    except (OSError, SnappyError) as error:
        _log.debug("how much there is is not known", reason=str(error))  # the backup itself tells what it means
        return
    progress.expect(files=files, size=total)


def _finished_before(repository: Repository, hold: Hold) -> Snapshot | None:
    """What an earlier attempt saved just before it was lost."""
    if hold.attempt <= 1:
        return None
    tag = job_tag(hold.job.id)
    return next((one for one in reversed(repository.snapshots()) if tag in (one.tags or ())), None)


def _parent(repository: Repository, command: BackupCommand, host: str, paths: list[str]) -> Snapshot | None:
    if command.parent:
        return repository.find_snapshot(command.parent)
    return find_parent(repository, hostname=host, paths=paths)


def _adopted(snapshot: Snapshot, repository: Repository) -> Result:
    made = Result(
        snapshot=snapshot.id,
        host=snapshot.hostname,
        paths=snapshot.paths or [],
        time=snapshot.time.timestamp(),
        repository=repository.id,
    )
    summary = snapshot.summary
    if summary is None:
        return made
    return msgspec.structs.replace(
        made,
        files=summary.total_files_processed,
        files_new=summary.files_new,
        files_changed=summary.files_changed,
        files_unmodified=summary.files_unmodified,
        directories=summary.dirs_new + summary.dirs_changed + summary.dirs_unmodified,
        bytes_processed=summary.total_bytes_processed,
        bytes_new=summary.data_added,
        bytes_stored=summary.data_added_packed,
    )


def _backup_result(done: BackupResult, repository: Repository) -> Result:
    adopted = _adopted(done.snapshot, repository)
    return msgspec.structs.replace(
        adopted,
        bytes_read=done.bytes_read,
        warnings=telling.warnings(done.warnings),
        warning_count=done.warnings_total,
    )


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
        with closing(open_sink()) as sink, _interrupting(sink, shop.hold):
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
