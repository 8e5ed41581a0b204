"""Schedules, as they stand on the bus and in the jobs bucket: JSON, one struct each, with a version ``v``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snappy.jobs.command import VERSION, RequestId

ScheduleName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="a schedule; unique on a server")]
HAPPENINGS = ("added", "replaced", "paused", "resumed", "removed", "skipped")
Missed = Literal["run-once", "skip"]
LONGEST_SECONDS = 10 * 366 * 86400
LONGEST_JITTER = 7 * 86400


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When a job is to be submitted, which, and for whom. One of ``cron``, ``every`` and ``at`` is set. Times are Unix
    seconds unless said otherwise."""

    name: str
    id: str
    """Of this definition; another one under the same name has another."""
    owner: str
    """Who added it, and for whom its jobs are submitted."""
    kind: str
    command: dict[str, Any]
    cron: str = ""
    """Minute, hour, day of month, month, day of week, by the clock of ``time_zone``."""
    time_zone: str = "UTC"
    """A name of the IANA data base."""
    every: int = 0
    """Seconds."""
    at: float = 0.0
    jitter: int = 0
    """Seconds. Each run waits a part of it, always the same for one name."""
    missed: Missed = "run-once"
    """What is done once the server is back, if runs were missed."""
    max_age: int = 0
    """Of backups and drills: the newest good one of what they are for may be so many seconds old; 0: nothing is
    promised."""
    state: Literal["active", "paused", "done"] = "active"
    """``done``: the one run of an ``at`` was."""
    created: float = 0.0
    since: float = 0.0
    """When it was added or resumed."""
    last_slot: float = 0.0
    """The newest time at which it was due, and that was dealt with."""
    last_job: str = ""
    """The newest job that it led to."""
    next_slot: float = 0.0
    """When it is due next, without jitter; 0: never."""
    v: int = VERSION


class ScheduleEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.schedule.<event>.<id>``."""

    id: str
    source: str
    type: str
    subject: str
    """The schedule's name."""
    time: str
    data: Schedule
    submitter: str = ""
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


# ---- the API -----------------------------------------------------------------------------------------------------


class ScheduleAddRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of ``cron``, ``every`` and ``at``."""

    name: ScheduleName
    kind: str
    command: msgspec.Raw
    """As it would be submitted, without ``request``: each run gets one made of the schedule's name and its time."""
    cron: Annotated[str, Meta(max_length=256)] | None = None
    """Five fields, as in crontab(5)."""
    time_zone: Annotated[str, Meta(max_length=64)] = ""
    """For ``cron``; UTC if empty."""
    every: Annotated[int, Meta(ge=1, le=LONGEST_SECONDS)] | None = None
    """Seconds."""
    at: Annotated[str, Meta(max_length=64)] | None = None
    """RFC 3339 with an offset, for example ``2027-01-01T02:00:00Z``."""
    jitter: Annotated[int, Meta(ge=0, le=LONGEST_JITTER)] = 0
    """Seconds."""
    missed: Missed = "run-once"
    max_age: Annotated[int, Meta(ge=0, le=LONGEST_SECONDS)] = 0
    """Seconds. For backups and drills: once the newest good one is older, an event tells it."""
    replace: bool = False
    """Take the place of one's own schedule of that name."""
    v: int = VERSION


class ScheduleListRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = VERSION


class ScheduleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """get, pause, resume, remove."""

    name: ScheduleName
    v: int = VERSION


class ScheduleRunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """run-now."""

    name: ScheduleName
    request: RequestId | None = None
    """The caller's own id for the job, so that a repeat is harmless."""
    v: int = VERSION
