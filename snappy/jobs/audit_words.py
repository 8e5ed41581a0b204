"""What is asked of the audit, and what it answers: JSON, one struct each, with a version ``v``."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from snappy.jobs.kinds import VERSION


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
