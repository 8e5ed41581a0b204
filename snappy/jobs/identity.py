"""Job ids: UUIDs of version 7 (RFC 9562), so that they sort by time.

A command's id is derived from the message that brought it, so that a message delivered again makes the same job again.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid

_RANDOM_BITS = 74


def new_job_id(now: float) -> str:
    """An id for a job that begins at ``now`` (Unix seconds)."""
    return _uuid7(int(now * 1000), secrets.randbits(_RANDOM_BITS))


def job_id_of(stream: str, sequence: int, stored_ns: int) -> str:
    """The id of the job in message ``sequence`` of ``stream``, stored at ``stored_ns`` (nanoseconds since 1970)."""
    digest = hashlib.sha256(f"{stream}/{sequence}/{stored_ns}".encode()).digest()
    return _uuid7(stored_ns // 1_000_000, int.from_bytes(digest, "big") % (1 << _RANDOM_BITS))


def follower_id(job: str, number: int) -> str:
    """The id of the ``number``-th job that follows ``job``, whoever makes it."""
    digest = hashlib.sha256(f"{job}/{number}".encode()).digest()
    return _uuid7(int(time_of(job) * 1000), int.from_bytes(digest, "big") % (1 << _RANDOM_BITS))


def time_of(job: str) -> float:
    """When a job of that id began, in Unix seconds."""
    return (uuid.UUID(job).int >> 80) / 1000


def _uuid7(milliseconds: int, random: int) -> str:
    value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=value))
