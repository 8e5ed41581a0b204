"""What the core stands on, over a real nats-server: buckets, pulling, micro services, and a server that restarts."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from contextlib import aclosing, suppress
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from snappy import config
from snappy.bus import streams
from snappy.bus.connection import MESSAGE_ID, Bus
from snappy.bus.micro import MicroService
from snappy.bus.pulling import Puller, again_soon
from snappy.errors import BusUnavailable, WrongSequence
from snappy.frontend.api import Client
from snappy.jobs.bucket import Bucket
from snappy.jobs.messages import Hold, HoldAnswer
from snappy.jobs.mirror import Mirror
from snappy.jobs.states import State
from snappy.jobs.store import JobStore
from snappy.jobs.verbs import VERBS
from tests.support.jobs import BACKUP, Stack, Worker
from tests.support.natsserver import NatsServer


@pytest.fixture
async def bus(stack: Stack) -> Bus:
    return await stack.bus("core")


@pytest.fixture
def bucket(bus: Bus) -> Bucket:
    return Bucket(bus, bus.subjects.jobs_bucket, batch=3)


# ---- buckets -----------------------------------------------------------------------------------------------------


async def test_a_bucket_keeps_what_it_was_given(bucket: Bucket) -> None:
    assert await bucket.get("a.b") is None
    first = await bucket.update("a.b", b"1", 0)
    second = await bucket.update("a.b", b"2", first)
    found = await bucket.get("a.b")
    assert found is not None
    assert (found.value, found.revision) == (b"2", second)


@pytest.mark.parametrize("stale", [0, 1, 99])
async def test_a_write_against_another_revision_changes_nothing(bucket: Bucket, stale: int) -> None:
    revision = await bucket.update("a", b"1", 0)
    revision = await bucket.update("a", b"2", revision)
    with pytest.raises(WrongSequence):
        await bucket.update("a", b"3", stale)
    assert (await bucket.get("a")).value == b"2"  # type: ignore[union-attr]


async def test_of_many_writers_one_wins(bucket: Bucket) -> None:
    results = await asyncio.gather(*(bucket.update("a", b"%d" % n, 0) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert {type(result) for result in results} == {int, WrongSequence}


async def test_a_write_whose_answer_was_lost_is_known_to_be_ones_own(bus: Bus, bucket: Bucket) -> None:
    store, lost = bus.store, []

    async def lose_the_answer(subject: str, body: bytes, **options: Any) -> Any:
        """The first try is stored and its answer lost; the second is what ``store`` does then."""
        if not lost:
            lost.append(await store(subject, body, **options))
        return await store(subject, body, **options)

    bus.store = lose_the_answer  # type: ignore[method-assign]
    assert await bucket.update("a", b"mine", 0) == lost[0].seq
    bus.store = store  # type: ignore[method-assign]
    with pytest.raises(WrongSequence):
        await bucket.update("a", b"mine", 0)


async def test_changes_come_once_by_revision_however_many(bucket: Bucket) -> None:
    for number in range(10):
        await bucket.put(f"job.{number}", b"x")
    await bucket.put("job.3", b"y")
    await bucket.put("request.a", b"z")
    found = [entry async for entry in bucket.changes(0, "job.*")]
    assert [entry.key for entry in found] == [f"job.{n}" for n in (0, 1, 2, 4, 5, 6, 7, 8, 9, 3)]
    assert found[-1].value == b"y"
    assert [entry.key async for entry in bucket.changes(found[-1].revision)] == ["request.a"]
    assert [entry async for entry in bucket.changes(found[-1].revision, "job.*")] == []


async def test_remove_takes_one_revision_and_no_later_one(bucket: Bucket) -> None:
    old = await bucket.update("a", b"1", 0)
    new = await bucket.update("a", b"2", old)
    await bucket.put("ab", b"other")
    assert not await bucket.remove("a", old)
    assert await bucket.remove("a", new)
    assert await bucket.get("a") is None
    assert await bucket.get("ab") is not None
    await bucket.update("a", b"3", 0)


async def test_a_bucket_that_is_not_there_is_unavailable(bus: Bus) -> None:
    missing = Bucket(bus, "nowhere", timeout=0.5)
    with pytest.raises(BusUnavailable):
        [entry async for entry in missing.changes(0)]
    with pytest.raises(Exception, match="stream not found"):
        await missing.get("a")


async def test_a_mirror_shows_what_others_wrote(bus: Bus) -> None:
    mirrors = [Mirror(Bucket(bus, bus.subjects.holds_bucket), Hold) for _ in range(2)]
    hold = Hold(attempt=1, service="s", replica="r", deadline=1.0)
    mine = await mirrors[0].write("j1", hold, 0)
    assert await mirrors[1].sync() == ["j1"]
    assert mirrors[1].get("j1") == mine
    assert await mirrors[0].sync() == [], "one's own write is no news"
    await mirrors[1].write("j1", hold, mine.revision)
    with pytest.raises(WrongSequence):
        await mirrors[0].write("j1", hold, mine.revision)
    assert await mirrors[0].fetch("j1") == mirrors[1].get("j1")
    await mirrors[1].remove("j1")
    assert await mirrors[0].fetch("j1") is None


async def test_a_request_is_reserved_once(bus: Bus) -> None:
    store = JobStore(bus)
    owners = await asyncio.gather(*(store.reserve("alice", "r1", f"job-{n}") for n in range(10)))
    assert len(set(owners)) == 1
    assert await store.reserved("alice", "r1") == owners[0]
    assert await store.reserved("bob", "r1") is None


# ---- pulling -----------------------------------------------------------------------------------------------------


async def pull(puller: Puller, number: int) -> list[str]:
    """The bodies of the next messages, which are acknowledged."""
    found: list[str] = []
    async with asyncio.timeout(20):
        async for batch in puller.batches():
            for message in batch:
                await message.ack_sync(timeout=5)
            found += [message.data.decode() for message in batch]
            if len(found) >= number:
                break
    return found


async def test_messages_come_as_they_are_stored(bus: Bus) -> None:
    await streams.ensure_work_consumer(bus, "s1")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s1"), batch=4)
    waiting = asyncio.create_task(pull(puller, 10))
    for number in range(10):
        await bus.store(bus.subjects.work("s1"), str(number).encode())
    assert await waiting == [str(number) for number in range(10)]


async def test_a_request_that_ran_out_is_sent_again(bus: Bus) -> None:
    await streams.ensure_work_consumer(bus, "s2")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s2"), expires=0.2)
    waiting = asyncio.create_task(pull(puller, 1))
    await asyncio.wait({waiting}, timeout=1.0)
    await bus.store(bus.subjects.work("s2"), b"late")
    assert await waiting == ["late"]


async def test_what_came_while_the_process_was_stopped_is_not_waited_for_again(stack: Stack, bus: Bus) -> None:
    await streams.ensure_work_consumer(bus, "s5")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s5"), expires=0.5)
    first = asyncio.ensure_future(anext(puller.batches()))
    await asyncio.sleep(0.1)
    threading.Thread(target=lambda: asyncio.run(store_from_elsewhere(stack, bus.subjects.work("s5")))).start()
    time.sleep(3)
    (message,) = await first
    assert message.metadata.num_delivered == 1


async def store_from_elsewhere(stack: Stack, subject: str) -> None:
    other = await Bus.connect(config.Nats(url=stack.url), name="other", prefix=stack.prefix, user="core")
    await other.store(subject, b"1")
    await other.drain()


async def test_a_puller_that_is_cancelled_between_two_requests_ends(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    between = asyncio.Event()

    async def drain(_subscription: Subscription) -> None:
        between.set()
        with suppress(asyncio.CancelledError):  # as asyncio.wait_for of Python 3.11 does at times, below nats-py's
            await asyncio.sleep(0.2)

    monkeypatch.setattr(Subscription, "drain", drain)
    await streams.ensure_work_consumer(bus, "s6")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s6"), expires=0.2)
    pulling = asyncio.create_task(anext(puller.batches()))
    await between.wait()
    pulling.cancel()
    await asyncio.wait({pulling}, timeout=5)
    assert pulling.cancelled()


async def test_a_consumer_that_is_gone_is_made_again(bus: Bus) -> None:
    repaired = asyncio.Event()

    async def repair() -> None:
        await streams.ensure_work_consumer(bus, "s3")
        repaired.set()

    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s3"), repair=repair)
    await bus.store(bus.subjects.work("s3"), b"1")
    assert await pull(puller, 1) == ["1"]
    assert repaired.is_set()


async def test_a_message_given_back_comes_again_soon(bus: Bus) -> None:
    await streams.ensure_work_consumer(bus, "s4")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s4"))
    await bus.store(bus.subjects.work("s4"), b"1")
    async for batch in puller.batches():
        await again_soon(batch[0], 0.1)
        break
    assert await pull(puller, 1) == ["1"]


async def test_what_came_and_was_not_taken_comes_to_the_next_at_once(bus: Bus) -> None:
    await streams.ensure_work_consumer(bus, "s6")
    puller = Puller(bus, bus.subjects.work_stream, bus.subjects.work_durable("s6"))
    for number in range(20):
        async with aclosing(puller.batches()) as batches:
            taking = asyncio.ensure_future(anext(batches))
            await bus.store(bus.subjects.work("s6"), b"taken")
            (message,) = await taking
            for _ in range(3):
                await bus.store(bus.subjects.work("s6"), b"left")
        await message.ack_sync(timeout=5)
        async with asyncio.timeout(5):
            assert await pull(puller, 3) == ["left"] * 3, number


# ---- micro services ----------------------------------------------------------------------------------------------


async def test_a_micro_service_is_found_and_answers_inboxes_alone(stack: Stack, bus: Bus) -> None:
    name = f"svc-{stack.prefix}"
    service = MicroService(bus, name, "1.2.3", description="for a test", metadata={"word": "text"})
    await service.begin()
    info = json.loads(await bus.request(f"$SRV.INFO.{name}", b"", timeout=5))
    assert (info["version"], info["metadata"]) == ("1.2.3", {"word": "text"})
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    forged = f"{stack.prefix}.event.backup.succeeded.forged"
    await bus.listen(forged, "", heard.put)
    for verb in ("PING", "INFO", "STATS"):
        await bus.nc.publish(f"$SRV.{verb}.{name}", b"", reply=forged)
        await bus.request(f"$SRV.{verb}.{name}", b"", timeout=5)
    assert heard.empty()
    await service.stop()


async def test_an_endpoint_that_fails_answers_nothing_and_goes_on(stack: Stack, bus: Bus) -> None:
    service = MicroService(bus, f"svc-{stack.prefix}", "1.2.3")
    await service.begin()

    async def handler(message: Msg) -> None:
        if message.data == b"bad":
            raise ValueError("a secret")
        await bus.respond(message, b"good")

    subject = f"{stack.prefix}.test"
    await service.add("test", subject, handler, queue="q")
    with pytest.raises(BusUnavailable, match="no answer"):
        await bus.request(subject, b"bad", timeout=0.5)
    assert await bus.request(subject, b"x", timeout=5) == b"good"
    await service.stop()


async def test_the_core_is_a_micro_service(stack: Stack, bus: Bus) -> None:
    info = json.loads(await bus.request("$SRV.INFO.snappy-core", b"", timeout=5))
    assert {endpoint["name"] for endpoint in info["endpoints"]} == {verb.name for verb in VERBS if verb.owner == "core"}


# ---- a server that restarts --------------------------------------------------------------------------------------


async def test_jobs_go_on_over_a_restart_of_the_server(stack: Stack, server: NatsServer) -> None:
    site, alice = await stack.worker(), Client(await stack.bus("alice"))
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    server.restart()  # in this thread: the server dies with the thread that started it
    assert (await renewed_when_the_core_is_back(site, held)).error is None
    await site.succeed(held)
    async with asyncio.timeout(5):
        while (await stack.record(job)).state is not State.SUCCEEDED:
            await asyncio.sleep(0.05)
    assert [event.type.rpartition(".")[2] for event in await stack.events(job)] == ["accepted", "started", "succeeded"]


async def renewed_when_the_core_is_back(site: Worker, held: HoldAnswer) -> HoldAnswer:
    async with asyncio.timeout(10):
        while True:
            with suppress(BusUnavailable):
                return await site.renew(held)
            await asyncio.sleep(0.05)


async def test_a_beat_is_kept_over_a_restart_of_core_and_server(stack: Stack, server: NatsServer) -> None:
    await stack.worker()
    await stack.stop_core()
    server.restart()
    await stack.start_core()
    assert {beat.service for beat in stack.core.store.roster.beats} == {"site1", "vault"}


async def test_a_message_id_stands_with_the_value(bus: Bus, bucket: Bucket) -> None:
    """What `update` relies on to know its own write."""
    await bucket.update("a", b"1", 0)
    found = await bucket._newest("a")
    assert found is not None
    assert MESSAGE_ID.encode() in base64.b64decode(found["hdrs"])
