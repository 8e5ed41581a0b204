"""What every command has, whatever kind of job it asks for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from snappy.bandwidth import Timetable

VERSION = 1

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="a service, a target or a key")]
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="makes a repeat harmless")]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, with its time zone: 2027-01-01T02:00:00Z")]


class Command(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every job names: who does it, with which key, at which target. Never a URL, a password or its path."""

    source: Name
    """The source service that does the work."""
    target: Name
    """The target that keeps the repository."""
    key: Name = "default"
    """Which of the source service's repository passwords to use."""
    request: RequestId | None = None
    """The submitter's own id for this job; stands in every event."""
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0
    """A higher one overtakes what waits; who waits gains a step each time that the core's ``ageing_seconds`` pass."""
    not_before: Moment | None = None
    """No worker gets the job earlier."""
    deadline: Moment | None = None
    """If the job is not over then, it is stopped, and fails with the code ``deadline``."""
    attempts: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """How many attempts may end with an error; never more than the core's ``max_attempts``."""
    time_limit: Annotated[float, Meta(gt=0)] | None = None
    """Seconds that one attempt may take; then it is stopped, and the job fails with the code ``time-limit``."""
    duplicates: Literal["queue", "skip", "replace"] = "queue"
    """What if a twin is not over: the same kind, source, target, plug-in and options, or where there is no plug-in all
    fields of its own kind, by the same submitter. ``queue``: both run, each in its turn. ``skip``: this job is rejected
    with the code ``duplicate``. ``replace``: the twin is cancelled."""
    bandwidth: Annotated[str, Meta(max_length=512)] | None = None
    """Bytes a second at the target, in the words of rclone's --bwlimit: ``512k``, ``10M:1M`` (upload:download), or by
    the target's time of day ``08:00,512k 18:00,off``."""
    v: int = VERSION

    def __post_init__(self) -> None:
        Timetable.parse(self.bandwidth or "")
        if self.not_before and self.deadline and self.deadline <= self.not_before:
            raise ValueError("a deadline comes after not_before")
