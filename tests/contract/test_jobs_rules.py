"""What a command says of when and how often its job runs, over a real nats-server: the core's clock is the test's."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from snappy import config
from snappy.bus.connection import Bus
from snappy.frontend.api import Client
from snappy.jobs.ledger import timestamp
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from snappy.jobs.stopping import STOP_SECONDS
from tests.support.jobs import BACKUP, SETTINGS, Clock, Stack, Worker
from tests.support.natsserver import NatsServer


class Submitter(Client):
    """Each of its jobs is a little younger than the one before."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        super().__init__(bus)
        self.clock = clock


async def submitter(stack: Stack, name: str = "alice") -> Submitter:
    return Submitter(await stack.bus(name), stack.clock)


@pytest.fixture
async def alice(stack: Stack) -> Submitter:
    return await submitter(stack)


async def submit(client: Submitter, **more: Any) -> JobRecord:
    client.clock.now += 0.01
    return await client.submit("backup", {**BACKUP, **more})


async def claimed(worker: Worker) -> str:
    job = (await worker.claimed()).job
    assert job is not None
    return job.id


def code(record: JobRecord) -> str:
    return record.error.code if record.error else ""


# ---- which job comes first -------------------------------------------------------------------------------------------


async def test_a_higher_priority_overtakes_and_equals_keep_their_order(
    stack: Stack, site: Worker, alice: Submitter
) -> None:
    jobs = []
    for priority in (0, -10, 0, 10, 3):
        jobs.append((await submit(alice, priority=priority)).id)
    order = [await claimed(site) for _ in jobs]
    assert order == [jobs[3], jobs[4], jobs[0], jobs[2], jobs[1]]


async def test_who_waits_gains_priority(stack: Stack, site: Worker, alice: Submitter) -> None:
    old = await submit(alice, priority=-10)
    stack.clock.now += 20 * SETTINGS.ageing_seconds
    new = await submit(alice, priority=10)
    assert [await claimed(site) for _ in range(2)] == [old.id, new.id]


@pytest.mark.parametrize("priority", [11, -11, 1.5, "high"])
async def test_a_priority_is_a_small_number(stack: Stack, site: Worker, alice: Submitter, priority: Any) -> None:
    record = await submit(alice, priority=priority)
    assert record.state is State.REJECTED
    assert record.error is not None
    assert "$.priority" in record.error.message


# ---- not before, deadline --------------------------------------------------------------------------------------------


async def test_no_worker_gets_a_job_too_early(stack: Stack, site: Worker, alice: Submitter) -> None:
    record = await submit(alice, not_before=timestamp(stack.clock.now + 60))
    assert record.not_before == pytest.approx(stack.clock.now + 60, abs=0.1)
    assert await site.calls() == 0
    await stack.pass_time(59)
    assert (await site.claim()).job is None
    await stack.pass_time(2)
    assert await site.calls() == 1
    assert await claimed(site) == record.id


async def test_a_wait_asked_for_adds_no_priority(stack: Stack, site: Worker, alice: Submitter) -> None:
    await submit(alice, not_before=timestamp(stack.clock.now + 50 * SETTINGS.ageing_seconds))
    stack.clock.now += 50 * SETTINGS.ageing_seconds
    urgent = await submit(alice, priority=1)
    assert await claimed(site) == urgent.id


@pytest.mark.parametrize(
    ("times", "fault"),
    [
        ({"not_before": "2027-01-01T00:00:00"}, "$.not_before"),
        ({"not_before": 1_800_000_000}, "$.not_before"),
        ({"deadline": "tomorrow"}, "$.deadline"),
        ({"not_before": "2027-01-01T01:00:00Z", "deadline": "2027-01-01T01:00:00+01:00"}, "a deadline comes after"),
    ],
)
async def test_times_are_rfc_3339_with_a_zone(
    stack: Stack, site: Worker, alice: Submitter, times: dict[str, Any], fault: str
) -> None:
    record = await submit(alice, **times)
    assert (record.state, code(record)) == (State.REJECTED, "invalid-command")
    assert record.error is not None
    assert fault in record.error.message


async def test_a_job_that_still_waits_at_its_deadline_fails(stack: Stack, site: Worker, alice: Submitter) -> None:
    record = await submit(alice, deadline=timestamp(stack.clock.now + 10))
    stack.clock.now += 11
    assert (await site.claim()).job is None
    await stack.core.sweep.tick()
    record = await stack.record(record.id)
    assert (record.state, code(record), record.attempts) == (State.FAILED, "deadline", [])
    assert [event.type for event in await stack.events(record.id)][-1] == "io.snappy.backup.failed"


async def test_a_job_that_runs_at_its_deadline_is_stopped(stack: Stack, site: Worker, alice: Submitter) -> None:
    job = (await submit(alice, deadline=timestamp(stack.clock.now + 10))).id
    held = await site.claimed()
    await stack.pass_time(11)
    assert (await stack.record(job)).state is State.RUNNING
    assert (await site.renew(held)).cancel
    await site.report("cancelled", held)
    record = await stack.until(job)
    assert (record.state, code(record), record.cancel) == (State.FAILED, "deadline", None)


# ---- attempts and their length ---------------------------------------------------------------------------------------


async def test_a_command_may_ask_for_fewer_attempts(stack: Stack, site: Worker, alice: Submitter) -> None:
    job = (await submit(alice, attempts=1)).id
    await site.fail(await site.claimed(), retryable=True)
    assert (await stack.until(job)).state is State.FAILED


async def test_a_command_cannot_have_more_attempts_than_the_core_allows(
    stack: Stack, site: Worker, alice: Submitter
) -> None:
    job = (await submit(alice, attempts=100)).id
    for _ in range(SETTINGS.max_attempts):
        await site.fail(await site.claimed(), retryable=True)
        await stack.until(job, State.RETRYING, State.FAILED)
        await stack.pass_time(60)
    assert (await stack.record(job)).state is State.FAILED


async def test_an_attempt_that_takes_too_long_is_stopped_and_not_tried_again(
    stack: Stack, site: Worker, alice: Submitter
) -> None:
    job = (await submit(alice, time_limit=5)).id
    held = await site.claimed()
    told: asyncio.Queue[Any] = asyncio.Queue()
    await site.bus.listen(site.bus.subjects.control("site1"), "", told.put)
    await stack.pass_time(6)
    async with asyncio.timeout(5):
        assert msgspec.json.decode((await told.get()).data)["job"] == job
    await site.report("cancelled", held)
    record = await stack.until(job)
    assert (record.state, code(record), len(record.attempts)) == (State.FAILED, "time-limit", 1)
    assert record.error is not None
    assert not record.error.retryable


async def test_a_worker_that_does_not_stop_loses_its_hold(stack: Stack, site: Worker, alice: Submitter) -> None:
    job = (await submit(alice, time_limit=5)).id
    held = await site.claimed()
    waited = 0.0
    while (renewed := await site.renew(held)).error is None:
        assert waited < STOP_SECONDS + 20
        await stack.pass_time(8)
        waited += 8
    assert renewed.error.code == "attempt-over"
    await stack.pass_time(SETTINGS.hold_seconds + 2)
    record = await stack.record(job)
    assert (record.state, code(record)) == (State.FAILED, "time-limit")


async def test_a_users_cancel_comes_before_a_rule(stack: Stack, site: Worker, alice: Submitter) -> None:
    job = (await submit(alice, time_limit=5)).id
    held = await site.claimed()
    await stack.pass_time(6)
    await alice.cancel(job)
    await site.report("cancelled", held)
    record = await stack.until(job)
    assert (record.state, record.cancel) == (State.CANCELLED, "alice")


# ---- twins -----------------------------------------------------------------------------------------------------------


async def test_twins_are_queued_unless_something_else_is_asked(stack: Stack, site: Worker, alice: Submitter) -> None:
    jobs = {(await submit(alice)).id for _ in range(2)}
    assert {await claimed(site) for _ in range(2)} == jobs


@pytest.mark.parametrize("running", [False, True])
async def test_skip_rejects_a_job_whose_twin_is_not_over(
    stack: Stack, site: Worker, alice: Submitter, running: bool
) -> None:
    first = await submit(alice, duplicates="skip")
    held = await site.claimed() if running else None
    second = await submit(alice, duplicates="skip", priority=9)
    assert (second.state, code(second)) == (State.REJECTED, "duplicate")
    assert second.error is not None
    assert first.id in second.error.message
    await site.succeed(held or await site.claimed())
    await stack.until(first.id)
    assert (await submit(alice, duplicates="skip")).state is State.QUEUED


async def test_skip_looks_at_what_was_merely_queued_too(stack: Stack, site: Worker, alice: Submitter) -> None:
    await submit(alice)
    assert code(await submit(alice, duplicates="skip")) == "duplicate"
    other = await submit(alice, duplicates="skip", options={"paths": ["/srv"]})
    assert other.state is State.QUEUED
    bob = await submitter(stack, "bob")
    assert (await submit(bob, duplicates="skip")).state is State.QUEUED


async def test_a_repeat_of_the_one_that_passed_is_no_twin(stack: Stack, site: Worker, alice: Submitter) -> None:
    first = await submit(alice, duplicates="skip", request="nightly")
    assert (await submit(alice, duplicates="skip", request="nightly")).id == first.id
    assert (await stack.record(first.id)).state is State.QUEUED


async def test_of_many_that_would_skip_at_once_one_passes(stack: Stack, site: Worker, alice: Submitter) -> None:
    await stack.start_core()
    states = [record.state for record in await asyncio.gather(*(submit(alice, duplicates="skip") for _ in range(12)))]
    assert sorted(states) == [State.QUEUED, *[State.REJECTED] * 11]


async def test_replace_cancels_a_twin_that_waits(stack: Stack, site: Worker, alice: Submitter) -> None:
    old = await submit(alice)
    new = await submit(alice, duplicates="replace")
    record = await stack.record(old.id)
    assert (record.state, record.cancel, code(record)) == (State.CANCELLED, "alice", "replaced")
    assert record.error is not None
    assert new.id in record.error.message
    assert await claimed(site) == new.id


async def test_replace_stops_a_twin_that_runs(stack: Stack, site: Worker, alice: Submitter) -> None:
    old = await submit(alice)
    held = await site.claimed()
    stack.clock.now += 1
    new = await submit(alice, duplicates="replace")
    assert (await site.renew(held)).cancel
    await site.report("cancelled", held)
    record = await stack.until(old.id)
    assert (record.state, code(record)) == (State.CANCELLED, "replaced")
    assert await claimed(site) == new.id


async def test_of_many_that_would_replace_at_once_one_remains(stack: Stack, site: Worker, alice: Submitter) -> None:
    await stack.start_core()
    jobs = [record.id for record in await asyncio.gather(*(submit(alice, duplicates="replace") for _ in range(8)))]
    states = [(await stack.record(job)).state for job in jobs]
    assert sorted(states) == [*[State.CANCELLED] * 7, State.QUEUED]


# ---- limits ----------------------------------------------------------------------------------------------------------

LIMITS = [
    config.Limits(source=2),
    config.Limits(target=2),
    config.Limits(key=2),
    config.Limits(source=9, sources={"site1": 2}),
    config.Limits(targets={"vault": 2}),
    config.Limits(key=1, keys={"default": 2}),
]


async def limited(url: str, limits: config.Limits, cores: int = 1) -> Stack:
    stack = Stack(url, Clock())
    for _ in range(cores):
        await stack.start_core(msgspec.structs.replace(SETTINGS, limits=limits))
    await stack.target()
    return stack


@pytest.mark.parametrize("limits", LIMITS, ids=str)
async def test_no_more_attempts_at_once_than_the_limit(server: NatsServer, limits: config.Limits) -> None:
    stack = await limited(server.url, limits)
    site, alice = await stack.worker(), await submitter(stack)
    jobs = [(await submit(alice)).id for _ in range(4)]
    held = [await site.claimed() for _ in range(2)]
    assert (await site.claim()).job is None
    await stack.forget_calls()
    await site.succeed(held[0])
    await stack.until(jobs[0])
    async with asyncio.timeout(5):
        while await site.calls() != 1:
            await asyncio.sleep(0.01)
    assert await claimed(site) == jobs[2]
    assert (await site.claim()).job is None
    await stack.close()


async def test_another_service_and_another_key_are_not_kept_waiting(server: NatsServer) -> None:
    stack = await limited(server.url, config.Limits(key=1))
    one, two, alice = await stack.worker(), await stack.worker("site2"), await submitter(stack)
    jobs = [(await submit(alice, **named)).id for named in ({}, {}, {"key": "other"}, {"source": "site2"})]
    assert [await claimed(one), await claimed(one), await claimed(two)] == [jobs[0], jobs[2], jobs[3]]
    assert (await one.claim()).job is None
    await stack.close()


async def test_several_cores_together_keep_the_limit(server: NatsServer) -> None:
    """Claims at the same moment may both give way; they never both pass."""
    stack = await limited(server.url, config.Limits(target=3), cores=3)
    workers = [await stack.worker(f"site{number}") for number in range(1, 5)]
    alice = await submitter(stack)
    for number in range(1, 5):
        for _ in range(3):
            await submit(alice, source=f"site{number}")
    granted = 0
    for _ in range(12):
        answers = await asyncio.gather(*(worker.claim() for worker in workers))
        assert not [answer.error for answer in answers if answer.error]
        granted += sum(answer.job is not None for answer in answers)
        assert granted <= 3
        stack.clock.now += 1
    assert granted == 3
    await stack.close()


async def test_a_limited_job_is_called_for_no_more_often_than_there_is_room(server: NatsServer) -> None:
    stack = await limited(server.url, config.Limits(source=1))
    site, alice = await stack.worker(), await submitter(stack)
    for _ in range(5):
        await submit(alice)
    await stack.forget_calls()
    await stack.pass_time(12)
    assert await site.calls() == 1
    await site.claimed()
    await stack.forget_calls()
    await stack.pass_time(12)
    assert await site.calls() == 0
    await stack.close()
