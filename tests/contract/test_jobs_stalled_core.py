"""A core that was stopped for longer than a hold reads the renewals that came meanwhile before it judges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from snappy.frontend.api import Client
from snappy.jobs import sweep
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, Clock, Stack, jetstream_server

HOLD_SECONDS = 1.5


class RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


@pytest.fixture
def server_url(tmp_path: Path) -> Iterator[str]:
    with jetstream_server(tmp_path) as server:
        yield server.url


async def test_a_core_that_was_stopped_does_not_judge_at_once(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "RETURN_SECONDS", HOLD_SECONDS)
    stack = Stack(server_url, RealClock())
    await stack.start_core(msgspec.structs.replace(SETTINGS, hold_seconds=HOLD_SECONDS), sweep_seconds=0.2)
    await stack.target()
    site = await stack.worker()
    job = await Client(await stack.bus("alice")).submit("backup", BACKUP)
    held = await site.claimed()
    for _ in range(4):
        await asyncio.sleep(HOLD_SECONDS / 2)  # for so long that the core may judge
        assert (await site.renew(held)).error is None
    time.sleep(HOLD_SECONDS * 2)  # stops the core, which is in this process
    await asyncio.sleep(0.4)
    assert (await stack.record(job.id)).state is State.RUNNING
    assert (await site.renew(held)).error is None
    await stack.until(job.id, State.RETRYING)
    await stack.close()
