"""A caller's own consumer of events: on a server with the deployed roles, and on one that lets everybody in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.errors import BusDenied, InvalidCommand, SubscriptionNotFound
from snappy.frontend import subscriptions
from snappy.frontend.api import Client
from snappy.jobs.api_words import Subscription
from snappy.jobs.core import Core
from tests.support.jobs import SETTINGS, SIGNING_KEY
from tests.support.roles import Ground, standing


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    """The server with its roles, and a core."""
    async with standing(tmp_path) as made:
        running = asyncio.create_task((core := Core(made.core, SETTINGS, SIGNING_KEY)).run())
        async with asyncio.timeout(10):
            await core.ready.wait()
        yield made
        running.cancel()
        await asyncio.wait({running})


async def tell(ground: Ground, subject: str, number: int) -> None:
    await ground.core.store(subject, b'{"n":%d}' % number)


async def read(client: Client, subscription: Subscription, count: int = 0) -> list[Any]:
    """So many, or all that are unread."""
    async with (
        asyncio.timeout(10),
        aclosing(client.subscriptions.events(subscription, limit=count, wait=bool(count))) as events,
    ):
        return [event["n"] async for event in events]


@pytest.mark.parametrize("user", ["watcher", "alice"])
async def test_what_happened_meanwhile_waits(ground: Ground, user: str) -> None:
    client = Client(ground[user])
    await tell(ground, "snappy.event.backup.succeeded.j0", 0)
    subscription = await client.subscriptions.add("backup", "succeeded")
    for number in range(1, 5):
        await tell(ground, "snappy.event.backup.succeeded.j1", number)
        await tell(ground, "snappy.event.backup.failed.j2", 100 + number)
    assert await read(client, await client.subscriptions.add("backup", "succeeded"), 3) == [1, 2, 3]
    assert subscription == await client.subscriptions.add("backup", "succeeded")


async def test_from_the_oldest_and_anew(ground: Ground) -> None:
    client = Client(ground["watcher"])
    for number in range(3):
        await tell(ground, "snappy.event.backup.failed.j1", number)
    for _ in range(2):
        assert await read(client, await client.subscriptions.add(start="oldest"), 2) == [0, 1]
        await client.subscriptions.remove()
    await client.subscriptions.remove()


async def test_one_a_caller(ground: Ground) -> None:
    client = Client(ground["watcher"])
    await client.subscriptions.add("backup")
    with pytest.raises(InvalidCommand, match="other events"):
        await client.subscriptions.add("restore")
    await client.subscriptions.remove()
    await client.subscriptions.add("restore")


async def test_what_is_unread_is_counted_and_read_to_its_end(ground: Ground) -> None:
    client = Client(ground["watcher"])
    await client.subscriptions.add("backup")
    for number in range(200):
        await tell(ground, "snappy.event.backup.failed.j1", number)
    mine = await client.subscriptions.get()
    assert (mine.filter, mine.unread) == ("snappy.event.backup.*.*", 200)
    assert await read(client, mine) == [*range(200)]
    assert (await client.subscriptions.get()).unread == 0
    assert await read(client, mine) == []


async def test_what_was_not_read_comes_again_at_once(ground: Ground) -> None:
    client = Client(ground["watcher"])
    mine = await client.subscriptions.add()
    for number in range(9):
        await tell(ground, "snappy.event.backup.failed.j1", number)
    async with aclosing(client.subscriptions.events(mine)) as events:
        assert [(await anext(events))["n"] for _ in range(3)] == [0, 1, 2]
    assert sorted(await read(client, mine, 3) + await read(client, mine)) == [*range(2, 9)]


async def test_who_is_not_subscribed_any_more_is_told(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "LOOK_SECONDS", 0.1)
    client = Client(ground["watcher"])
    mine = await client.subscriptions.add()
    events = client.subscriptions.events(mine)
    waiting = asyncio.create_task(anext(events))
    await client.subscriptions.remove()
    async with asyncio.timeout(10):
        for asking in (waiting, client.subscriptions.get()):
            with pytest.raises(SubscriptionNotFound, match="watcher is not subscribed"):
                await asking


async def test_who_listens_hears_what_was_meant(ground: Ground) -> None:
    async with Client(ground["watcher"]).live("backup", "failed") as events:
        for number, event in enumerate(("succeeded", "failed", "failed")):
            await tell(ground, f"snappy.event.backup.{event}.j1", number)
        async with asyncio.timeout(10):
            assert [(await anext(events))["n"] for _ in range(2)] == [1, 2]


async def test_nobody_pulls_from_anothers(ground: Ground) -> None:
    for user in ("alice", "watcher"):
        await Client(ground[user]).subscriptions.add()
    await tell(ground, "snappy.event.backup.failed.j1", 1)
    stream = ground.subjects.events_stream
    for user, durable in (("alice", "observer-watcher"), ("watcher", "observer-alice"), ("watcher", "snappy_audit")):
        for subject in (f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}", f"$JS.ACK.{stream}.{durable}.1.1.1.1.1"):
            assert await denied(ground[user], subject)
    for service in ("site1", "vault"):
        assert await denied(ground[service], f"$JS.API.CONSUMER.MSG.NEXT.{stream}.observer-alice")
        for verb in ("subscribe", "subscription"):
            assert await denied(ground[service], f"snappy.api.events.{verb}.{service}")


async def denied(bus: Bus, subject: str) -> bool:
    try:
        await bus.request(subject, b"{}", timeout=5)
    except BusDenied:
        return True
    return False


async def test_it_goes_when_nobody_reads(ground: Ground) -> None:
    await Client(ground["watcher"]).subscriptions.add()
    info = await ground.core.js.consumer_info(ground.subjects.events_stream, "observer-watcher")
    assert info.config.inactive_threshold == streams.OBSERVER_IDLE_SECONDS
