"""What a source service does for a backup: the hooks, the source frozen, and all that it yields into the repository."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from typing import Any

import msgspec

from snappy import log
from snappy.errors import BadOptions, NotARepository, NotUndone, SnappyError
from snappy.jobs.kinds import BackupCommand, Part
from snappy.jobs.messages import Result, Warn
from snappy.repository import scout
from snappy.repository.archiver import Archiver, BackupResult, find_parent
from snappy.repository.compression import DEFAULT_LEVEL
from snappy.repository.entries import Exported
from snappy.repository.journal import Journal
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.sources import base, telling
from snappy.sources.allow import Ask
from snappy.sources.hold import Hold
from snappy.sources.hooks import HeldHooks, Hooks
from snappy.sources.site import Site
from snappy.sources.together import Together
from snappy.sources.workshop import JOB_TAG, Task, Workshop, interrupting, listed_if_cancelled, locked, user_name

Reads = base.Source | Together
"""What a backup reads: one source, or several as one."""
LEVELS = {"off": None, "fastest": 1, "default": DEFAULT_LEVEL, "better": 7, "max": 11}
"""The levels of zstd that restic's words stand for, and what ``default`` means."""
UNKNOWN = "an attempt that was lost finished this; whether it left anything out is not known"
CENSUS_AFTER = 10.0
"""Seconds: a backup that is over by then ends later for being counted."""

_log = log.get(__name__)


def job_tag(job: str) -> str:
    """The tag by which a later attempt finds what an earlier one finished."""
    return JOB_TAG + job


def _check_tags(tags: Iterable[str]) -> None:
    """Another job's next attempt would take the snapshot for its own."""
    for tag in tags:
        if tag.startswith(JOB_TAG):
            raise BadOptions(f"the tag {tag!r} is not yours to give: {JOB_TAG} is what jobs are known by")


def prepare(command: BackupCommand, asks: Ask, site: Site) -> Task:
    """Raises UnknownPlugin or BadOptions."""
    _check_tags(command.tags)
    sources = [_made(part, site) for part in command.parts()]
    source: Reads = sources[0] if len(sources) == 1 else Together(sources)
    hooks = Hooks(command.hooks, site)
    others = [place.target for place in command.targets]
    reads = msgspec.structs.replace(asks, reads=source.claims(), others=others, hooks=command.hooks)
    return Task(reads, lambda shop: _backup(shop, command, source, hooks))


def _made(part: Part, site: Site) -> base.Source:
    plugin = base.load(part.plugin)
    return plugin(base.parse(plugin.Options, part.options), site)


async def _backup(shop: Workshop, command: BackupCommand, source: Reads, hooks: Hooks) -> Result:
    """An error of hooks that came when all was done has the result in its details."""
    began = time.monotonic()
    async with hooks.held(shop.hold) as held:
        done = await _opened_and_read(shop, command, source, held)
    return msgspec.structs.replace(done, seconds=time.monotonic() - began)


async def _opened_and_read(shop: Workshop, command: BackupCommand, source: Reads, hooks: HeldHooks) -> Result:
    """Open the repository, freeze the source, and only then make a repository that is not there: neither a wrong
    password freezes anything, nor does a source that is missing leave an empty repository."""
    options = Options(compression=LEVELS[command.compression])
    repository = await asyncio.to_thread(_open_unless_missing, shop, command, options)
    done: Result | None = None
    try:
        async with hooks.around("backup"), AsyncExitStack() as frozen_until:
            frozen_until.enter_context(interrupting(source, shop.hold))
            async with hooks.around("snapshot"):
                frozen = await frozen_until.enter_async_context(source.snap())
                if shop.hold.ended:
                    shop.hold.check()
            if repository is None:
                made = partial(Repository.init, shop.store, shop.password, options=options, cache=shop.index_cache)
                repository = await asyncio.to_thread(made)
            done = await asyncio.to_thread(_backup_blocking, shop, command, source, frozen, repository)
            hooks.snapshot = done.snapshot
        return done
    except NotUndone as error:
        error.details["result"] = done
        raise
    finally:
        if repository is not None:
            await asyncio.to_thread(repository.close)


def _open_unless_missing(shop: Workshop, command: BackupCommand, options: Options) -> Repository | None:
    try:
        return Repository.open(shop.store, shop.password, options=options, cache=shop.index_cache)
    except NotARepository:
        if not command.init:
            raise
        return None


def _backup_blocking(
    shop: Workshop, command: BackupCommand, source: Reads, frozen: Any, repository: Repository
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
                excludes=[pattern for part in command.parts() for pattern in part.options.get("exclude", [])],
                force=command.force,
            )
        return _backup_result(done, repository)


@contextmanager
def _entries(
    repository: Repository,
    shop: Workshop,
    command: BackupCommand,
    source: Reads,
    frozen: Any,
    parent: Snapshot | None,
) -> Iterator[Iterable[Exported]]:
    """What the source yields, without what a scout has passed, where one is worth it."""
    backwards = source.backwards(frozen) if isinstance(source, base.Divisible) and not command.force else None
    sent = scout.send(repository, parent, backwards, shop.workers) if parent and backwards else None
    with ExitStack() as over:
        if sent is None or not isinstance(source, base.Divisible):
            entries = source.export(frozen)
        else:
            entries = source.export_rest(frozen, over.enter_context(sent).passed)
        over.callback(base.end, entries)
        yield entries


def _journal(repository: Repository, hold: Hold) -> Journal:
    """Of this attempt, with what earlier ones that were lost have stored and read."""
    journal = Journal(repository, hold.job.id, hold.attempt)
    if hold.attempt > 1:
        found = repository.load_unlisted()
        files = journal.take_up(found.apart)
        _log.info("going on with what is stored", job=hold.job.id, unlisted_packs=found.packs, files_begun=files)
    return journal


@contextmanager
def _expected(progress: Progress, source: Reads, frozen: Any, parent: Snapshot | None) -> Iterator[None]:
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
