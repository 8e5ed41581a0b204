"""What is known of the health of repositories, as it stands on the bus and in the jobs bucket: JSON, with a version."""

from __future__ import annotations

from typing import Literal

import msgspec

from snappy.jobs.command import VERSION

CONDITIONS = ("damaged", "sound")


class RepositoryState(msgspec.Struct, frozen=True, kw_only=True):
    """What checks, and drills, found of the repository that a target keeps. Times are Unix seconds.

    What a check read is its ``portion``: ``all``, a share (``2/7``), a part at random (``10%``), or nothing but the
    structure (an empty text).
    """

    target: str
    repository: str = ""
    state: Literal["unknown", "sound", "damaged"] = "unknown"
    """``damaged`` until for each portion with damage a check that reads it, or all, finds none."""
    since: float = 0.0
    job: str = ""
    """The check that changed the state, or the check or drill that found damage last."""
    damage: dict[str, str] = {}
    """By portion the newest check that found damage in it; a drill is one of a part at random."""
    shares: dict[str, list[float]] = {}
    """By their number (``7``), when each share was last read; 0: never."""
    v: int = VERSION


class RepositoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.repository.<condition>.<target>``."""

    id: str
    source: str
    type: str
    subject: str
    """The target."""
    time: str
    data: RepositoryState
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
