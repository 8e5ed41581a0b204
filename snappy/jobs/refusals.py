"""Tells of messages that broke the rules of the bus: in the log, and as an event that the audit keeps."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import BusError
from snappy.jobs.ledger import timestamp
from snappy.jobs.refusal_words import Refusal, RefusalEvent

_log = log.get(__name__)

KIND, EVENT = "security", "refused"
PAUSE_SECONDS = 1.0
SHOWN = 256


class Refusals:
    """At most one event a second, so that nobody fills the events stream by breaking rules; the rest are counted."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._last = 0.0
        self._untold = 0

    async def tell(self, message: Msg, caller: str, reason: str) -> None:
        _log.warning("a message was refused", subject=message.subject, reply=message.reply, reason=reason)
        self._untold += 1
        if self._clock() - self._last < PAUSE_SECONDS:
            return
        self._last, count, self._untold = self._clock(), self._untold, 0
        subject, reply = message.subject[:SHOWN], message.reply[:SHOWN]
        await self._publish(Refusal(subject=subject, reply=reply, caller=caller, reason=reason, count=count))

    async def _publish(self, refusal: Refusal) -> None:
        subjects, event_id = self._bus.subjects, str(uuid.uuid4())
        event = RefusalEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type=f"io.snappy.{KIND}.{EVENT}",
            subject=refusal.subject,
            time=timestamp(self._clock()),
            data=refusal,
        )
        try:
            await self._bus.store(subjects.event(KIND, EVENT, event_id), msgspec.json.encode(event))
        except BusError as error:
            _log.error("a refusal could not be told", error=str(error))
