"""Three nats-servers that keep three copies of everything: any one of them may die at any time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError

from snappy import config
from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.bus.pulling import Puller
from snappy.errors import SnappyError
from snappy.jobs.states import FINAL
from tests.support.jobs import BACKUP, Clock, Stack, Worker
from tests.support.natscluster import Cluster, nats_cluster

JOBS = 100
KILLED_AT = 30
SETTINGS = config.Core(hold_seconds=30.0, max_lost_attempts=50, replicas=3)
FINAL_EVENTS = {"succeeded", "failed", "cancelled", "rejected"}


@pytest.fixture
def cluster(tmp_path: Path) -> Any:
    with nats_cluster(tmp_path) as made:
        yield made


@pytest.fixture
async def stack(cluster: Cluster) -> AsyncIterator[Stack]:
    running = Stack(cluster.url, Clock())
    await cluster.ready(await running.bus("waiting"))
    await running.start_core(SETTINGS, sweep_seconds=0.2)
    await running.target()
    yield running
    await running.close()


async def replicas(bus: Bus) -> dict[str, int]:
    found = {}
    for stream in [*streams.streams(bus.subjects), *streams.buckets(bus.subjects)]:
        answer = json.loads(await bus.request(f"$JS.API.STREAM.INFO.{stream.name}", b"", timeout=5))
        found[stream.name] = answer["config"]["num_replicas"]
    return found


async def work(worker: Worker) -> None:
    """Claim at each call, and report success; what fails is tried again at the next call."""
    subjects = worker.bus.subjects
    puller = Puller(worker.bus, subjects.work_stream, subjects.work_durable(worker.service), batch=1)
    async for batch in puller.batches():
        try:
            held = await worker.claim()
            await batch[0].ack()
            if held.job is not None:
                await report(worker, held)
        except (SnappyError, NatsError, OSError):
            continue


async def report(worker: Worker, held: Any) -> None:
    """Until it is stored, as a source service does."""
    while True:
        try:
            return await worker.succeed(held)
        except SnappyError:
            await asyncio.sleep(0.1)


async def submit(bus: Bus, number: int) -> None:
    """Until it is acknowledged."""
    body = json.dumps({**BACKUP, "request": f"job-{number}"}).encode()
    while True:
        try:
            await bus.store(bus.subjects.command("backup", "alice"), body)
            return
        except SnappyError:
            await asyncio.sleep(0.1)


async def all_over(stack: Stack) -> None:
    async with asyncio.timeout(90):
        while True:
            states = [kept.value.state for kept in stack.core.store.records.kept.values()]
            if len(states) == JOBS and all(state in FINAL for state in states):
                return
            stack.clock.now += 0.2  # the sweep's own time goes on
            await asyncio.sleep(0.2)


@pytest.mark.long
@pytest.mark.parametrize("victim", ["records", "events", "commands", "connection"])
async def test_any_one_dies(stack: Stack, cluster: Cluster, victim: str) -> None:
    subjects = stack.core.bus.subjects
    assert set((await replicas(stack.core.bus)).values()) == {3}
    working = [asyncio.create_task(work(await stack.worker(replica=f"r{number}"))) for number in range(3)]
    alice = await stack.bus("alice")
    leads = {
        "records": f"KV_{subjects.jobs_bucket}",
        "events": subjects.events_stream,
        "commands": subjects.commands_stream,
    }
    died = ""
    for number in range(JOBS):
        await submit(alice, number)
        if number == KILLED_AT:
            died = await cluster.leader(alice, leads[victim]) if victim in leads else connected(stack, cluster)
            cluster.servers[died].kill()
    await all_over(stack)
    for task in working:
        task.cancel()
    if victim in leads:
        assert await cluster.leader(alice, leads[victim]) != died
    await stack.pass_events()
    events = Counter(event.type.rpartition(".")[2] for event in await stack.all_events())
    assert events["accepted"] == JOBS
    assert {name: count for name, count in events.items() if name in FINAL_EVENTS} == {"succeeded": JOBS}
    cluster.servers[died].restart()


def connected(stack: Stack, cluster: Cluster) -> str:
    """The server to which the core is connected."""
    port = stack.core.bus.nc.connected_url.port  # type: ignore[union-attr]
    return next(name for name, server in cluster.servers.items() if server.port == port)


async def test_streams_of_one_server_become_three(cluster: Cluster) -> None:
    stack = Stack(cluster.url, Clock())
    await cluster.ready(await stack.bus("waiting"))
    await stack.start_core(config.Core(replicas=1))
    assert set((await replicas(stack.core.bus)).values()) == {1}
    await stack.stop_core()
    await stack.start_core(SETTINGS)
    assert set((await replicas(stack.core.bus)).values()) == {3}
    await stack.close()
