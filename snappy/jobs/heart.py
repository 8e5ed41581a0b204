"""A service's heartbeat: it tells the core, over and over, that it lives."""

from __future__ import annotations

import asyncio

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import BusDenied, BusError
from snappy.jobs.messages import Beat, HoldAnswer, HoldRequest, read_answer

SECONDS = 5.0
RETRY_SECONDS = 0.5
ANSWER_SECONDS = 5.0

_log = log.get(__name__)


class Heart:
    """Sends ``beat`` as the service and replica that it names."""

    def __init__(self, bus: Bus, beat: Beat) -> None:
        self._bus = bus
        self._subject = bus.subjects.hold("beat", beat.service, beat.replica)
        self._beat = beat
        self._etag = ""

    async def once(self) -> None:
        """One beat. Raises BusError when no core heard it, or what the core answered."""
        if self._etag:
            self._etag = await self._ask(msgspec.structs.replace(self._beat, plugins={}, etag=self._etag))
        if not self._etag:
            self._etag = await self._ask(self._beat)

    async def _ask(self, beat: Beat) -> str:
        """The etag of its plug-ins; empty where the core, or one of an older version, does not know them by one."""
        body = await self._bus.request(
            self._subject, msgspec.json.encode(HoldRequest(beat=beat)), timeout=ANSWER_SECONDS
        )
        answer = read_answer(body, HoldAnswer)
        if answer.error:
            raise answer.error.to_error()
        return answer.etag

    async def first(self) -> None:
        """Until a core heard one: the core makes what calls for a service wait in. Raises BusDenied."""
        while True:
            try:
                return await self.once()
            except BusDenied:
                raise
            except BusError as error:
                _log.warning("waiting for a core", reason=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def keep(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await self.once()
            except BusError as error:
                _log.warning("no core heard the heartbeat", reason=error.message)
