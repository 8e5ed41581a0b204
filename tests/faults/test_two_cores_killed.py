"""Two cores as processes, one of them killed every few seconds: each job ends once, and is told of once."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import event_log, null_source, raw_nats
from tests.support.event_log import Log
from tests.support.faults import Arena, arena
from tests.support.site import FINAL
from tests.support.stack import Shell

pytestmark = pytest.mark.timeout(600)

CORES = ("core", "core.b")
READY = "the core knows its jobs"
AT_ONCE = 50
"""Commands on their way to the server."""
ALL_SECONDS = 300.0
AUDIT_SECONDS = 60.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Arena]:
    processes = [*CORES, "audit", "vault", "site1", "site1.b"]
    programs = dict.fromkeys(("site1", "site1.b"), null_source.PROGRAM)
    with arena(tmp_path, processes=processes, programs=programs) as made:
        yield made


@pytest.mark.parametrize(
    ("jobs", "every", "least"),
    [(150, (0.2, 0.6), 3), pytest.param(1000, (1.5, 3.0), 10, marks=pytest.mark.long)],
)
async def test_each_job_ends_once_whatever_core_dies(
    running: Arena, jobs: int, every: tuple[float, float], least: int
) -> None:
    requests = [f"job-{number}" for number in range(jobs)]
    ended = asyncio.create_task(all_ended(running, set(requests)))
    kills = asyncio.create_task(kill_cores(running, ended, every))
    await submit_all(running, requests)
    await ended
    moments = await kills
    log = await event_log.read(running)
    by_job = log.by_job()
    counted = [moment for moment in moments if event_log.in_transition(by_job.values(), moment)]
    print(f"{jobs} jobs, {len(moments)} kills, {len(counted)} of them while jobs were in transition")
    assert len(counted) >= least, moments

    event_log.expect_told_once(log)
    assert len(log.told) == 3 * jobs, "accepted, started, ended"
    assert sorted(event.request for event in log.told if event.name in FINAL) == sorted(requests)
    assert {event.name for event in log.told if event.name in FINAL} == {"succeeded"}
    await expect_records(running, log)
    expect_run_once(running, set(by_job))
    await expect_audited(running, log)


async def submit_all(running: Arena, requests: list[str]) -> None:
    """Each command is acknowledged when this returns."""
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        for start in range(0, len(requests), AT_ONCE):
            await asyncio.gather(*(submit(alice, name) for name in requests[start : start + AT_ONCE]))


async def submit(alice: raw_nats.RawClient, name: str) -> None:
    command = {"source": "site1", "target": "vault", "request": name}
    answer = await alice.request("snappy.cmd.init.alice", json.dumps(command).encode(), timeout=60)
    assert "seq" in json.loads(answer.body), answer


async def all_ended(running: Arena, requests: set[str]) -> None:
    """Until each of them was told to have ended."""
    waited_for = set(requests)
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        ends = [await alice.subscribe(f"snappy.event.init.{name}.*") for name in FINAL]
        deadline = time.monotonic() + ALL_SECONDS
        while waited_for:
            assert time.monotonic() < deadline, f"{len(waited_for)} never ended\n{running._logs()}"
            while not any(queue.qsize() for queue in ends):
                assert time.monotonic() < deadline, f"{len(waited_for)} never ended\n{running._logs()}"
                await asyncio.sleep(0.02)
            for queue in ends:
                while not queue.empty():
                    waited_for.discard(json.loads(queue.get_nowait().body)["request"])


async def kill_cores(running: Arena, ended: asyncio.Task[None], every: tuple[float, float]) -> list[float]:
    """One of the two, while the other serves, from the first job to the end of the last: when (Unix seconds)."""
    dice, moments = random.Random(20), list[float]()
    while not null_source.read(running.folder / "site1"):
        await asyncio.sleep(0.02)
    while not ended.done():
        await asyncio.sleep(dice.uniform(*every))
        victim = dice.choice(CORES)
        known = running.said(victim, READY)
        moments.append(time.time())
        running.kill(victim)
        running.start(victim)
        while running.said(victim, READY) == known:
            await asyncio.sleep(0.02)
    return moments


async def expect_records(running: Arena, log: Log) -> None:
    """What the core says of each job is what its last event said, and nothing happened that was not told."""
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        for job, events in log.by_job().items():
            answer = await alice.request("snappy.api.job.get.alice", json.dumps({"job": job}).encode())
            record: dict[str, Any] = json.loads(answer.body)["job"]
            assert record == events[-1].data
            assert record["event_number"] == len(events)


def expect_run_once(running: Arena, jobs: set[str]) -> None:
    """No worker died, so that no job has a reason to be run again."""
    lines = null_source.read(running.folder / "site1")
    assert {line.job for line in lines} == jobs
    assert null_source.overlapping(lines) == []
    assert [line for line in lines if line.attempt != 1] == []
    assert len(lines) == len(jobs)


def command_line(running: Arena, user: str) -> Shell:
    """``snappy`` as that user has it."""
    folder = running.folder / user
    folder.mkdir()
    password = json.dumps(str(running.server.password_file(user)))
    place = folder / "client.toml"
    place.write_text(f'[nats]\nurl = "{running.server.url}"\nuser = "{user}"\npassword = {{ file = {password} }}\n')
    return Shell(folder, environ={"SNAPPY_CONFIG": str(place)})


async def expect_audited(running: Arena, log: Log) -> None:
    """`snappy audit verify` finds the log whole, with an entry for each event."""
    shell = command_line(running, "alice")
    deadline = time.monotonic() + AUDIT_SECONDS
    while (found := await asyncio.to_thread(verified, shell))["entries"] < log.messages:
        assert time.monotonic() < deadline, (found, log.messages)
    assert found["entries"] == log.messages
    assert not found["alarm"], found


def verified(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = shell.run("--json", "audit", "verify").expect(0).json()
    return found
