"""The right to read a target without a job there, kept fresh: of the other target, while a copy is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from snappy import log
from snappy.errors import AccessDenied, BusError, SnappyError
from snappy.jobs.messages import HoldAnswer
from snappy.sources.permit import Permit

RENEWALS = 3
"""How often it is renewed before it would run out."""
RETRY_SECONDS = 1.0

AskRead = Callable[[str], Awaitable[HoldAnswer]]

_log = log.get(__name__)


class ReadPermit(Permit):
    """To read ``target`` for as long as ``hold``, that of the job, has not ended."""

    def __init__(self, target: str, ask_read: AskRead, hold: Permit) -> None:
        super().__init__()
        self._target, self._ask_read, self._hold = target, ask_read, hold

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]:
        raise AccessDenied("who only reads leaves no lock")

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renewed meanwhile; work waits for the first grant."""
        forget = self._hold.watch(lambda _: self._end_with_hold())
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            forget()
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def _end_with_hold(self) -> None:
        if self._hold.ended:
            self.end(self._hold.ended)

    async def _keep(self) -> None:
        while self.ended is None:
            wait = await self._renew()
            await asyncio.sleep(wait)

    async def _renew(self) -> float:
        """Seconds until it is time again."""
        asked = self._clock()
        try:
            answer = await self._ask_read(self._target)
        except BusError as error:
            _log.warning("the right to read was not renewed", target=self._target, reason=str(error))
            return RETRY_SECONDS
        except SnappyError as error:
            self.end(error)
            return 0.0
        seconds = answer.deadline - answer.clock
        self.extend(answer.grant, asked + seconds)
        return seconds / RENEWALS
