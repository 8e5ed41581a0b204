"""Many jobs that do nothing (:mod:`tests.support.null_source`), from the command to the audit, and what must hold of
all of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from tests.support import event_log, null_source, raw_nats
from tests.support.event_log import Log
from tests.support.faults import Arena
from tests.support.site import FINAL
from tests.support.stack import Shell

AT_ONCE = 50
"""Commands on their way to the server."""
ALL_SECONDS = 300.0
AUDIT_SECONDS = 60.0


async def submit_all(running: Arena, requests: list[str]) -> None:
    """Each command is acknowledged when this returns."""
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        for start in range(0, len(requests), AT_ONCE):
            await asyncio.gather(*(submit(alice, name) for name in requests[start : start + AT_ONCE]))


async def submit(alice: raw_nats.RawClient, name: str) -> None:
    command = {"source": "site1", "target": "vault", "request": name}
    answer = await alice.request("snappy.cmd.init.alice", json.dumps(command).encode(), timeout=60)
    assert "seq" in json.loads(answer.body), answer


@asynccontextmanager
async def ends_of(running: Arena, requests: Iterable[str]) -> AsyncIterator[asyncio.Task[None]]:
    """A task that is done when each of them was told to have ended; it has listened since before the block."""
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        told = await alice.subscribe("snappy.event.init.*.*")
        yield asyncio.create_task(_all_ended(running, told, set(requests)))


async def _all_ended(running: Arena, told: asyncio.Queue[raw_nats.Message], waited_for: set[str]) -> None:
    async with asyncio.timeout(ALL_SECONDS):
        while waited_for:
            message = await told.get()
            if message.subject.split(".")[3] in FINAL:
                waited_for.discard(json.loads(message.body)["request"])


async def expect_all_well(running: Arena, requests: Iterable[str]) -> Log:
    """Each of them succeeded, was told of once and ran once at a time; the audit is whole. Nothing else was asked."""
    log = await event_log.read(running)
    event_log.expect_told_once(log)
    ends = [event for event in log.told if event.name in FINAL]
    assert sorted(event.request for event in ends) == sorted(requests)
    assert {event.name for event in ends} == {"succeeded"}
    await expect_records(running, log)
    expect_run_once(running, set(log.by_job()))
    await expect_audited(running, log)
    return log


async def expect_records(running: Arena, log: Log) -> None:
    """What the core says of each job is what its last event said, and nothing happened that was not told."""
    async with raw_nats.connect(running.server.url, "alice", running.password("alice")) as alice:
        for job, events in log.by_job().items():
            answer = await alice.request("snappy.api.job.get.alice", json.dumps({"job": job}).encode())
            record: dict[str, Any] = json.loads(answer.body)["job"]
            assert record == events[-1].data, (record, events)
            assert record["event_number"] == len(events), (record, events)


def expect_run_once(running: Arena, jobs: set[str]) -> None:
    """No worker died, so that no job has a reason to be run again."""
    lines = null_source.read(running.folder / "site1")
    assert {line.job for line in lines} == jobs
    assert not null_source.overlapping(lines), null_source.overlapping(lines)
    assert len(lines) == len(jobs), [line for line in lines if line.attempt > 1]


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
