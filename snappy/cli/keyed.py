"""How a repository's keys are told, and what was done to them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from snappy.cli import output

if TYPE_CHECKING:
    from snappy.jobs.result_words import KeyRow, Keys


def told(done: Keys) -> str:
    """What was done, in a line."""
    words = []
    if done.added:
        words.append(f"added the key {done.added[:8]}")
    if done.removed:
        words.append(f"removed the key {done.removed[:8]}")
    return f"{' and '.join(words)}; keys now: {done.count}"


def table(done: Keys) -> str:
    """The keys, a line each; a star marks the one that opened the repository."""
    rows = [[f"{'*' if key.current else ' '}{key.id[:8]}", key.user, key.host, _created(key)] for key in done.keys]
    shown = output.table((" ID", "USER", "HOST", "CREATED"), rows)
    rest = done.count - len(done.keys)
    return f"{shown}\nand {rest} more" if rest else shown


def as_restic(done: Keys) -> list[dict[str, Any]]:
    """What ``restic key list --json`` prints."""
    return [
        {
            "current": key.current,
            "id": key.id,
            "userName": key.user,
            "hostName": key.host,
            "created": _created(key),
        }
        for key in done.keys
    ]


def _created(key: KeyRow) -> str:
    """In the local time zone; as it is where it is no time."""
    try:
        return datetime.fromisoformat(key.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return key.created
