"""What is published on a subject, from now on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy.bus.connection import Bus
from snappy.decoding import from_json


@asynccontextmanager
async def heard(bus: Bus, subject: str) -> AsyncIterator[asyncio.Queue[Msg]]:
    """The messages as they come; the subscription is known to the server before this goes on."""
    queue: asyncio.Queue[Msg] = asyncio.Queue()
    subscription = await bus.listen(subject, "", queue.put)
    try:
        yield queue
    finally:
        bus.subscriptions.remove(subscription)
        with suppress(NatsError, OSError):
            await subscription.unsubscribe()


@asynccontextmanager
async def each_heard(bus: Bus, subject: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The same for messages that are JSON objects, one by one."""
    async with heard(bus, subject) as queue:
        yield _each(queue)


async def _each(queue: asyncio.Queue[Msg]) -> AsyncIterator[dict[str, Any]]:
    while True:
        yield decoded(await queue.get())


def decoded(message: Msg) -> dict[str, Any]:
    """The JSON object that a message is."""
    return from_json(message.data, dict[str, Any])
