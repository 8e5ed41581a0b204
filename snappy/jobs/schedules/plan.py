"""What a schedule means: its headers for JetStream, when it is due, and which of its times a firing stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from snappy.errors import InvalidCommand
from snappy.jobs.schedule_words import LONGEST_SECONDS, Schedule, ScheduleAddRequest
from snappy.jobs.schedules.slots import Cron, Slot, find_zone

PATTERN, TARGET, ZONE = "Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-Time-Zone"
NEXT = "Nats-Schedule-Next"
SCHEDULER = "Nats-Scheduler"
DEFINITION = "Snappy-Schedule"
"""Which definition a message belongs to."""
CLOCK_SECONDS = 1.0
"""A slot and the firing for it are told apart by no less."""
MISSED_SECONDS = 300.0
"""A run that is later than this counts as missed."""


class Firing(NamedTuple):
    """``at``: when JetStream stored the message; ``following``: when it fires again, if it said so. Unix seconds."""

    at: float
    following: float | None = None

    @classmethod
    def read(cls, at: float, headers: Mapping[str, str]) -> Firing:
        try:
            return cls(at, datetime.fromisoformat(headers.get(NEXT, "")).timestamp())
        except ValueError:  # no such header, or "purge": it was the last time
            return cls(at)


# ---- from what was asked for -----------------------------------------------------------------------------------------


def timing(request: ScheduleAddRequest, now: float) -> dict[str, str | int | float]:
    """The fields of a schedule that say when. Raises InvalidCommand for what can never run, or would always."""
    given = [name for name in ("cron", "every", "at") if getattr(request, name) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none of them"
        raise InvalidCommand(f"a schedule has one of cron, every and at, and this one has {said}", hint="")
    if request.time_zone and request.cron is None:
        raise InvalidCommand("a time zone belongs to a cron pattern", hint="an at has its offset with it")
    if request.cron is not None:
        zone = request.time_zone or "UTC"
        if Cron.parse(request.cron).next_slot(now, find_zone(zone)) is None:
            raise InvalidCommand(f"the pattern {request.cron!r} has no time in the next five years", hint="")
        return {"cron": request.cron, "time_zone": zone}
    return {"every": request.every} if request.every is not None else {"at": _moment(request.at or "", now)}


def _moment(text: str, now: float) -> float:
    hint = "RFC 3339 with an offset, for example 2027-01-01T02:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidCommand(f"{text!r} is no point in time", hint=hint) from error
    if moment.tzinfo is None:
        raise InvalidCommand(f"{text!r} does not say in which time zone", hint=hint)
    if not now < moment.timestamp() < now + LONGEST_SECONDS:
        raise InvalidCommand(f"{text} is {'past' if moment.timestamp() <= now else 'too far away'}", hint="")
    return moment.timestamp()


# ---- for JetStream ---------------------------------------------------------------------------------------------------


def headers(schedule: Schedule, target: str) -> dict[str, str]:
    """What makes a message a schedule (ADR-51 of NATS)."""
    return {**_pattern(schedule), TARGET: target, DEFINITION: schedule.id}


def headers_at(schedule: Schedule, at: float, target: str) -> dict[str, str]:
    """The same for one point in time."""
    return {PATTERN: _at(at), TARGET: target, DEFINITION: schedule.id}


def _pattern(schedule: Schedule) -> dict[str, str]:
    if schedule.cron:
        return {PATTERN: Cron.parse(schedule.cron).six_fields(), ZONE: schedule.time_zone}
    return {PATTERN: f"@every {schedule.every}s" if schedule.every else _at(schedule.at)}


def _at(at: float) -> str:
    return f"@at {datetime.fromtimestamp(at, UTC).isoformat().replace('+00:00', 'Z')}"


# ---- times -----------------------------------------------------------------------------------------------------------


def next_slot(schedule: Schedule, after: float) -> Slot | None:
    """The first time it is due later than ``after`` (Unix seconds), as far as it can be known beforehand."""
    if schedule.cron:
        return Cron.parse(schedule.cron).next_slot(after, find_zone(schedule.time_zone))
    if schedule.every:
        return _in_utc(after + schedule.every)
    return _in_utc(schedule.at) if schedule.at > after else None


def slot_of(schedule: Schedule, firing: Firing) -> Slot:
    """The time for which it fired: with several missed, the newest."""
    if schedule.cron:
        zone = find_zone(schedule.time_zone)
        return Cron.parse(schedule.cron).last_slot(firing.at + CLOCK_SECONDS, zone) or _in_utc(firing.at)
    if schedule.every:
        return _in_utc(firing.following - schedule.every if firing.following else firing.at)
    return _in_utc(schedule.at)


def needs_help(upcoming: Slot | None, following: float | None) -> bool:
    """Whether JetStream would not fire at ``upcoming``: it leaves out what a clock change skips."""
    return upcoming is not None and (upcoming.moved or upcoming.at < (following or upcoming.at) - CLOCK_SECONDS)


def is_missed(schedule: Schedule, slot: Slot, now: float) -> bool:
    """Whether a run at ``now`` would come too late for a schedule that skips what was missed."""
    if schedule.missed != "skip":
        return False
    return now - _wanted(schedule, slot) > MISSED_SECONDS


def _wanted(schedule: Schedule, slot: Slot) -> float:
    """When the run should have been. A server that was down fires an interval at its start: out of step, but on time
    by its own account."""
    if not schedule.every:
        return slot.at
    before = max(schedule.last_slot, schedule.since)
    out_of_step = (slot.at - before) % schedule.every
    in_step = min(out_of_step, schedule.every - out_of_step) <= 2 * CLOCK_SECONDS
    return slot.at if in_step else min(slot.at, before + schedule.every)


def jitter(schedule: Schedule) -> int:
    """Seconds that each run waits, from 0 to the schedule's jitter; always the same for one name."""
    digest = hashlib.sha256(schedule.name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % (schedule.jitter + 1)


def request_of(schedule: Schedule, slot: Slot) -> str:
    """The request id of a run: one time of one schedule is one job, however often it fires."""
    local = f"{slot.local:%Y%m%dT%H%M}" if schedule.cron else f"{slot.local:%Y%m%dT%H%M%SZ}"
    return f"{schedule.name}-{local}"


def _in_utc(at: float) -> Slot:
    return Slot(at, datetime.fromtimestamp(at, UTC).replace(tzinfo=None), moved=False)
