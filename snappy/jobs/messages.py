"""Every message about a job but the commands (:mod:`snappy.jobs.kinds`), as it stands on the bus: JSON, one struct
each, with a version ``v``.

What a stranger sends (commands, API requests) refuses unknown fields, so that a typing error is answered; what
services tell one another does not, so that neighbours one version apart work together. ``schemas/`` is made from this
module.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from snappy.error_codes import from_code
from snappy.errors import Garbled, SnappyError
from snappy.jobs.command import VERSION
from snappy.jobs.kinds import read
from snappy.jobs.place_words import StoredAt, TargetKey
from snappy.jobs.result_words import Keys, Pruned, Repaired, SnapshotCopy, SnapshotGroup
from snappy.jobs.states import State

Answer = TypeVar("Answer")


def read_answer(body: bytes, schema: type[Answer]) -> Answer:
    """What a service answered. Raises Garbled where that makes no sense."""
    try:
        return read(body, schema)
    except msgspec.DecodeError as error:
        raise Garbled(f"an answer cannot be read: {error}") from error


# ---- the record --------------------------------------------------------------------------------------------------


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Why something did not succeed."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False

    @classmethod
    def of(cls, error: SnappyError) -> ErrorInfo:
        return cls(code=error.code, message=error.message, hint=error.hint, retryable=error.retryable)

    def to_error(self) -> SnappyError:
        return from_code(self.code, self.message, self.hint)


class Warn(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was skipped or could not be kept; the job went on."""

    path: str
    message: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. No path: names are sealed in the repository."""

    kind: str
    damage: bool
    """Rather than a hint; damage ends the check as failed."""
    object: Literal["config", "key", "snapshot", "index", "pack", "blob", "tree"]
    id: str
    """The object's, 64 hexadecimal digits; of the configuration ``config``."""
    message: str
    remedy: str


class Drilled(msgspec.Struct, frozen=True, kw_only=True):
    """How a drill went. The result's ``files``, ``directories`` and ``bytes_processed`` are what was proven. Durations
    are seconds."""

    sample: str = ""
    """As it was asked for; empty: all there is."""
    seed: int = 0
    """Of the sample."""
    recovery: float = 0.0
    """What it took until all was in its place, from the opening of the repository on: the measured recovery time."""
    first_byte: float = 0.0
    """What it took until the first content was in its place; 0: there was none."""
    proof: float = 0.0
    """What it took to read back and compare all that was restored."""
    program: str = ""
    """What was run on it, and how long that took."""
    program_seconds: float = 0.0
    faults: list[Warn] = []
    """Objects that cannot be restored, or came back as others, the first hundred, and why: with the blob and the pack,
    where these are to blame."""
    fault_count: int = 0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a job that succeeded did; of a check or a drill also where it failed. Sizes are bytes, durations seconds."""

    snapshot: str = ""
    host: str = ""
    """Of the snapshot that was made, or drilled; so for its ``paths``, and its ``time`` in Unix seconds."""
    paths: list[str] = []
    time: float = 0.0
    repository: str = ""
    files: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    directories: int = 0
    bytes_processed: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    warnings: list[Warn] = []
    """The first hundred."""
    warning_count: int = 0
    snapshots: int = 0
    packs: int = 0
    packs_read: int = 0
    portion: str = ""
    """Of the packs, what a check read: ``all``, a share (``2/7``), a part at random (``10%``); empty: none."""
    findings: list[Finding] = []
    """The first hundred, damage before hints."""
    finding_count: int = 0
    drill: Drilled | None = None
    prune: Pruned | None = None
    repair: Repaired | None = None
    keys: Keys | None = None
    removed: int = 0
    """Snapshots; ``snapshots`` are left of those that were looked at."""
    kept_until: float = 0.0
    """Unix seconds until which the storage keeps what the job deleted, the longest; 0: it keeps nothing of it."""
    groups: list[SnapshotGroup] = []
    """Of the snapshots that a policy was put to, the first that fit into 128 KiB."""
    copied: int = 0
    """Snapshots, of those that a copy was asked for: ``snapshots``."""
    copies: list[SnapshotCopy] = []
    """The first hundred, new ones before others."""
    stored: list[StoredAt] = []
    """Of a backup to several targets, what became of it at each."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a job. Times are Unix seconds."""

    number: int
    service: str
    replica: str
    started: float
    ended: float | None = None
    error: ErrorInfo | None = None
    target: str = ""
    until: float = 0.0
    """When the last grant of an attempt that ended runs out."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job; a change is a new value (``msgspec.structs.replace``)."""

    id: str
    kind: str
    submitter: str
    state: State
    command: dict[str, Any] = {}
    """As given (:func:`typed_command` reads it); empty if it was no JSON object."""
    source: str = ""
    request: str | None = None
    created: float = 0.0
    updated: float = 0.0
    attempts: list[Attempt] = []
    checkpoint: dict[str, Any] | None = None
    result: Result | None = None
    error: ErrorInfo | None = None
    place: TargetKey | None = None
    """Of a backup to several targets: where its newest attempt stores it, or where its next one will."""
    follows: str = ""
    """Of a copy: the backup that it brings to another of its targets."""
    cancel: str | None = None
    """Who asked for its end."""
    ending: ErrorInfo | None = None
    """Why a rule asked for its end."""
    stop_by: float = 0.0
    """When a worker that was told to stop loses its hold, should it go on."""
    priority: int = 0
    not_before: float = 0.0
    delay: float = 0.0
    """Seconds that a job that deletes was announced before it could begin."""
    since: float = 0.0
    """From when it waited for its first attempt: the later of ``created`` and the command's ``not_before``."""
    deadline: float = 0.0
    """When it fails if it is not over; 0: never."""
    event: str = ""
    """The newest event, its number in the job (from 1), and the sequence in the events stream of the one before it:
    a core that finds the event missing publishes it."""
    event_number: int = 0
    event_after: int = 0
    v: int = VERSION


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format. ``id`` is ``<job id>/<number of the event in the job>``."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: JobRecord
    request: str | None = None
    submitter: str = ""
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running attempt is; rates are bytes a second, times seconds. Zero totals: not known yet. No path: names
    are sealed in the repository, and shall not be heard on the bus either."""

    job: str
    attempt: int
    files: int = 0
    bytes: int = 0
    files_total: int = 0
    bytes_total: int = 0
    bytes_stored: int = 0
    rate: float = 0.0
    remaining: float | None = None
    v: int = VERSION


# ---- core and workers --------------------------------------------------------------------------------------------


ALIVE_SECONDS = 20.0
"""After four heartbeats that nobody heard, a service counts as dead."""


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A service says that it lives. ``plugins`` maps a name to the JSON schemas of its options; once the core has given
    them an ``etag``, that stands for them: they are long, and a beat comes every five seconds."""

    service: str
    replica: str
    role: Literal["source", "target"]
    version: str
    plugins: dict[str, Any] = {}
    etag: str = ""
    keys: list[str] = []
    started: float = 0.0
    seen: float = 0.0
    """Filled in by the core."""
    v: int = VERSION


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs a job, in the holds bucket under the job's id. ``deadline`` (Unix seconds) is the latest expiry of
    any grant given for ``attempt``; ``over``: the core ended the attempt, and no renewal revives it."""

    attempt: int
    service: str
    replica: str
    deadline: float
    target: str = ""
    key: str = ""
    over: bool = False
    nonce: str = ""
    """Of the claim, so that a claim whose answer was lost can be asked again."""
    v: int = VERSION


class LockRef(msgspec.Struct, frozen=True, kw_only=True):
    """A lock in a repository, as a worker that can open it says: which attempt at which job wrote it.
    ``refreshed`` is Unix seconds."""

    name: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    job: str
    attempt: int
    refreshed: float


class LockRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """The core let ``attempt`` at ``job`` remove ``lock``, for a reason."""

    lock: LockRef
    reason: str
    target: str
    job: str
    attempt: int
    service: str
    replica: str


class LockEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.lock.removable.<lock>``."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: LockRemoval
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """claim, renew, release, read, beat; each reads the fields it needs. A claim repeated with the same ``nonce``
    gets the same job; ``again`` says that it is one, so that a core looks what another one granted. A renewal may ask
    for up to 16 ``locks`` that are in its way."""

    job: str = ""
    attempt: int = 0
    nonce: str = ""
    again: bool = False
    target: str = ""
    beat: Beat | None = None
    locks: list[LockRef] = []
    v: int = VERSION


class HoldAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``job`` is set by a claim that got one; ``grant`` and ``deadline`` (Unix seconds) by claim, renew and read.
    ``locks`` are the names of those asked for whose holder is gone. ``etag`` stands for the plug-ins of a beat; empty
    where the beat has to tell them."""

    clock: float
    job: JobRecord | None = None
    attempt: int = 0
    deadline: float = 0.0
    grant: str = ""
    locks: list[str] = []
    cancel: bool = False
    etag: str = ""
    error: ErrorInfo | None = None
    v: int = VERSION


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of its attempt."""

    job: str
    attempt: int
    kind: Literal["started", "checkpoint", "succeeded", "failed", "rejected", "cancelled"]
    at: float
    checkpoint: dict[str, Any] | None = None
    result: Result | None = None
    error: ErrorInfo | None = None
    v: int = VERSION


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What the core tells a source service's replicas."""

    verb: Literal["cancel", "pause", "resume", "rescan"]
    job: str = ""
    v: int = VERSION
