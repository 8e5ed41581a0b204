"""The client's own consumer of events: what happens while it is away waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import msgspec
from nats.aio.msg import Msg

from snappy.bus.connection import Bus
from snappy.bus.pulling import Puller
from snappy.errors import InternalError
from snappy.jobs import verbs
from snappy.jobs.messages import Reply, SubscribeRequest, Subscription, UnsubscribeRequest
from snappy.jobs.verbs import Verb

Ask = Callable[[Verb, msgspec.Struct], Awaitable[Reply]]


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
        return _subscription(await self._ask(verbs.EVENTS_SUBSCRIBE, msgspec.convert(fields, SubscribeRequest)))

    async def remove(self) -> Subscription:
        """Give it up, and what was not read."""
        return _subscription(await self._ask(verbs.EVENTS_UNSUBSCRIBE, UnsubscribeRequest()))

    async def events(self, subscription: Subscription) -> AsyncIterator[dict[str, Any]]:
        """The events, for ever, the oldest first. One counts as read when the next is asked for; one that was not
        comes again after half a minute, so that each is seen at least once."""
        puller = Puller(self._bus, subscription.stream, subscription.durable)
        async for batch in puller.batches():
            for message in batch:
                yield _decoded(message)
                await message.ack()


def _decoded(message: Msg) -> dict[str, Any]:
    return msgspec.json.decode(message.data, type=dict[str, Any])


def _subscription(reply: Reply) -> Subscription:
    if reply.subscription is None:
        raise InternalError("the core's answer does not hold what was asked for")
    return reply.subscription
