"""What is asked of the audit, and what it answers: JSON, one struct each, with a version ``v``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from snappy.jobs.command import VERSION


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which entries: each field that is set narrows."""

    job: str = ""
    submitter: str = ""
    kind: str = ""
    """backup, restore, ..., schedule, security; or ``alarm``."""
    since: float = 0.0
    """Unix seconds, as the events' stream counts them; the first moment."""
    until: float = 0.0
    """Unix seconds; the first moment that is too late. 0: none is."""
    v: int = VERSION


class AuditQuery(AuditFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest entries that match."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AuditExportRequest(AuditFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The oldest entries that match, from the number ``first`` on, as many as one message holds."""

    first: Annotated[int, Meta(ge=1)] = 1


class AuditExtract(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an export: ``lines`` of JSON. ``following`` is where the next part begins; 0: this was the last."""

    lines: list[str] = []
    following: int = 0


class AuditVerifyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = VERSION


class AuditState(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of the whole audit log found. ``head`` is the newest entry's hash: keep it elsewhere, and a log
    that was cut short is found. ``fault`` is empty if the chain holds."""

    entries: int
    segments: int
    head: str
    fault: str = ""
    alarms: int = 0
    """Entries that tell of events that are missing, or of a NATS server that came back with less than it had."""
    alarm: str = ""
    """The newest of them."""


class RecallRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Asked by a core: how far the log is, and with ``records`` what it knows of jobs that are not over, of ``jobs``,
    of schedules and of sources, a part at a time: keys ``after`` the last one of the part before."""

    records: bool = False
    jobs: Annotated[list[str], Meta(max_length=1000)] = []
    after: str = ""
    v: int = VERSION


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """``epoch``: how often the stream of events began anew, from 1. ``sequence`` and ``event``: where the newest event
    stood in it, and its id; ``record``: the job's record that it carried, if it was a job's. ``kept`` maps keys of the
    jobs bucket to the newest records, schedules and sources; ``more``: there are others after them."""

    epoch: int
    sequence: int = 0
    event: str = ""
    record: dict[str, Any] = {}
    kept: dict[str, dict[str, Any]] = {}
    more: bool = False


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """The NATS server came back with less than the audit remembers: the newest event's sequence as ``remembered``,
    and what the stream ended with. What was put back: how many jobs and schedules."""

    reason: str
    remembered: int
    found: int
    jobs: int
    schedules: int


class LossEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.server.lost-state.<id>``."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: Loss
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
