"""What a source service does for a forget: a policy, or a list of ids, is put to a repository's snapshots, and those
that it does not keep are removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from snappy.errors import SnapshotNotFound
from snappy.jobs.messages import Result
from snappy.jobs.result_words import Pruned, SnapshotGroup, SnapshotRow
from snappy.jobs.upkeep import Count, ForgetCommand
from snappy.repository.patience import alone
from snappy.repository.prune_plan import PruneOptions
from snappy.repository.repo import Repository
from snappy.repository.retention import (
    PERIODS,
    UNLIMITED,
    Filters,
    Group,
    Grouping,
    Kept,
    Key,
    Policy,
    grouped,
    tag_list,
)
from snappy.repository.snapshots import Snapshot, remove_snapshots
from snappy.repository.spans import Span
from snappy.sources import prunes
from snappy.sources.allow import Ask
from snappy.sources.workshop import JOB_TAG, Task, Workshop, locked

TOLD_BYTES = 128 << 10
"""Of snapshots and reasons in a result: all of it has to fit into one message, and into the job's record."""

Chosen = Callable[[Repository, int], list[Group]]
"""What becomes of the snapshots, by the number of the attempt."""


def prepare(command: ForgetCommand, asks: Ask) -> Task:
    """Raises UsageError."""
    choose = _by_name(command.snapshots) if command.snapshots else by_policy(command)
    options = prunes.options_of(command) if command.prune else None
    work = _look if command.dry_run else _forget
    return Task(asks, lambda shop: asyncio.to_thread(work, shop, choose, options))


def _look(shop: Workshop, choose: Chosen, options: PruneOptions | None) -> Result:
    began = time.monotonic()
    with Repository.open(shop.store, shop.password) as repository:
        groups = choose(repository, 1)
        removed = _ids(groups)
        planned = None
        if options and removed:
            planned = prunes.prune(repository, shop, options, dry_run=True, without=removed)
        return _result(groups, len(removed), planned, repository, time.monotonic() - began)


def _forget(shop: Workshop, choose: Chosen, options: PruneOptions | None) -> Result:
    """The newest is removed first, so that the oldest of a group, which a policy may keep for being that, is another
    one at no time: whoever goes on where this attempt is lost decides as it did."""
    began = time.monotonic()
    with Repository.open(shop.store, shop.password) as repository:
        with alone(lambda exclusive: locked(repository, shop, exclusive=exclusive), shop.hold.check):
            groups = choose(repository, shop.hold.attempt)
            removed = remove_snapshots(repository.store, _ids(groups), going_on=shop.hold.check)
        pruned = None
        if options and (removed or shop.hold.attempt > 1):  # an attempt that was lost may have removed all
            pruned = prunes.prune(repository, shop, options, dry_run=False)
        return _result(groups, removed, pruned, repository, time.monotonic() - began)


def _ids(groups: Iterable[Group]) -> list[str]:
    return [snapshot.id for group in groups for snapshot in group.remove]


# ---- what is removed ---------------------------------------------------------------------------------------------


def _by_name(names: Iterable[str]) -> Chosen:
    def choose(repository: Repository, attempt: int) -> list[Group]:
        found = {snapshot.id: snapshot for snapshot in _named(repository, names, attempt)}
        return [Group(Key(), [], list(found.values()))]

    return choose


def _named(repository: Repository, names: Iterable[str], attempt: int) -> Iterator[Snapshot]:
    for name in names:
        try:
            yield repository.find_snapshot(name)
        except SnapshotNotFound:
            if attempt == 1:  # later it is one that an attempt that was lost has removed
                raise


def by_policy(command: ForgetCommand) -> Chosen:
    """Raises UsageError."""
    policy, grouping = policy_of(command), Grouping.parse(command.group_by)
    filters = Filters(command.hosts, [tag_list(text) for text in command.tags], command.paths)

    def choose(repository: Repository, attempt: int) -> list[Group]:
        snapshots = [_without_job(snapshot) for snapshot in repository.snapshots(strict=True)]
        return grouped(filter(filters.let, snapshots), policy, grouping, now=datetime.now(UTC))

    return choose


def policy_of(command: ForgetCommand) -> Policy:
    """Raises UsageError."""
    spans = {name: getattr(command, f"keep_within_{name}", "") for name in PERIODS}
    return Policy(
        counts={name: _count(getattr(command, f"keep_{name}")) for name in PERIODS},
        within=Span.parse(command.keep_within),
        periods_within={name: Span.parse(span) for name, span in spans.items()},
        tags=[tag_list(text) for text in command.keep_tags],
    )


def _count(count: Count) -> int:
    return UNLIMITED if count == "unlimited" else count


def _without_job(snapshot: Snapshot) -> Snapshot:
    """Every snapshot of a job has a tag of its own: it would be a group of its own, and none without a tag."""
    tags = [tag for tag in snapshot.tags or () if not tag.startswith(JOB_TAG)]
    return msgspec.structs.replace(snapshot, tags=tags or None)


# ---- what is told ------------------------------------------------------------------------------------------------


def _result(groups: list[Group], removed: int, pruned: Pruned | None, repository: Repository, seconds: float) -> Result:
    return Result(
        repository=repository.id,
        snapshots=sum(len(group.keep) for group in groups),
        removed=removed,
        groups=list(_told(groups)),
        prune=pruned,
        seconds=seconds,
    )


def _told(groups: Iterable[Group]) -> Iterator[SnapshotGroup]:
    room = TOLD_BYTES
    for group in groups:
        told = []
        for row in rows(group):
            room -= len(msgspec.json.encode(row))
            if room < 0:
                break
            told.append(row)
        if not told:
            return
        yield group_told(group.key, told)


def group_told(key: Key, snapshots: list[SnapshotRow]) -> SnapshotGroup:
    """A group with those of its snapshots that are told of."""
    host, paths, tags = key
    return SnapshotGroup(host=host, paths=_list(paths), tags=_list(tags), snapshots=snapshots)


def rows(group: Group) -> list[SnapshotRow]:
    """Its snapshots, the newest first."""
    removed = [Kept(snapshot, []) for snapshot in group.remove]
    everything = sorted([*group.keep, *removed], key=lambda each: each.snapshot.time, reverse=True)
    return [
        SnapshotRow(
            id=snapshot.id,
            time=snapshot.time,
            hostname=snapshot.hostname,
            paths=snapshot.paths,
            tags=snapshot.tags,
            reasons=reasons,
        )
        for snapshot, reasons in everything
    ]


def _list(texts: Iterable[str] | None) -> list[str] | None:
    return None if texts is None else list(texts)
