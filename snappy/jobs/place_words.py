"""Where the backups of one job are kept, if at several targets."""

from __future__ import annotations

from typing import Literal

import msgspec

from snappy.jobs.command import Name


class TargetKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another target of a backup."""

    target: Name
    key: Name | None = None
    """By default the same as at the first target."""


class StoredAt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a backup at one of its targets."""

    target: str
    key: str
    state: Literal["stored", "waiting", "behind", "failed"]
    """``waiting``: it is being brought there. ``behind``: that failed as often as a job may, and is tried for longer,
    but the backup does not count on it any more. ``failed``: nobody brings it there."""
    snapshot: str = ""
    job: str = ""
    """The copy that brings it."""
    reason: str = ""
    """Why it is not there."""


UNSETTLED = frozenset({"waiting", "behind"})
"""States of which more is to be heard."""
