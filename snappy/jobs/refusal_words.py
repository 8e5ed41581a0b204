"""How a message that broke the rules of the bus is told."""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a service dropped because it broke the rules of the bus. ``count``: so many since the last one
    that was told."""

    subject: str
    reply: str = ""
    caller: str = ""
    reason: str = ""
    count: int = 1


class RefusalEvent(msgspec.Struct, frozen=True, kw_only=True):
    """CloudEvents 1.0, JSON format; on ``snappy.event.security.refused.<id>``."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: Refusal
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
