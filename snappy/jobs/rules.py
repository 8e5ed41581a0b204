"""What a job's command says of when and how often it runs: pure functions of the record and the time.

Times are Unix seconds.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from snappy.errors import AttemptLost, DeadlinePassed, Interrupted, SnappyError, TimeLimitReached
from snappy.jobs.command import Command
from snappy.jobs.messages import Attempt, JobRecord
from snappy.jobs.states import FINAL, State

WAITING = frozenset({State.QUEUED, State.RETRYING})
LOST = frozenset({AttemptLost.code, Interrupted.code})
"""How attempts end that say nothing against the job."""
SAME = ("source", "target", "plugin", "options")
"""The fields in which twins with a plug-in agree, beside their submitter and their kind."""
HOW = frozenset(Command.__struct_fields__) - set(SAME)
"""The fields in which twins without a plug-in may differ: they say how a job is done, and not what."""


def with_rules(record: JobRecord, command: Command) -> JobRecord:
    """The record with the times and the priority that its command asks for."""
    asked = command.not_before.timestamp() if command.not_before else 0.0
    not_before = max(record.not_before, asked)
    return msgspec.structs.replace(
        record,
        priority=command.priority,
        not_before=not_before,
        since=max(record.created, not_before),
        deadline=command.deadline.timestamp() if command.deadline else 0.0,
    )


def is_late(record: JobRecord, now: float) -> bool:
    """Whether its deadline has passed."""
    return 0.0 < record.deadline <= now


def is_due(record: JobRecord, now: float) -> bool:
    """Whether it waits for a worker that may begin now."""
    return record.state in WAITING and record.not_before <= now and not is_late(record, now)


def overdue(record: JobRecord, now: float) -> SnappyError | None:
    """Why a job must be ended now, if it must."""
    if record.state in FINAL:
        return None
    if is_late(record, now):
        return DeadlinePassed()
    limit = record.command.get("time_limit")
    if record.state is State.RUNNING and limit and now > record.attempts[-1].started + limit:
        return TimeLimitReached(f"attempt {record.attempts[-1].number} took longer than {limit:g} s")
    return None


def attempt_limit(record: JobRecord, most: int) -> int:
    """How many attempts may end with an error; ``most``: the core's own limit."""
    return min(most, record.command.get("attempts") or most)


def is_lost(attempt: Attempt) -> bool:
    """Whether it ended for a reason that says nothing against the job."""
    return attempt.error is not None and attempt.error.code in LOST


def is_stopping(record: JobRecord) -> bool:
    """Whether somebody, or a rule, asked for the end of a job that a worker has."""
    return record.cancel is not None or record.ending is not None


def are_twins(one: JobRecord, other: JobRecord) -> bool:
    """Whether both do the same for the same submitter."""
    return _what(one) == _what(other)


def twin_key(record: JobRecord) -> str:
    """A name that twins share."""
    return hashlib.sha256(msgspec.json.encode(_what(record), order="deterministic")).hexdigest()


def _what(record: JobRecord) -> list[Any]:
    """What a job does, for whom."""
    command = record.command
    names = SAME if "plugin" in command else sorted(command.keys() - HOW)
    parts = command.get("sources") or []
    return [record.submitter, record.kind, *((name, command.get(name)) for name in names), *parts]
