"""Snappy's own streams in a backup: jobs and schedules are there again on a server that never saw them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.frontend.api import Client
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, RealClock, Stack, jetstream_server
from tests.support.natsserver import NatsServer
from tests.support.plugin_jobs import Jobs

NEVER = "0 0 29 2 *"


@pytest.fixture
def new(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with jetstream_server(tmp_path_factory.mktemp("new")) as running:
        yield running


async def test_jobs_and_schedules_go_on_at_a_new_server(
    stack: Stack, alice: Client, new: NatsServer, tmp_path: Path
) -> None:
    """While the core runs; a job that ran begins again once its hold is over."""
    jobs = Jobs(tmp_path, "jetstream", {"old": {"url": stack.url}, "new": {"url": new.url}})
    site = await stack.worker()
    await stack.target()
    await alice.schedules.add("yearly", "backup", BACKUP, cron=NEVER)
    running = await alice.submit("backup", BACKUP)
    held = await site.claimed()
    assert held.job is not None
    waiting = await alice.submit("backup", BACKUP)
    names = [info.config.name for info in await stack.core.bus.js.streams_info()]
    made = await jobs.backup(server="old", streams=[name for name in names if name and stack.prefix in name.lower()])
    assert made.warnings == []
    await jobs.restore(server="new")

    again = Stack(new.url, RealClock())
    again.prefix = stack.prefix
    try:
        await again.start_core()
        there = Client(await again.bus("alice"))
        assert [found.name for found in await there.schedules.list()] == ["yearly"]
        assert await again.core.schedules.post.present() == {"yearly"}
        assert (await there.get(running.id)).state is State.RUNNING
        assert (await there.get(waiting.id)).state is State.QUEUED
        other = await again.worker()
        taken = await other.claimed()
        assert taken.job is not None
        assert taken.job.id == waiting.id
    finally:
        await again.close()
