"""The client's own consumer of events: what happens while it is away waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Literal

import msgspec
from nats.aio.msg import Msg

from snappy.bus.connection import Bus
from snappy.bus.pulling import AT_ONCE_AGAIN, Puller, again_soon
from snappy.decoding import converted
from snappy.errors import BusUnavailable, InternalError
from snappy.frontend.hearing import decoded
from snappy.jobs import verbs
from snappy.jobs.api_words import (
    Reply,
    SubscribeRequest,
    Subscription,
    SubscriptionRequest,
    UnsubscribeRequest,
)
from snappy.jobs.verbs import Verb

Ask = Callable[[Verb, msgspec.Struct], Awaitable[Reply]]
Document = dict[str, Any]

AT_ONCE = 64
"""Events that are asked for with one request."""
DRY_SECONDS = 0.5
"""Who reads what waits, and no more, asks after so long a silence whether that was all."""
LOOK_SECONDS = 10.0
"""Who reads for ever asks after so long a silence whether it is still subscribed."""


class Subscriptions:
    """A caller has one; the NATS server removes it when nobody read from it for 30 days."""

    def __init__(self, bus: Bus, ask: Ask) -> None:
        self._bus = bus
        self._ask = ask

    async def add(
        self, kind: str = "*", event: str = "*", job: str = "*", *, start: Literal["now", "oldest"] = "now"
    ) -> Subscription:
        """Have events of a kind (``backup``, ...) kept until they are read; ``*`` stands for any. Harmless when
        repeated. Raises InvalidCommand if this caller has one for other events."""
        fields = {"kind": kind, "event": event, "job": job, "start": start}
        return _subscription(await self._ask(verbs.EVENTS_SUBSCRIBE, converted(fields, SubscribeRequest)))

    async def get(self) -> Subscription:
        """What this caller is subscribed to, and how much of it is unread. Raises SubscriptionNotFound."""
        return _subscription(await self._ask(verbs.EVENTS_SUBSCRIPTION, SubscriptionRequest()))

    async def remove(self) -> Subscription:
        """Give it up, and what was not read."""
        return _subscription(await self._ask(verbs.EVENTS_UNSUBSCRIBE, UnsubscribeRequest()))

    async def events(
        self, subscription: Subscription, *, limit: int = 0, wait: bool = True
    ) -> AsyncGenerator[Document, None]:
        """The events, the oldest first: ``limit`` of them, or without ``wait`` until none is unread, else for ever.

        One counts as read when the next is asked for. One that was not comes again, at once if this ends in good
        order, else after half a minute, so that each is seen at least once. Raises SubscriptionNotFound when the
        subscription is given up meanwhile.
        """
        count = 0
        async with aclosing(self._messages(subscription, min(limit or AT_ONCE, AT_ONCE), wait)) as messages:
            async for message in messages:
                yield decoded(message)
                await message.ack()
                if (count := count + 1) == limit:
                    return

    async def _messages(self, subscription: Subscription, at_once: int, wait: bool) -> AsyncGenerator[Msg, None]:
        """Those that are not acknowledged in the end are delivered again at once."""
        puller = Puller(self._bus, subscription.stream, subscription.durable, batch=at_once)
        batch: list[Msg] = []
        try:
            async with aclosing(self._batches(puller, wait)) as batches:
                async for batch in batches:
                    for message in batch:
                        yield message
        finally:  # when nothing is asked for any more: it would be delivered to this one
            for message in batch:
                await again_soon(message, AT_ONCE_AGAIN)

    async def _batches(self, puller: Puller, wait: bool) -> AsyncGenerator[list[Msg], None]:
        async with aclosing(puller.batches()) as batches:
            while True:
                async with _task(anext(batches)) as coming:
                    while not (await asyncio.wait({coming}, timeout=LOOK_SECONDS if wait else DRY_SECONDS))[0]:
                        if await self._is_dry(wait) and not coming.done():
                            return
                yield coming.result()

    async def _is_dry(self, wait: bool) -> bool:
        """Whether all is read; never for who waits for more, and through an outage."""
        if not wait:
            return not (await self.get()).unread
        with suppress(BusUnavailable):
            await self.get()
        return False


@asynccontextmanager
async def _task(work: Awaitable[list[Msg]]) -> AsyncIterator[asyncio.Future[list[Msg]]]:
    """``work`` as a task that ends with the context."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


def _subscription(reply: Reply) -> Subscription:
    if reply.subscription is None:
        raise InternalError("the core's answer does not hold what was asked for")
    return reply.subscription
