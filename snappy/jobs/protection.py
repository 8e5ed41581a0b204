"""What follows from jobs for what is known of a source, and whether a promise holds: pure functions.

Each may be given the same job again, at any time: nothing changes by that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from typing import Any, TypeVar

import msgspec

from snappy.errors import Duplicate
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.places import places_of
from snappy.jobs.protection_words import Good, Mishap, Protection
from snappy.jobs.states import State

BACKUP, DRILL, COPY, FORGET = "backup", "drill", "copy", "forget"
KINDS = frozenset({BACKUP, DRILL, COPY, FORGET})
"""The kinds of jobs that say something about sources."""
MOST_BACKUPS = 8
HALF = 16
"""Letters of an id for what is protected; as many follow for where."""
LETTERS = 300
"""Of what a failed job says."""
_FAILED = (State.FAILED, State.REJECTED)

Protections = dict[str, Protection]
Happened = TypeVar("Happened", Good, Mishap)


# ---- which source ----------------------------------------------------------------------------------------------------


def of_backup(command: Mapping[str, Any], seen: float) -> Protection:
    """The source that a backup's command protects, with nothing known of it yet."""
    plugin, options, host = command.get("plugin", "files"), command.get("options") or {}, command.get("host") or ""
    parts = command.get("sources") or []
    if parts:
        plugin, options = "+".join(part["plugin"] for part in parts), {"sources": parts}
    paths = _paths_of(options)
    what = _digest([command["source"], host, paths or [plugin, options]])
    return Protection(
        id=what + _digest(command["target"]),
        source=command["source"],
        target=command["target"],
        host=host,
        paths=paths,
        plugin=plugin,
        seen=seen,
    )


def of_each(command: Mapping[str, Any], seen: float) -> list[Protection]:
    """The same at each target of a backup."""
    return [of_backup({**command, "target": place.target}, seen) for place in places_of(command)]


def _digest(what: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:HALF]


def _paths_of(options: Mapping[str, Any]) -> list[str]:
    given = options.get("paths")
    if not isinstance(given, list) or not all(isinstance(path, str) for path in given):
        return []
    return sorted({path.rstrip("/") or "/" for path in given})


# ---- what jobs say ---------------------------------------------------------------------------------------------------


def note(known: Protections, record: JobRecord) -> None:
    """Put into ``known`` what follows from a job that is over, or from a backup that goes on to further targets. Jobs
    are to come in the order in which they changed last."""
    if record.kind == BACKUP and "plugin" in record.command and _is_telling(record):
        for fresh in of_each(record.command, record.created):
            known[fresh.id] = _after_backup(known.get(fresh.id, fresh), record)
    elif record.kind == DRILL and record.state in (State.SUCCEEDED, *_FAILED):
        for each in [each for each in known.values() if _is_of(record, each)]:
            known[each.id] = _after_drill(each, record)
    elif record.kind == COPY and record.state is State.SUCCEEDED:
        _note_copies(known, record)
    elif record.kind == FORGET and record.state is State.SUCCEEDED and not record.command.get("dry_run"):
        _note_removals(known, record)


def _is_telling(record: JobRecord) -> bool:
    return record.state in (State.SUCCEEDED, *_FAILED) or bool(record.result and record.result.stored)


def _after_backup(before: Protection, record: JobRecord) -> Protection:
    result, snapshot = record.result, _snapshot_at(record, before.target)
    if result is None or not snapshot:
        return _after_mishap(before, record)
    at = min(result.time or _began(record), record.updated)
    return _with_backup(
        msgspec.structs.replace(before, host=result.host or before.host, paths=sorted(result.paths) or before.paths),
        _good(record, result, snapshot, at),
    )


def _snapshot_at(record: JobRecord, target: str) -> str:
    """What a backup left at that target; empty if nothing. One that failed may have left it at some of several."""
    if record.result is None:
        return ""
    if not record.result.stored:
        return record.result.snapshot if record.state is State.SUCCEEDED else ""
    return next((one.snapshot for one in record.result.stored if one.target == target), "")


def _after_drill(before: Protection, record: JobRecord) -> Protection:
    if record.state is not State.SUCCEEDED or record.result is None:
        after = _after_mishap(before, record)
        return msgspec.structs.replace(after, drill_mishap=_newest(before.drill_mishap, _mishap(record)))
    good = _good_drill(record, record.result)
    newer = before.drill is None or good.at > before.drill.at
    return msgspec.structs.replace(before, drill=good) if newer else before


def _after_mishap(before: Protection, record: JobRecord) -> Protection:
    return msgspec.structs.replace(before, mishap=_newest(before.mishap, _mishap(record)))


def _mishap(record: JobRecord) -> Mishap | None:
    """None where there was none worth telling of."""
    if record.state not in _FAILED or record.error is None or record.error.code == Duplicate.code:
        return None
    return Mishap(
        job=record.id,
        kind=record.kind,
        at=record.updated,
        code=record.error.code,
        message=record.error.message[:LETTERS],
    )


def _newest(*known: Happened | None) -> Happened | None:
    """Of several as new the first."""
    return max(filter(None, known), key=lambda each: each.at, default=None)


def _with_backup(before: Protection, good: Good) -> Protection:
    others = [each for each in before.backups if each.snapshot != good.snapshot]
    backups = sorted([good, *others], key=lambda each: (-each.at, each.snapshot))[:MOST_BACKUPS]
    return msgspec.structs.replace(before, backups=backups)


def _good(record: JobRecord, result: Result, snapshot: str, at: float) -> Good:
    return Good(
        job=record.id,
        snapshot=snapshot,
        at=at,
        seconds=result.seconds,
        files=result.files,
        bytes=result.bytes_processed,
        warnings=result.warning_count,
    )


def _good_drill(record: JobRecord, result: Result) -> Good:
    good = _good(record, result, result.snapshot, _began(record))
    if result.drill is None:
        return good
    return msgspec.structs.replace(good, seconds=result.drill.recovery, sample=result.drill.sample)


def _began(record: JobRecord) -> float:
    return min(record.attempts[-1].started, record.updated) if record.attempts else record.updated


def _is_of(record: JobRecord, source: Protection) -> bool:
    """Whether a drill was of a source: of its snapshot, or of one of its host and paths; or, where it failed before it
    found one, meant to be."""
    result = record.result
    if result is None or not result.snapshot:
        return is_meant(record.command, source)
    same = result.host == source.host and sorted(result.paths) == source.paths
    known = same or any(each.snapshot == result.snapshot for each in source.backups)
    return known and record.command["target"] == source.target


def is_meant(command: Mapping[str, Any], source: Protection) -> bool:
    """Whether the command of a drill may find a snapshot of the source."""
    if command.get("target") != source.target:
        return False
    wanted = command.get("snapshot") or "latest"
    if wanted != "latest":
        return any(each.snapshot.startswith(wanted) for each in source.backups)
    return command.get("host") in (None, source.host) and set(command.get("paths") or ()) <= set(source.paths)


def _note_copies(known: Protections, record: JobRecord) -> None:
    """What was copied is protected at the other target as well, and is as old as it was."""
    origin, target = record.command["origin"], record.command["target"]
    copies = {copy.snapshot: copy.copy for copy in record.result.copies} if record.result else {}
    for source in [each for each in known.values() if each.target == origin]:
        for good in source.backups:
            if copy := copies.get(good.snapshot):
                other = _at_target(known, source, target, record)
                if copy not in {each.snapshot for each in other.backups}:  # a backup to several targets tells it, too
                    known[other.id] = _with_backup(other, msgspec.structs.replace(good, job=record.id, snapshot=copy))


def _at_target(known: Protections, source: Protection, target: str, record: JobRecord) -> Protection:
    """The same source there; nothing but copies may ever have been made of it."""
    there = source.id[:HALF] + _digest(target)
    return known.get(there) or Protection(
        id=there,
        source=source.source,
        target=target,
        host=source.host,
        paths=source.paths,
        plugin=source.plugin,
        seen=record.updated,
    )


def _note_removals(known: Protections, record: JobRecord) -> None:
    named = tuple(record.command.get("snapshots") or ())
    groups = record.result.groups if record.result else []
    gone = {row.id for group in groups for row in group.snapshots if not row.reasons}
    for each in [each for each in known.values() if each.target == record.command["target"]]:
        left = [good for good in each.backups if not _is_gone(good.snapshot, gone, named)]
        if len(left) < len(each.backups):
            emptied = each.emptied if left else max(each.emptied, record.updated)
            known[each.id] = msgspec.structs.replace(each, backups=left, emptied=emptied)


def _is_gone(snapshot: str, gone: Container[str], named: tuple[str, ...]) -> bool:
    return snapshot in gone or bool(named and snapshot.startswith(named))


# ---- two memories of one source --------------------------------------------------------------------------------------


def merged(one: Protection, other: Protection) -> Protection:
    """What both know; what was told is what the one says that told more."""
    both = one if one.event_number >= other.event_number else other
    for good in (*one.backups, *other.backups):
        both = _with_backup(both, good)
    return msgspec.structs.replace(
        both,
        host=one.host or other.host,
        paths=one.paths or other.paths,
        seen=min(one.seen, other.seen),
        emptied=max(one.emptied, other.emptied),
        drill=_newest(one.drill, other.drill),
        mishap=_newest(one.mishap, other.mishap),
        drill_mishap=_newest(one.drill_mishap, other.drill_mishap),
    )


# ---- promises --------------------------------------------------------------------------------------------------------


class Promise(msgspec.Struct, frozen=True):
    """Seconds; 0: nothing is promised. ``drills_since``: from when drills are promised, in Unix seconds."""

    max_age: int = 0
    max_drill_age: int = 0
    drills_since: float = 0.0


def is_stale(source: Protection, promise: Promise, now: float) -> bool:
    """Whether the newest good backup is older than promised; where there is none, whether it is known for so long."""
    newest = source.backups[0].at if source.backups else source.seen
    return _is_older(newest, promise.max_age, now)


def is_unproven(source: Protection, promise: Promise, now: float) -> bool:
    """The same of drills; where there is none, since they are promised."""
    newest = source.drill.at if source.drill else max(source.seen, promise.drills_since)
    return _is_older(newest, promise.max_drill_age, now)


def _is_older(moment: float, most: int, now: float) -> bool:
    return 0 < most < now - moment


def judged(source: Protection, promise: Promise, now: float, *, may_accuse: bool) -> Protection:
    """With the next event that is to be told of it, if there is one: an event at a time. ``may_accuse``: whether it is
    sure that nothing good is on its way here."""
    if not source.told:
        return source
    stale, unproven = is_stale(source, promise, now), is_unproven(source, promise, now)
    if stale != source.is_stale and (may_accuse or not stale):
        return _told_next(source, "stale" if stale else "fresh", now, is_stale=stale)
    if unproven != source.is_unproven and (may_accuse or not unproven):
        return _told_next(source, "unproven" if unproven else "proven", now, is_unproven=unproven)
    return source


def _told_next(source: Protection, event: str, now: float, **flag: bool) -> Protection:
    number = source.event_number + 1
    return msgspec.structs.replace(source, event=event, event_number=number, since=now, told=False, **flag)


def last_heard(source: Protection) -> float:
    """When something happened to it at last, in Unix seconds; 0: nothing ever did."""
    happened = (*source.backups, source.drill, source.mishap)
    return max((each.at for each in happened if each), default=source.emptied)


def is_idle(source: Protection, promise: Promise, oldest: float) -> bool:
    """Whether nothing ever happened to it; or nothing since ``oldest``, and nobody promised anything of it."""
    heard = last_heard(source)
    promised = promise.max_age or promise.max_drill_age or source.is_stale or source.is_unproven or not source.told
    return not heard or (not promised and heard < oldest)
