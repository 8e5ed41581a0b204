"""A backup to several targets, as pure functions of its record: where its attempts store it, what became of it at each
target, and which jobs bring it from one to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from snappy.errors import BusError, QuorumMissed, RepositoryError, StorageError
from snappy.jobs.kinds import AnyCommand, typed_command
from snappy.jobs.messages import Attempt, ErrorInfo, JobRecord, Result
from snappy.jobs.place_words import UNSETTLED, StoredAt, TargetKey
from snappy.jobs.rules import is_lost
from snappy.jobs.states import FINAL, State

OF_TARGETS = (StorageError, RepositoryError, BusError)
"""Errors after which another target may do."""
INHERITED = ("source", "priority", "deadline", "time_limit", "bandwidth", "init")
"""What copies take over of the backup's command."""


def is_spread(record: JobRecord) -> bool:
    """Whether it is a backup to several targets."""
    return bool(record.command.get("targets"))


def places_of(command: Mapping[str, Any]) -> list[TargetKey]:
    """All that a command names, the preferred one first."""
    first = TargetKey(target=command.get("target", ""), key=command.get("key", ""))
    others = command.get("targets") or ()
    return [first, *(TargetKey(target=one["target"], key=one.get("key") or first.key) for one in others)]


def quorum_of(command: Mapping[str, Any]) -> int:
    """How many targets must have it."""
    return command.get("quorum") or len(places_of(command))


def place_of(record: JobRecord) -> TargetKey:
    """Where its newest attempt works; of one that waits, where the next one will."""
    return record.place or places_of(record.command)[0]


def at_place(record: JobRecord) -> JobRecord:
    """The job as its worker is to see it: ``target`` is where this attempt stores it."""
    place = place_of(record)
    if not record.place:
        return record
    others = [msgspec.to_builtins(other) for other in places_of(record.command) if other != place]
    command = {**record.command, "target": place.target, "key": place.key, "targets": others}
    return msgspec.structs.replace(record, command=command)


# ---- which target takes it first -----------------------------------------------------------------------------------


def next_place(record: JobRecord, attempts: Sequence[Attempt], limit: int) -> TargetKey | None:
    """Where to go on after the last of ``attempts`` failed: after one that was lost at the same target, for what it
    stored is there; else where fewest have failed. None if nothing is left to try; ``limit`` is how often each may."""
    place, error = place_of(record), attempts[-1].error
    assert error is not None
    if is_lost(attempts[-1]):
        return place
    if not isinstance(error.to_error(), OF_TARGETS):
        return place if error.retryable and failures(attempts, place.target) < limit else None
    left = [one for one in places_of(record.command) if _may_still(attempts, one.target, limit)]
    return min(left, key=lambda one: failures(attempts, one.target), default=None)


def failures(attempts: Sequence[Attempt], target: str) -> int:
    """How many attempts there ended with an error."""
    return sum(attempt.target == target and attempt.error is not None and not is_lost(attempt) for attempt in attempts)


def _may_still(attempts: Sequence[Attempt], target: str, limit: int) -> bool:
    errors = [attempt.error for attempt in attempts if attempt.target == target and not is_lost(attempt)]
    return len(errors) < limit and all(error is None or error.retryable for error in errors)


def nowhere(record: JobRecord, attempts: Sequence[Attempt]) -> tuple[ErrorInfo, Result]:
    """How a backup ends that no target took."""
    reasons = {attempt.target: attempt.error.message for attempt in attempts if attempt.error}
    stored = [
        StoredAt(target=place.target, key=place.key or "", state="failed", reason=reasons.get(place.target, ""))
        for place in places_of(record.command)
    ]
    return missed(record, stored), Result(stored=stored)


# ---- what became of it at each -------------------------------------------------------------------------------------


def stored_first(record: JobRecord, result: Result, jobs: Sequence[str]) -> Result:
    """The result once the first target has it; ``jobs`` are the ids of the copies, one a place."""
    here = place_of(record)
    stored = [
        StoredAt(target=place.target, key=place.key or "", state="stored", snapshot=result.snapshot)
        if place == here
        else StoredAt(target=place.target, key=place.key or "", state="waiting", job=job)
        for place, job in zip(places_of(record.command), jobs, strict=True)
    ]
    return msgspec.structs.replace(result, stored=stored)


def is_unsettled(record: JobRecord) -> bool:
    """Whether more is to be heard of any of its targets."""
    return record.result is not None and any(one.state in UNSETTLED for one in record.result.stored)


def copy_of(record: JobRecord, one: StoredAt) -> AnyCommand:
    """The command that brings the backup to one more target, out of the one that has it."""
    assert record.result is not None
    origin = next(other for other in record.result.stored if other.snapshot == record.result.snapshot)
    fields = {name: record.command[name] for name in INHERITED if record.command.get(name) is not None}
    fields |= {"target": one.target, "key": one.key, "origin": origin.target, "origin_key": origin.key}
    return typed_command("copy", {**fields, "snapshots": [origin.snapshot]})


def out_of_any(copy: JobRecord, backup: JobRecord) -> JobRecord:
    """The copy as its worker is to see it: where bringing it from one target failed, another that has it may do."""
    stored = backup.result.stored if backup.result else []
    have = [one for one in stored if one.state == "stored"]
    if not have:
        return copy
    origin = have[failures(copy.attempts, place_of(copy).target) % len(have)]
    chosen = {"origin": origin.target, "origin_key": origin.key, "snapshots": [origin.snapshot]}
    return msgspec.structs.replace(copy, command={**copy.command, **chosen})


def seen(one: StoredAt, copy: JobRecord, limit: int) -> StoredAt:
    """What became of the backup where ``copy`` brings it; it is behind after ``limit`` attempts with an error."""
    reason = copy.error.message if copy.error else ""
    if copy.state is State.SUCCEEDED and copy.result and copy.result.copies:
        return msgspec.structs.replace(one, state="stored", snapshot=copy.result.copies[0].copy, reason="")
    if copy.state in FINAL:
        return msgspec.structs.replace(one, state="failed", reason=reason or f"job {copy.id} is {copy.state}")
    state = "behind" if is_behind(copy, limit) else "waiting"
    return msgspec.structs.replace(one, state=state, reason=reason or one.reason)


def is_behind(copy: JobRecord, limit: int) -> bool:
    """Whether so many attempts to follow a backup have failed that it no longer counts on it."""
    return bool(copy.follows) and failures(copy.attempts, place_of(copy).target) >= limit


def have_it(stored: Sequence[StoredAt]) -> int:
    """How many targets have it."""
    return sum(one.state == "stored" for one in stored)


def may_reach(stored: Sequence[StoredAt], quorum: int) -> bool:
    """Whether so many targets have it, or may have it soon."""
    return sum(one.state in ("stored", "waiting") for one in stored) >= quorum


def missed(record: JobRecord, stored: Sequence[StoredAt]) -> ErrorInfo:
    """Too few have it: which, and why not the others."""
    names = ", ".join(one.target for one in stored if one.state == "stored") or "no target"
    verb = "has" if have_it(stored) <= 1 else "have"
    why = "; ".join(f"{one.target}: {one.reason or one.state}" for one in stored if one.state != "stored")
    asked = f"{quorum_of(record.command)} of {len(stored)} were asked for"
    return ErrorInfo.of(QuorumMissed(f"{names} {verb} the backup, and {asked}; {why}"))
