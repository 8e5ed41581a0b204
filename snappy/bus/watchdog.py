"""Watches one nats-py connection: its loops can die while it says that it is connected.

nats-py's own ``rtt`` and ``flush`` cannot be used for that (2.16): each cancels its future when it times out, and the
late PONG then ends the read loop; and each sends its PING ahead of what waits to be sent, so that the PONG says nothing
about that. The ping here is left to be answered late, and waits its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any

from nats.aio.client import PING_PROTO, Client

from snappy import log

_log = log.get(__name__)


def that_cannot_raise(callback: Callable[..., Awaitable[None]]) -> Callable[..., Coroutine[Any, Any, None]]:
    """A callback that raises would end nats-py's loops while it goes on saying that it is connected."""

    async def guarded(*arguments: Any) -> None:
        try:
            await callback(*arguments)
        except Exception:
            _log.exception("a callback of the NATS connection failed")

    return guarded


async def ping(nc: Client, timeout: float) -> bool:
    """Whether the server answered in ``timeout`` seconds. All that was sent before has then been processed by it."""
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    nc._pongs.append(answered)
    try:
        await nc._send_command(PING_PROTO)
        await nc._flush_pending()
    except (OSError, RuntimeError):
        return False
    done, _ = await asyncio.wait({answered}, timeout=timeout)
    return bool(done) and not answered.cancelled()


class Watchdog:
    """Looks every ``interval`` seconds; forces a reconnect when the connection is dead, closes it when even that is.

    ``seen`` is to be called at each sign of life of the reconnection.
    """

    def __init__(
        self,
        nc: Client,
        *,
        interval: float = 10.0,
        patience: float = 5.0,
        misses: int = 3,
        stuck_after: float = 60.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._nc = nc
        self._interval = interval
        self._patience = patience
        self._misses_allowed = misses
        self._missed = 0
        self._stuck_after = stuck_after
        self._clock = clock
        self._last_seen = clock()

    def seen(self) -> None:
        self._last_seen = self._clock()

    async def run(self) -> None:
        while not self._nc.is_closed:
            await asyncio.sleep(self._interval)
            await self.look()

    async def look(self) -> None:
        """One look; public for those who bring their own clock."""
        if self._nc.is_connected:
            await self._look_at_connection()
        elif self._nc.is_reconnecting and self._clock() - self._last_seen > self._stuck_after:
            _log.error("the reconnection to NATS is stuck; closing")
            await self._nc.close()

    async def _look_at_connection(self) -> None:
        self.seen()
        if self._loops_are_dead():
            _log.error("a loop of the NATS client died; reconnecting")
            await self._nc.force_reconnect()
        elif await ping(self._nc, self._patience):
            self._missed = 0
        else:
            await self._miss()

    async def _miss(self) -> None:
        self._missed += 1
        if self._missed >= self._misses_allowed:
            _log.warning("NATS does not answer; reconnecting", pings=self._missed)
            self._missed = 0
            await self._nc.force_reconnect()

    def _loops_are_dead(self) -> bool:
        loops = (self._nc._reading_task, self._nc._flusher_task, self._nc._ping_interval_task)
        return any(loop is None or loop.done() for loop in loops)
