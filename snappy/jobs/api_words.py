"""What callers ask of services, and what these answer: JSON, one struct each, with a version ``v``.

Questions refuse unknown fields, so that a typing error is answered.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snappy.jobs.audit_words import AuditExtract, AuditState, Memory
from snappy.jobs.command import VERSION, Name
from snappy.jobs.messages import Beat, ErrorInfo, JobRecord
from snappy.jobs.protection_words import Status
from snappy.jobs.repository_words import RepositoryState
from snappy.jobs.schedule_words import Schedule
from snappy.jobs.states import State

EventToken = Annotated[str, Meta(pattern=r"^(\*|[a-z0-9][a-z0-9-]{0,62})$")]


class SubmitRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    command: msgspec.Raw
    v: int = VERSION


class GetRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By ``job`` (an id) or by ``request`` (the caller's own)."""

    job: str = ""
    request: str = ""
    v: int = VERSION


class ListRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    states: list[State] = []
    kind: str = ""
    source: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    v: int = VERSION


class CancelRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    job: str
    v: int = VERSION


class SnapshotsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answered with the newest snapshots that fit into one message, the oldest of them first."""

    target: Name
    key: Name = "default"
    before: str = ""
    """The id of a snapshot: only those that stand before it are wanted."""
    v: int = VERSION


BlobHex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
BlobKind = Literal["data", "tree"]
MOST_LOCATED = 1000


class LocateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where blobs of a target's repository lie, and how large they are. Needs the right to browse."""

    target: Name
    key: Name = "default"
    kind: BlobKind
    blobs: Annotated[list[BlobHex], Meta(max_length=MOST_LOCATED)]
    v: int = VERSION


class BlobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plain bytes of a blob from ``offset`` on, as many as one message holds. Needs the right to browse."""

    target: Name
    key: Name = "default"
    kind: BlobKind
    blob: BlobHex
    offset: Annotated[int, Meta(ge=0)] = 0
    v: int = VERSION


MOST_TREES = 256


class TreesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plain bytes of trees, of as many of the first as one message holds. Needs the right to browse."""

    target: Name
    key: Name = "default"
    trees: Annotated[list[BlobHex], Meta(min_length=1, max_length=MOST_TREES)]
    v: int = VERSION


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a blob lies in a pack, in bytes; ``uncompressed_length`` is 0 for one that is not compressed."""

    pack: str
    offset: int
    length: int
    uncompressed_length: int = 0


class BlobPiece(msgspec.Struct, frozen=True, kw_only=True):
    """``data`` stands in JSON as base64; ``size`` is that of the whole blob in bytes."""

    data: bytes
    size: int


class ServicesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With ``service``, that one's alone, with the schemas of its plug-ins' options. ``after`` names a replica
    (``source.site1.1f0c22ab``): those that follow it."""

    role: Literal["", "source", "target"] = ""
    service: str = ""
    after: str = ""
    v: int = VERSION


class RepositoriesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = VERSION


class SubscribeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A durable consumer of events, one a caller; ``*`` stands for any."""

    kind: EventToken = "*"
    event: EventToken = "*"
    job: EventToken = "*"
    start: Literal["now", "oldest"] = "now"
    v: int = VERSION


class UnsubscribeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = VERSION


class SubscriptionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int = VERSION


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """Where a caller pulls its events: ``$JS.API.CONSUMER.MSG.NEXT.<stream>.<durable>``, each to be acknowledged.
    ``filter`` is the subject that they match."""

    stream: str
    durable: str
    filter: str
    unread: int | None = None
    """Events that nobody acknowledged yet; counted where a caller asks about its subscription."""
    v: int = VERSION


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer of an API endpoint: one of ``error`` or the field the endpoint fills."""

    error: ErrorInfo | None = None
    job: JobRecord | None = None
    jobs: list[JobRecord] | None = None
    schedule: Schedule | None = None
    schedules: list[Schedule] | None = None
    services: list[Beat] | None = None
    repositories: list[RepositoryState] | None = None
    status: Status | None = None
    snapshots: list[dict[str, Any]] | None = None
    places: list[Place | None] | None = None
    """In the order of the blobs asked for; null for one that is unknown."""
    piece: BlobPiece | None = None
    trees: list[bytes] | None = None
    """In the order asked for, each as base64; none where the first alone is too large for a message."""
    subscription: Subscription | None = None
    entries: list[dict[str, Any]] | None = None
    audit: AuditState | None = None
    extract: AuditExtract | None = None
    memory: Memory | None = None
    more: bool = False
    """The list was cut at the limit, or where a message ends."""
    v: int = VERSION
