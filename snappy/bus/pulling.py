"""Pulls messages from a durable consumer, and stays at it: over restarts, lost requests and consumers made anew.

nats-py's own ``fetch`` waits out its whole timeout when a server restarts and hides some answers; here each request
has its own inbox and its own end. See the NATS documentation, "JetStream wire API reference", consumer next.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from snappy import log
from snappy.bus import jitter
from snappy.bus.connection import Bus
from snappy.bus.watchdog import ping
from snappy.errors import SnappyError

_log = log.get(__name__)

GRACE_SECONDS = 1.0
LOOK_SECONDS = 0.5
AT_ONCE_AGAIN = 0.001
"""Seconds until a message that was delivered and not handled may be delivered to the next reader."""
NOTHING_CAME = {"408", "404"}
"""Answers that only say that nothing came in time."""


async def _nothing() -> None:
    return None


class Puller:
    """Batches from the consumer ``durable`` of ``stream``.

    ``repair`` is awaited when the consumer or its stream does not answer or is gone: it may make it anew. ``expires``
    is how many seconds one request may wait at the server.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        durable: str,
        *,
        batch: int = 64,
        expires: float = 5.0,
        repair: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._batch = batch
        self._expires = expires
        self._repair = repair
        self._trouble = 0

    async def batches(self) -> AsyncGenerator[list[Msg], None]:
        """For ever: what came, as soon as it came, between one message and ``batch`` of them. None is acknowledged.

        When this is closed nothing is asked for any more, and what came and was not given is to come again at once.
        """
        while True:
            try:
                async with aclosing(self._one_request()) as batches:
                    async for batch in batches:
                        self._trouble = 0
                        yield batch
            except (SnappyError, NatsError, OSError) as error:
                await self._recover(str(error) or type(error).__name__)

    async def _one_request(self) -> AsyncGenerator[list[Msg], None]:
        """Only over a connection that is up: nats-py keeps a request for when it is back, and never takes back the
        subscription that goes with it, so that the server would deliver to where nobody listens any more."""
        await self._bus.wait_up(self._expires)
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._bus.nc.new_inbox()
        subscription = await self._bus.nc.subscribe(inbox, cb=arrived.put)
        try:
            await self._bus.nc.publish(self._subject, self._body(), reply=inbox)
            async with aclosing(self._collect(arrived)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            await self._stop(subscription, arrived)

    async def _stop(self, subscription: Subscription, arrived: asyncio.Queue[Msg]) -> None:
        """First no more is to come, or what is given back would come to where nobody listens any more."""
        ending = asyncio.create_task(self._listen_no_more(subscription))
        try:
            await asyncio.wait({ending}, timeout=GRACE_SECONDS)
        finally:
            ending.cancel()
            while not arrived.empty():
                if not _status(message := arrived.get_nowait()):
                    await again_soon(message, AT_ONCE_AGAIN)

    async def _listen_no_more(self, subscription: Subscription) -> None:
        """A task of its own: nats-py waits with ``asyncio.wait_for``, which in Python 3.11 loses a cancellation that
        comes together with what it waits for (python/cpython#86296), and then the puller would go on for ever."""
        with suppress(NatsError, OSError, TimeoutError):
            if self._bus.nc.is_connected:
                await subscription.drain()  # type: ignore[no-untyped-call]
            else:
                await subscription.unsubscribe()

    async def _collect(self, arrived: asyncio.Queue[Msg]) -> AsyncGenerator[list[Msg], None]:
        """Until the request is filled, or the server says that it is over, or nothing more can come."""
        missing = self._batch
        connection = self._bus.nc.stats["reconnects"]
        end = asyncio.get_running_loop().time() + self._expires + GRACE_SECONDS
        while missing and asyncio.get_running_loop().time() < end and self._bus.nc.stats["reconnects"] == connection:
            found = await _arrivals(arrived)
            messages = [message for message in found if not _status(message)]
            missing -= len(messages)
            if messages:
                yield messages
            for status in filter(None, map(_status, found)):
                await self._end(status)
                return
        if missing and (late := await self._late(arrived)):
            yield late

    async def _late(self, arrived: asyncio.Queue[Msg]) -> list[Msg]:
        """What was on its way when the time was over. A process that was stopped meets messages after timers."""
        await ping(self._bus.nc, GRACE_SECONDS)
        return [message for message in await _arrivals(arrived) if not _status(message)]

    async def _end(self, status: str) -> None:
        if status not in NOTHING_CAME:
            await self._recover(status)

    async def _recover(self, reason: str) -> None:
        """Wait a little (longer each time, 2 seconds at most), then have the consumer looked after."""
        self._trouble += 1
        _log.debug("pulling again", subject=self._subject, reason=reason)
        await asyncio.sleep(jitter.between(0.5, 1.0) * min(2.0, 0.1 * 2 ** min(self._trouble, 8)))
        try:
            await self._repair()
        except (SnappyError, NatsError, OSError, TimeoutError) as error:
            _log.warning("a consumer cannot be looked after", subject=self._subject, error=str(error))

    def _body(self) -> bytes:
        return json.dumps({"batch": self._batch, "expires": int(self._expires * 1e9)}).encode()


async def _arrivals(arrived: asyncio.Queue[Msg]) -> list[Msg]:
    """All that came, waiting a little if nothing did: a request that the server forgot in a restart is not answered."""
    found: list[Msg] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            found.append(await arrived.get())
    while not arrived.empty():
        found.append(arrived.get_nowait())
    return found


def _status(message: Msg) -> str:
    """The status code of a message that is no message of the stream; else empty."""
    return (message.headers or {}).get("Status", "") if not message.data else ""


@asynccontextmanager
async def in_progress(messages: list[Msg], every: float) -> AsyncIterator[None]:
    """Tell the server, each ``every`` seconds of the context, that those not yet acknowledged are being handled."""

    async def tell() -> None:
        while True:
            await asyncio.sleep(every)
            for message in messages:
                if not message.is_acked:
                    with suppress(NatsError, OSError):
                        await message.in_progress()

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def again_soon(message: Msg, seconds: float = 1.0) -> None:
    """Have a message delivered again, sooner than its wait for an acknowledgement would."""
    if not message.is_acked:
        with suppress(NatsError, OSError):
            await message.nak(delay=seconds)
