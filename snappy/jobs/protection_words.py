"""What is known of the sources that are protected, as it stands on the bus and in the jobs bucket: JSON, with a
version ``v``. Times are Unix seconds."""

from __future__ import annotations

from typing import Literal

import msgspec

from snappy.jobs.command import VERSION

Role = Literal["source", "target"]
BackupState = Literal["fresh", "stale", "never", "unpromised"]
DrillState = Literal["proven", "stale", "unproven"]
PROMISES = ("stale", "fresh", "unproven", "proven")


class Good(msgspec.Struct, frozen=True, kw_only=True):
    """A backup, a copy of one, or a drill that succeeded."""

    job: str
    snapshot: str
    at: float
    """When the snapshot was made; of a drill, when it began."""
    seconds: float = 0.0
    """Of a drill, until all was restored."""
    files: int = 0
    bytes: int = 0
    """Of a drill, those that were proven."""
    warnings: int = 0
    sample: str = ""
    """Of a drill, how much was asked for; empty: all."""


class Mishap(msgspec.Struct, frozen=True, kw_only=True):
    """A backup or a drill that failed, or was rejected."""

    job: str
    kind: str
    at: float
    code: str
    message: str


class Protection(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one source at one target. In the jobs bucket its key is ``protection.<id>``."""

    id: str
    """Made of what a backup's command names: source service, target, host, and paths or options."""
    source: str
    target: str
    host: str = ""
    """As the newest snapshot has it; of the command as long as there is none."""
    paths: list[str] = []
    """Likewise."""
    plugin: str = "files"
    seen: float = 0.0
    """When it became known."""
    backups: list[Good] = []
    """The newest snapshots that are not known to be removed, the newest first; eight at most."""
    emptied: float = 0.0
    """When a job last removed what there was."""
    drill: Good | None = None
    """The newest one."""
    mishap: Mishap | None = None
    """The newest one."""
    drill_mishap: Mishap | None = None
    """The newest one of a drill."""
    is_stale: bool = False
    """A promise of backups is broken, as far as was told."""
    is_unproven: bool = False
    """A promise of drills is broken, as far as was told."""
    event: str = ""
    """The newest that was told, or is to be: ``stale``, ``fresh``, ``unproven`` or ``proven``."""
    event_number: int = 0
    since: float = 0.0
    """When that happened."""
    told: bool = True
    v: int = VERSION


class ProtectionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.source.<event>.<id of the source>``."""

    id: str
    source: str
    type: str
    subject: str
    """The source's id."""
    time: str
    data: Protection
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


# ---- the API -----------------------------------------------------------------------------------------------------


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: str = ""
    """The id of a source: only those that come after it are wanted."""
    v: int = VERSION


class Upcoming(msgspec.Struct, frozen=True, kw_only=True):
    """The next run that a schedule leads to."""

    schedule: str
    kind: str
    at: float


class Doing(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is not over."""

    job: str
    kind: str
    state: str
    since: float


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a source stands now."""

    known: Protection
    state: BackupState
    """Of its backups: whether the newest is younger than promised; ``never``: there is none."""
    drill_state: DrillState
    """``stale``: the newest drill is older than promised; ``unproven``: there is none."""
    is_kept: bool
    """Whether all promises hold now. One that is ``never`` backed up has as much time as is promised."""
    max_age: int = 0
    """Seconds; 0: nothing is promised."""
    max_drill_age: int = 0
    upcoming: Upcoming | None = None
    doing: list[Doing] = []


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """A service that a source needs, and of which nothing was heard lately. ``seen`` 0: never."""

    role: Role
    service: str
    seen: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What is protected, by the core's clock ``at``."""

    at: float
    sources: list[SourceStatus]
    """By their ids."""
    damaged: list[str] = []
    """Targets in whose repositories a check found damage."""
    absent: list[Absence] = []
