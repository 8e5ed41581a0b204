"""What the audit log remembers of jobs and schedules: events carry whole records, so that the newest tell the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from snappy.decoding import converted
from snappy.jobs.auditlog import AuditLog
from snappy.jobs.messages import JobRecord
from snappy.jobs.protection import KINDS, Protections, merged, note
from snappy.jobs.protection_words import Protection
from snappy.jobs.states import FINAL

Kept = dict[str, dict[str, Any]]

LOST = "io.snappy.server.lost-state"
_SCHEDULE = "io.snappy.schedule."
_SOURCE = "io.snappy.source."


def recollected(log: AuditLog, wanted: frozenset[str]) -> Kept:
    """The newest record of each job that is not over, and of each one ``wanted``; the schedules that there are; what is
    known of sources. The keys are those of the jobs bucket."""
    found: Kept = {}
    sources: Protections = {}
    for entry in log.oldest_first():
        event = entry.get("event") or {}
        data = event.get("data") or {}
        if "event_number" in data:
            _note_job(found, data, wanted, late="late" in entry)
            _note_sources(sources, data)
        elif str(event.get("type", "")).startswith(_SCHEDULE):
            _note_schedule(found, event)
        elif str(event.get("type", "")).startswith(_SOURCE):
            told = converted(data, Protection)
            sources[told.id] = replace(merged(told, sources.get(told.id, told)), told=True)
    return found | {f"protection.{name}": to_builtins(source) for name, source in sources.items()}


def _note_job(found: Kept, record: dict[str, Any], wanted: frozenset[str], *, late: bool) -> None:
    """What comes late is news only if it is the end."""
    key, over = f"job.{record['id']}", record["state"] in FINAL
    known = found.get(key, {}).get("event_number", 0)
    if over and record["id"] not in wanted:
        found.pop(key, None)
    elif record["event_number"] >= known and (over or not late):
        found[key] = record


def _note_sources(sources: Protections, record: dict[str, Any]) -> None:
    if record["kind"] in KINDS and record["state"] in FINAL:
        note(sources, converted(record, JobRecord))


def _note_schedule(found: Kept, event: Mapping[str, Any]) -> None:
    key = f"schedule.{event['subject']}"
    if event["type"] == _SCHEDULE + "removed":
        found.pop(key, None)
    else:
        found[key] = event["data"]
