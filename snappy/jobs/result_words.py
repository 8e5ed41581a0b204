"""What some kinds of upkeep say of themselves in a job's result (:class:`snappy.jobs.messages.Result`)."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune planned, in the words and the shape of ``restic prune --json``, and what it deleted: nothing, in a
    dry run."""

    blobs: dict[str, int]
    bytes: dict[str, int]
    packfiles: dict[str, int]
    packs_deleted: int = 0
    bytes_deleted: int = 0


class SnapshotRow(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that a policy was put to."""

    id: str
    time: datetime
    hostname: str
    paths: list[str] | None
    tags: list[str] | None
    """Without the one that Snappy gives each snapshot for its job."""
    reasons: list[str] = []
    """Why it is kept, in restic's words; none: it is removed."""


class SnapshotGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Snapshots of one host, of the same paths, with the same tags, as far as they are grouped by these."""

    host: str
    paths: list[str] | None
    tags: list[str] | None
    snapshots: list[SnapshotRow]
    """The newest first."""


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did, or in a dry run would do, to ``index``, ``packs`` or ``snapshots``. What it found is among the
    findings, what of files and directories is lost among the warnings."""

    what: str
    dry_run: bool = False
    written: int = 0
    """New index files, packs (not known in a dry run) or snapshots."""
    removed: int = 0
    """Files of the repository that went."""


class SnapshotCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and its copy, by their ids."""

    snapshot: str
    copy: str
    is_new: bool
    """Whether the job made it; else it was there."""


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key file, by what it says in clear."""

    id: str
    user: str
    host: str
    created: str
    """RFC 3339, as its maker wrote it."""
    current: bool
    """It opens the repository for the key that the job named."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What a job of the kind ``key`` did, by ids, and which keys the repository has then."""

    added: str = ""
    removed: str = ""
    keys: list[KeyRow]
    """The first hundred, by id."""
    count: int
