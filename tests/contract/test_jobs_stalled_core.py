"""A core that was stopped for longer than a hold, or whose server was, reads what came meanwhile before it judges."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from snappy.errors import BusUnavailable
from snappy.frontend.api import Client
from snappy.jobs import sweep
from snappy.jobs.bucket import Bucket
from snappy.jobs.messages import HoldAnswer
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, Clock, Stack, Worker, jetstream_server
from tests.support.natsserver import NatsServer

HOLD_SECONDS = 1.5


class RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with jetstream_server(tmp_path) as running:
        yield running


@pytest.fixture
async def stack(server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.setattr(sweep, "RETURN_SECONDS", HOLD_SECONDS)
    running = Stack(server.url, RealClock())
    await running.start_core(msgspec.structs.replace(SETTINGS, hold_seconds=HOLD_SECONDS), sweep_seconds=0.2)
    await running.target()
    yield running
    await running.close()


async def held_for_long(stack: Stack) -> tuple[Worker, HoldAnswer]:
    """A hold that was renewed for so long that the core may judge."""
    site = await stack.worker()
    await Client(await stack.bus("alice")).submit("backup", BACKUP)
    held = await site.claimed()
    for _ in range(4):
        await asyncio.sleep(HOLD_SECONDS / 2)
        assert (await site.renew(held)).error is None
    return site, held


async def expect_goes_on(stack: Stack, site: Worker, held: HoldAnswer) -> None:
    """The attempt lives as long as it is renewed, and no longer."""
    assert held.job
    await asyncio.sleep(0.4)
    assert (await stack.record(held.job.id)).state is State.RUNNING
    assert (await site.renew(held)).error is None
    await stack.until(held.job.id, State.RETRYING)


async def test_a_core_that_was_stopped_does_not_judge_at_once(stack: Stack) -> None:
    site, held = await held_for_long(stack)
    time.sleep(HOLD_SECONDS * 2)  # stops the core, which is in this process
    await expect_goes_on(stack, site, held)


async def test_a_core_whose_server_was_stopped_does_not_judge_at_once(stack: Stack, server: NatsServer) -> None:
    site, held = await held_for_long(stack)
    os.kill(server.pid, signal.SIGSTOP)
    await asyncio.sleep(HOLD_SECONDS * 2)
    os.kill(server.pid, signal.SIGCONT)
    await expect_goes_on(stack, site, held)


async def test_a_core_whose_bucket_has_no_leader_does_not_judge(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies of a bucket can be read all the time; what a leader alone can do waits for the next one."""
    site, held = await held_for_long(stack)
    with monkeypatch.context() as leaderless:
        leaderless.setattr(Bucket, "get", no_leader)
        await asyncio.sleep(HOLD_SECONDS * 2)
        refused = (await site.renew(held)).error
        assert refused
        assert refused.code == BusUnavailable.code, "that there is no leader ends no attempt"
    await expect_goes_on(stack, site, held)


async def no_leader(_bucket: Bucket, _key: str) -> None:
    raise BusUnavailable("no responders")
