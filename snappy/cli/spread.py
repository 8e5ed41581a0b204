"""How it is told which of several targets have a backup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snappy.jobs.place_words import StoredAt


def where(stored: Sequence[StoredAt]) -> str:
    """Which have it, and under which snapshot each."""
    return "stored at " + ", ".join(f"{one.target} ({one.snapshot[:8]})" for one in stored if one.snapshot)


def missing(stored: Sequence[StoredAt]) -> str:
    """Which do not have it, and why; empty if all do."""
    return "; ".join(_lack(one) for one in stored if one.state != "stored")


def _lack(one: StoredAt) -> str:
    fate = "does not get it" if one.state == "failed" else f"gets it later, by job {one.job}"
    return f"{one.target} {fate}: {one.reason}" if one.reason else f"{one.target} {fate}"
