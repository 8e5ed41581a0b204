"""Two cores side by side, one of them killed again and again: each command ends once, and is told of once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from nats.errors import Error as NatsError

from snappy import config
from snappy.bus.pulling import Puller
from snappy.bus.subjects import WorkerSubject
from snappy.errors import BusUnavailable, SnappyError
from snappy.frontend.api import Client
from snappy.jobs.core import Core
from snappy.jobs.holds import HoldDesk
from snappy.jobs.messages import HoldRequest
from snappy.jobs.states import FINAL, State
from tests.support.jobs import BACKUP, Clock, RealClock, Stack, Worker
from tests.support.natsserver import NatsServer

JOBS = 120
KILLS = 6
KILL_EVERY = 0.25
SETTINGS = config.Core(hold_seconds=2.0, max_lost_attempts=50)
FINAL_EVENTS = {"succeeded", "failed", "cancelled", "rejected"}


async def work(worker: Worker) -> None:
    """Claim at each call and report success at once; a silent core costs the call, which comes again."""
    subjects = worker.bus.subjects
    puller = Puller(worker.bus, subjects.work_stream, subjects.work_durable(worker.service), batch=1)
    async for batch in puller.batches():
        try:
            held = await worker.claim()
            await batch[0].ack()
            if held.job is not None:
                await worker.succeed(held, f"{held.job.id}-{held.attempt}")
        except (SnappyError, NatsError, OSError):
            continue


async def deliver_again_after(stack: Stack, seconds: float) -> None:
    """What a killed core did not acknowledge comes to the other one; half a minute is long for a test."""
    js, subjects = stack.core.bus.js, stack.core.bus.subjects
    for stream in (subjects.commands_stream, subjects.reports_stream):
        known = (await js.consumer_info(stream, subjects.core_durable)).config
        await js.add_consumer(stream, known.evolve(ack_wait=seconds))


async def test_a_claim_is_asked_again_of_another_core(server: NatsServer) -> None:
    """The core that granted it died, and the other one was not told of it."""
    stack = Stack(server.url, Clock())
    await stack.start_core()
    await stack.target()
    site = await stack.worker()
    alice = Client(await stack.bus("alice"))
    await stack.start_core()
    for _ in range(2):
        await alice.submit("backup", BACKUP)
    held = await site.claim("n1")
    assert held.job is not None
    for core in list(stack._running):
        again = HoldRequest(nonce="n1", again=True)
        answer = await core._desk.claim(WorkerSubject("claim", "site1", "r1"), again)
        assert answer.job is not None
        assert (answer.job.id, answer.attempt) == (held.job.id, 1)
    await stack.close()


@pytest.mark.parametrize(("step", "of_another"), [("_take", False), ("_start", False), ("_start", True)])
async def test_a_claim_that_a_core_is_amid_is_not_over(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, step: str, of_another: bool
) -> None:
    """As when a core is stopped, and goes on. That another one is amid it is known once it has written."""
    work, going_on, amid = getattr(HoldDesk, step), asyncio.Event(), asyncio.Event()

    async def stopped(*arguments: Any) -> Any:
        amid.set()
        await going_on.wait()
        return await work(*arguments)

    stack = Stack(server.url, Clock())
    first, second = await stack.start_core(), await stack.start_core()
    await stack.target()
    await stack.worker()
    alice = Client(await stack.bus("alice"))
    for _ in range(2):
        await alice.submit("backup", BACKUP)
    monkeypatch.setattr(HoldDesk, step, stopped)
    worker, again = WorkerSubject("claim", "site1", "r1"), HoldRequest(nonce="n1", again=True)
    claiming = asyncio.create_task(first._desk.claim(worker, HoldRequest(nonce="n1")))
    await amid.wait()
    asked = second if of_another else first
    with pytest.raises(BusUnavailable):  # and the worker asks again
        await asked._desk.claim(worker, again)
    going_on.set()
    held, repeated = await claiming, await asked._desk.claim(worker, again)
    assert held.job
    assert repeated.job
    assert (repeated.job.id, repeated.attempt) == (held.job.id, 1)
    await stack.close()


async def kill_cores(stack: Stack) -> None:
    """Always one of two, at whatever it does just then."""
    cores: list[Core] = [stack.core, await stack.start_core(SETTINGS, sweep_seconds=0.2)]
    for _ in range(KILLS):
        await asyncio.sleep(KILL_EVERY)
        await stack.stop_core(cores.pop(0))
        cores.append(await stack.start_core(SETTINGS, sweep_seconds=0.2))


async def all_over(stack: Stack) -> list[State]:
    while True:
        await stack.core.store.sync()
        states = [kept.value.state for kept in stack.core.store.records.kept.values()]
        if len(states) == JOBS and all(state in FINAL for state in states):
            return states
        await asyncio.sleep(0.1)


async def test_every_command_ends_once_whatever_core_dies(server: NatsServer) -> None:
    stack = Stack(server.url, RealClock())
    await stack.start_core(SETTINGS, sweep_seconds=0.2)
    await stack.target()
    await deliver_again_after(stack, 1.0)
    workers = [await stack.worker(replica=f"r{number}") for number in range(3)]
    working = [asyncio.create_task(work(worker)) for worker in workers]
    killing = asyncio.create_task(kill_cores(stack))
    alice = await stack.bus("alice")
    for number in range(JOBS):
        command = {**BACKUP, "request": f"job-{number}"}
        await alice.store(alice.subjects.command("backup", "alice"), json.dumps(command).encode())
    await killing
    async with asyncio.timeout(60):
        states = await all_over(stack)
    for task in working:
        task.cancel()
    await stack.pass_events()
    events = [(event.subject, event.type.rpartition(".")[2]) for event in await stack.all_events()]
    assert set(states) == {State.SUCCEEDED}
    assert max(Counter(event for event in events if event[1] in {"accepted", *FINAL_EVENTS}).values()) == 1
    assert Counter(kind for _, kind in events if kind in FINAL_EVENTS) == {"succeeded": JOBS}
    assert Counter(kind for _, kind in events)["accepted"] == JOBS
    await stack.close()
