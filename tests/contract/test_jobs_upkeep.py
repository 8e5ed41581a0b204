"""What the core does of itself: calls again, forgets the old, and does not let itself be drowned."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from nats.aio.msg import Msg

from snappy.errors import JobNotFound
from snappy.frontend.api import Client
from snappy.jobs.calls import AGAIN_SECONDS
from snappy.jobs.messages import ErrorInfo, Result, Warn
from snappy.jobs.refusals import PAUSE_SECONDS
from snappy.jobs.states import State
from snappy.jobs.sweep import RETURN_SECONDS
from tests.support.jobs import BACKUP, SETTINGS, Stack, Worker

DAY = 86400.0


async def test_a_call_that_nobody_followed_is_made_again(stack: Stack, site: Worker, alice: Client) -> None:
    for _ in range(3):
        await alice.submit("backup", BACKUP)
    assert await site.calls() == 3
    await stack.forget_calls()
    await stack.pass_time(AGAIN_SECONDS - 1)
    assert await site.calls() == 0
    await stack.pass_time(2)
    assert await site.calls() == 3
    await stack.pass_time(5 * AGAIN_SECONDS)
    assert await site.calls() == 3, "calls do not pile up"


async def test_what_finished_long_ago_is_forgotten_and_what_waits_is_not(
    stack: Stack, site: Worker, alice: Client
) -> None:
    old = await alice.submit("backup", {**BACKUP, "request": "old"})
    await alice.cancel(old.id)
    waiting = await alice.submit("backup", BACKUP)
    stack.clock.now += (SETTINGS.keep_jobs_days - 1) * DAY
    recent = await alice.submit("backup", BACKUP)
    await alice.cancel(recent.id)
    await stack.pass_time(1)
    assert (await alice.get(old.id)).state is State.CANCELLED
    stack.clock.now += 2 * DAY
    await stack.pass_time(1)
    with pytest.raises(JobNotFound):
        await alice.get(old.id)
    with pytest.raises(JobNotFound):
        await alice.get(request="old")
    assert {record.id for record in await alice.list()} == {waiting.id, recent.id}
    again = await alice.submit("backup", {**BACKUP, "request": "old"})
    assert (again.state, again.id != old.id) == (State.QUEUED, True)


async def test_a_flood_of_forged_messages_makes_one_event_a_second(stack: Stack, site: Worker) -> None:
    subject = site.bus.subjects.hold("claim", "site1", "r1")

    async def forge(number: int) -> None:
        for _ in range(number):
            await site.bus.nc.publish(subject, b"{}", reply="elsewhere")
        await site.bus.nc.flush()

    await forge(50)
    assert (await site.beat()).error is None
    assert len(await stack.refusals()) == 1
    stack.clock.now += PAUSE_SECONDS
    await forge(1)
    async with asyncio.timeout(5):
        while len(await stack.refusals()) < 2:
            await asyncio.sleep(0.01)
    events = [json.loads(body) for body in await stack._stored(stack.core.bus.subjects.events_stream)]
    assert [event["data"]["count"] for event in events] == [1, 50]


async def test_a_list_is_as_long_as_a_message_may_be(stack: Stack, site: Worker, alice: Client) -> None:
    long = {**BACKUP, "options": {"paths": ["/" + "x" * 50_000]}}
    for _ in range(50):
        await alice.submit("backup", long)
    found = await alice.list(limit=1000)
    assert 20 < len(found) < 50
    assert [record.created for record in found] == sorted((record.created for record in found), reverse=True)


async def test_a_worker_cannot_make_a_record_too_large_to_tell(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    await site.report("checkpoint", held, checkpoint={"x": "y" * 900_000})
    warnings = [Warn(path="p" * 9000, message="m") for _ in range(100)]
    await site.report("succeeded", held, result=Result(warnings=warnings, warning_count=100))
    record = await stack.until(job)
    assert record.result is not None
    assert 0 < len(record.result.warnings) < 100
    assert record.result.warning_count == 100
    assert [event.type for event in await stack.events(job)][-1] == "io.snappy.backup.succeeded"
    failing = (await alice.submit("backup", BACKUP)).id
    error = ErrorInfo(code="x", message="m" * 500_000, hint="h" * 500_000)
    await site.report("failed", await site.claimed(), error=error)
    assert len(msgspec.json.encode(await stack.until(failing))) < 20_000


async def test_a_worker_that_did_not_hear_the_word_to_stop_is_told_again(
    stack: Stack, site: Worker, alice: Client
) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await site.claimed()
    await alice.cancel(job)
    told: asyncio.Queue[Msg] = asyncio.Queue()
    await site.bus.listen(site.bus.subjects.control("site1"), "", told.put)
    await stack.core.sweep.tick()
    async with asyncio.timeout(5):
        assert json.loads((await told.get()).data)["job"] == job


async def test_a_value_that_nobody_can_read_stops_nobody(stack: Stack, site: Worker, alice: Client) -> None:
    bucket = f"$KV.{stack.core.bus.subjects.jobs_bucket}"
    await stack.core.bus.store(f"{bucket}.job.odd", b"not json")
    await stack.core.bus.store(f"{bucket}.job.newer", b'{"id":"newer","state":"dreaming"}')
    await stack.pass_time(1)
    good = await alice.submit("backup", BACKUP)
    await stack.stop_core()
    await stack.start_core()
    assert [record.id for record in await alice.list()] == [good.id]
    with pytest.raises(JobNotFound):
        await alice.get("newer")


@pytest.mark.parametrize("place", ["reception.accept", "_reports._attempts.finished"])
async def test_a_message_on_which_the_core_fails_is_told_and_the_core_goes_on(
    stack: Stack, site: Worker, alice: Client, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A fault of ours must not come again for ever with the message that shows it."""

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    await alice.submit("backup", BACKUP)
    held = await site.claimed()
    with monkeypatch.context() as patch:
        *path, last = place.split(".")
        owner: Any = stack.core
        for name in path:
            owner = getattr(owner, name)
        patch.setattr(owner, last, fail)
        await site.succeed(held)
        await alice.bus.store(alice.bus.subjects.command("backup", "alice"), json.dumps(BACKUP).encode())
        async with asyncio.timeout(5):
            while not any("failed on this" in reason for reason in await stack.refusals()):
                await asyncio.sleep(0.01)
    assert (await alice.submit("backup", BACKUP)).state is State.QUEUED


async def test_a_consumer_of_calls_that_is_gone_is_made_with_the_next_beat(stack: Stack, site: Worker) -> None:
    subjects = stack.core.bus.subjects
    await stack.core.bus.js.delete_consumer(subjects.work_stream, subjects.work_durable("site1"))
    assert (await site.beat()).error is None
    await stack.core.bus.js.consumer_info(subjects.work_stream, subjects.work_durable("site1"))


async def test_after_an_outage_workers_have_time_to_come_back(stack: Stack, site: Worker, alice: Client) -> None:
    await stack.stop_core()
    await stack.start_core(msgspec.structs.replace(SETTINGS, hold_seconds=1.0))
    job = await alice.submit("backup", BACKUP)
    held = await site.claimed()
    await stack.stop_core()
    stack.clock.now += 3600.0
    await stack.start_core(msgspec.structs.replace(SETTINGS, hold_seconds=1.0))
    await stack.core.sweep.tick()
    await stack.pass_time(RETURN_SECONDS - 0.5)
    assert (await stack.record(job.id)).state is State.RUNNING
    assert (await site.ask("renew", job=job.id, attempt=held.attempt)).error is None
    await stack.pass_time(0.9)
    assert (await stack.record(job.id)).state is State.RUNNING
    await stack.pass_time(0.5)
    assert (await stack.record(job.id)).state is State.RETRYING
