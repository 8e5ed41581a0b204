"""A source service falls silent amid a backup for so long that the core gives the job away: nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import raw_nats
from tests.support.places import Place, in_folder
from tests.support.site import Site, site

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return in_folder(tmp_path)


@pytest.fixture
def running(tmp_path: Path, place: Place) -> Iterator[Site]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(os.urandom(32 << 20))
    with site(tmp_path, place.target, core={"hold_seconds": 3.0}) as made:
        yield made


async def test_the_next_attempt_removes_the_lock_of_one_that_was_lost(running: Site, place: Place) -> None:
    async with backup_under_way(running) as events:
        left = await silence(running, place, events)
        record = await next_event(events, "succeeded")
    assert [attempt["number"] for attempt in record["attempts"]] == [1, 2]
    assert record["attempts"][0]["error"]["code"] == "attempt-lost"
    assert len(left) == 1
    assert place.locks() == []
    assert list(place.objects("snapshots/")) == [f"snapshots/{record['result']['snapshot']}"]


@asynccontextmanager
async def backup_under_way(running: Site) -> AsyncIterator[asyncio.Queue[raw_nats.Message]]:
    """A first backup that was just asked for, and the events to come."""
    options = {"paths": [str(running.folder / "data")]}
    body = {"source": "site1", "target": "vault", "init": True, "options": options}
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        events = await alice.subscribe("snappy.event.backup.*.*")
        await alice.request("snappy.cmd.backup.alice", json.dumps(body).encode())
        yield events


async def silence(running: Site, place: Place, events: asyncio.Queue[raw_nats.Message]) -> list[str]:
    """The source service stands still from when it holds a lock until its job is to be tried again. Its locks."""
    async with asyncio.timeout(60):
        while not place.locks():
            await asyncio.sleep(0.01)
    running.processes["site1"].send_signal(signal.SIGSTOP)
    try:
        await next_event(events, "retrying")
        return place.locks()
    finally:
        running.processes["site1"].send_signal(signal.SIGCONT)


async def next_event(events: asyncio.Queue[raw_nats.Message], name: str) -> dict[str, Any]:
    """The job's record in the next event of that name."""
    while True:
        message = await asyncio.wait_for(events.get(), 60)
        if message.subject.split(".")[3] == name:
            record: dict[str, Any] = json.loads(message.body)["data"]
            return record
