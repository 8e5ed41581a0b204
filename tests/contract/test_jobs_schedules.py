"""Schedules over a real nats-server: it decides when they fire, and each time becomes one job."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, reset_tzpath

import msgspec
import pytest
from nats.js.errors import NotFoundError

from snappy.errors import BusError, BusUnavailable, InvalidCommand, JobError, ScheduleNotFound, UnknownService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.schedule_words import Schedule
from snappy.jobs.schedules import desk, plan
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, RealClock, Stack, Worker, jetstream_server
from tests.support.natsserver import NatsServer

NEVER = "0 0 29 2 *"
SOON = 12.0
"""Seconds within which a schedule of every second must have done what a test waits for, on a busy machine."""


@pytest.fixture
async def stack(server: NatsServer) -> AsyncIterator[Stack]:
    stack = Stack(server.url, RealClock())
    await stack.start_core()
    await stack.target()
    await stack.worker()
    yield stack
    await stack.close()


async def jobs(stack: Stack, count: int) -> list[JobRecord]:
    """The jobs there are, once there are ``count``; oldest first."""
    async with asyncio.timeout(SOON):
        while len(stack.core.store.records.kept) < count:
            await stack.core.store.sync()
            await asyncio.sleep(0.02)
    return sorted((kept.value for kept in stack.core.store.records.kept.values()), key=lambda record: record.id)


async def fired(stack: Stack, name: str, after: float = 0.0) -> Schedule:
    """The schedule, once a time later than ``after`` was dealt with."""
    async with asyncio.timeout(SOON):
        while (kept := await stack.core.schedules.book.get(name)) is None or kept.value.last_slot <= after:
            await asyncio.sleep(0.02)
    return kept.value


async def standing(stack: Stack) -> set[str]:
    return await stack.core.schedules.post.present()


# ---- firing ----------------------------------------------------------------------------------------------------------


async def test_it_fires_every_second_and_each_time_is_one_job_of_its_owner(stack: Stack, alice: Client) -> None:
    added = await alice.schedules.add("often", "backup", BACKUP, every=1)
    assert (added.owner, added.state, added.kind) == ("alice", "active", "backup")
    found = await jobs(stack, 3)
    assert {(record.submitter, record.state, record.source) for record in found} == {("alice", State.QUEUED, "site1")}
    assert len({record.request for record in found}) == len(found)
    assert all(str(record.request).startswith("often-2") for record in found)
    now = await alice.schedules.get("often")
    assert now.last_job in {record.id for record in await jobs(stack, 3)}
    assert now.next_slot > now.last_slot > added.created


async def test_a_run_that_fails_or_is_rejected_ends_nothing(stack: Stack, alice: Client) -> None:
    site = Worker(stack.buses[-2], "r1")
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    await jobs(stack, 1)
    held = await site.claimed()
    await site.fail(held, retryable=False)
    assert held.job is not None
    assert (await stack.until(held.job.id)).state is State.FAILED
    assert len(await jobs(stack, 3)) >= 3
    assert (await alice.schedules.get("often")).state == "active"


async def test_at_fires_once_and_is_done(stack: Stack, alice: Client) -> None:
    moment = soon(1.5)
    await alice.schedules.add("once", "backup", BACKUP, at=moment)
    done = await fired(stack, "once")
    assert (done.state, done.next_slot) == ("done", 0.0)
    assert done.last_slot == pytest.approx(datetime.fromisoformat(moment).timestamp())
    assert (await jobs(stack, 1))[0].id == done.last_job
    assert await standing(stack) == set()
    await stack.core.schedules.look()
    assert await standing(stack) == set()
    with pytest.raises(JobError, match="one run"):
        await alice.schedules.resume("once")


async def test_jitter_becomes_the_jobs_not_before(stack: Stack, alice: Client) -> None:
    added = await alice.schedules.add("spread", "backup", BACKUP, every=1, jitter=600)
    wait = plan.jitter(added)
    assert 0 < wait <= 600
    slot = (await fired(stack, "spread")).last_slot
    found = await jobs(stack, 1)
    assert found[0].not_before - wait <= slot
    assert found[0].not_before > time.time()
    assert (await Worker(stack.buses[-2], "r1").claim()).job is None


async def test_two_cores_make_one_job_a_slot_and_one_of_them_goes_on_alone(stack: Stack, alice: Client) -> None:
    first = stack.core
    await stack.start_core()
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    await jobs(stack, 3)
    await stack.stop_core(first)
    slots = [slot_of(record) for record in await jobs(stack, 5)]
    assert len(slots) == len(set(slots))


async def test_a_message_that_comes_again_makes_no_second_job(stack: Stack, alice: Client) -> None:
    """The consumer is made anew, and so reads all that still stands in the stream."""
    await alice.schedules.add("once", "backup", BACKUP, at=soon(1.0))
    done = await fired(stack, "once")
    js, subjects = stack.core.bus.js, stack.core.bus.subjects
    await js.delete_consumer(subjects.schedules_stream, subjects.core_durable)
    async with asyncio.timeout(SOON):
        while not await has_read_all(stack):
            await asyncio.sleep(0.05)
    assert [record.id for record in await jobs(stack, 1)] == [done.last_job]


def soon(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


async def has_read_all(stack: Stack) -> bool:
    """Whether the core has acknowledged the newest message of the schedules stream."""
    js, subjects = stack.core.bus.js, stack.core.bus.subjects
    try:
        known = await js.consumer_info(subjects.schedules_stream, subjects.core_durable)
    except NotFoundError:
        return False
    newest = (await js.stream_info(subjects.schedules_stream)).state.last_seq
    return known.num_pending == 0 and known.ack_floor is not None and known.ack_floor.stream_seq >= newest


async def test_run_now_is_a_job_beside_the_others(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("yearly", "backup", BACKUP, cron=NEVER)
    first = await alice.schedules.run_now("yearly", request="mine")
    again = await alice.schedules.run_now("yearly", request="mine")
    other = await alice.schedules.run_now("yearly")
    assert first.id == again.id != other.id
    assert (first.state, first.submitter) == (State.QUEUED, "alice")


# ---- deaths ----------------------------------------------------------------------------------------------------------


async def test_it_outlives_cores_and_what_was_due_meanwhile_runs_once(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    last = await fired(stack, "often")
    await stack.stop_core()
    count = len(await jobs(stack, 1))
    await asyncio.sleep(2.5)
    await stack.start_core()
    now = await fired(stack, "often", last.last_slot)
    assert now.last_slot > last.last_slot + 1
    assert len(await jobs(stack, count + 1)) <= count + 3


async def test_it_outlives_the_server_and_what_was_due_meanwhile_runs_once(tmp_path: Path) -> None:
    with jetstream_server(tmp_path) as server:
        stack = Stack(server.url, RealClock())
        await stack.start_core()
        await stack.target()
        await stack.worker()
        alice = Client(await stack.bus("alice"))
        await alice.schedules.add("often", "backup", BACKUP, every=1)
        last = await fired(stack, "often")
        server.kill()
        down = time.time()
        await asyncio.sleep(3.5)
        up = time.time()
        server.restart()
        with suppress(BusUnavailable):
            await fired(stack, "often", last.last_slot + 1)
        now = await fired(stack, "often", last.last_slot + 1)
        slots = [slot_of(record) for record in await jobs(stack, 2)]
        assert len(slots) == len(set(slots))
        assert len([slot for slot in slots if down < slot < up]) <= 1
        assert now.state == "active"
        await stack.close()


def slot_of(record: JobRecord) -> float:
    """Unix seconds, from the request of a job of ``every``."""
    text = str(record.request).rpartition("-")[2]
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


async def test_a_message_that_is_missing_is_published_again(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("yearly", "backup", BACKUP, cron=NEVER)
    await alice.schedules.add("resting", "backup", BACKUP, cron=NEVER)
    await alice.schedules.pause("resting")
    await stack.core.bus.js.purge_stream(stack.core.bus.subjects.schedules_stream)
    await stack.stop_core()
    await stack.start_core()
    async with asyncio.timeout(SOON):
        while await standing(stack) != {"yearly"}:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("missed", "count"), [("run-once", 1), ("skip", 0)])
async def test_what_was_missed_runs_once_or_is_skipped(stack: Stack, alice: Client, missed: Any, count: int) -> None:
    """The core is away from before the time until an hour after it."""
    await alice.schedules.add("once", "backup", BACKUP, at=soon(2.0), missed=missed)
    await stack.stop_core()
    clock = stack.clock
    assert isinstance(clock, RealClock)
    clock.ahead = 3600.0
    await stack.start_core()
    assert (await fired(stack, "once")).state == "done"
    assert len(await jobs(stack, count)) == count
    assert (await stack.schedule_events()).count("skipped") == 1 - count


# ---- a clock that changes --------------------------------------------------------------------------------------------


def zone_file(change: int, before: int, after: int) -> bytes:
    """A time zone (RFC 8536) whose offset, in seconds, changes once, at ``change`` (Unix seconds)."""
    names = b"AAA\0BBB\0"
    types = struct.pack(">lBB", before, 0, 0) + struct.pack(">lBB", after, 1, 4)
    head = b"TZif2" + bytes(15)
    old = head + struct.pack(">6L", 0, 0, 0, 0, 1, 4) + struct.pack(">lBB", before, 0, 0) + b"AAA\0"
    new = head + struct.pack(">6L", 0, 0, 0, 1, 2, len(names)) + struct.pack(">q", change) + b"\x01" + types + names
    sign, offset = ("-", after) if after >= 0 else ("", -after)
    return old + new + f"\n<BBB>{sign}{offset // 3600:02}:{offset % 3600 // 60:02}:{offset % 60:02}\n".encode()


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of time zones that Python and a nats-server started by the test know."""
    folder = tmp_path / "zones"
    folder.mkdir()
    monkeypatch.setenv("ZONEINFO", str(folder))
    reset_tzpath([str(folder)])
    yield folder
    reset_tzpath()
    ZoneInfo.clear_cache()


async def test_a_time_that_a_clock_change_skips_runs_right_after_it(zones: Path, tmp_path: Path) -> None:
    """In three seconds the clock of the zone goes from a minute before the pattern's time to a minute after it."""
    with jetstream_server(tmp_path) as server:
        stack = Stack(server.url, RealClock())
        await stack.start_core()
        await stack.target()
        await stack.worker()
        alice = Client(await stack.bus("alice"))
        change = int(time.time()) + 3
        before = 43_200 - change % 86400  # it shows noon
        (zones / "Skipping").write_bytes(zone_file(change, before, before + 120))
        added = await alice.schedules.add("noon", "backup", BACKUP, cron="1 12 * * *", time_zone="Skipping")
        assert added.next_slot == change
        assert await standing(stack) == {"noon", "noon_moved"}
        now = await fired(stack, "noon")
        assert now.last_slot == change
        assert now.next_slot == change + 86400 - 60
        assert [record.request for record in await jobs(stack, 1)] == [f"noon-{local(change, before + 120)}"]
        assert await standing(stack) == {"noon"}
        await stack.close()


async def test_a_time_that_a_clock_change_repeats_runs_once(zones: Path, tmp_path: Path) -> None:
    """The zone's clock shows the pattern's full hour in three seconds, and two seconds later goes back to before it.

    The server forgets the seconds of an offset (zones have none, by now), so that the later offset has none: this
    waits for the 56th second of a minute.
    """
    with jetstream_server(tmp_path) as server:
        stack = Stack(server.url, RealClock())
        await stack.start_core()
        await stack.target()
        await stack.worker()
        alice = Client(await stack.bus("alice"))
        await asyncio.sleep((53 - time.time()) % 60)
        first = round(time.time() + 3)
        before = 3600 - first % 3600
        hour = (first + before) // 3600 % 24
        (zones / "Repeating").write_bytes(zone_file(first + 2, before, before - 4))
        await alice.schedules.add("daily", "backup", BACKUP, cron=f"0 {hour} * * *", time_zone="Repeating")
        js, stream = stack.core.bus.js, stack.core.bus.subjects.schedules_stream
        async with asyncio.timeout(SOON):  # the schedule, and two firings
            while (await js.stream_info(stream)).state.last_seq < 3 or not await has_read_all(stack):
                await asyncio.sleep(0.05)
        assert [record.request for record in await jobs(stack, 1)] == [f"daily-{local(first, before)}"]
        await stack.close()


def local(at: float, offset: int) -> str:
    return datetime.fromtimestamp(at + offset, UTC).strftime("%Y%m%dT%H%M")


# ---- changing --------------------------------------------------------------------------------------------------------


async def test_pause_and_resume(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    await fired(stack, "often")
    paused = await alice.schedules.pause("often")
    assert (paused.state, paused.next_slot) == ("paused", 0.0)
    assert await standing(stack) == set()
    count = len(await jobs(stack, 1))
    await asyncio.sleep(1.5)
    assert len(await jobs(stack, count)) <= count + 1
    assert (await alice.schedules.pause("often")).state == "paused"
    resumed = await alice.schedules.resume("often")
    assert (resumed.state, (await alice.schedules.resume("often")).since) == ("active", resumed.since)
    await fired(stack, "often", resumed.since)
    assert await stack.schedule_events() == ["added", "paused", "resumed"]


async def test_remove(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    await fired(stack, "often")
    assert (await alice.schedules.remove("often")).name == "often"
    assert (await alice.schedules.list(), await standing(stack)) == ([], set())
    with pytest.raises(ScheduleNotFound):
        await alice.schedules.get("often")
    await alice.schedules.add("often", "backup", BACKUP, cron=NEVER)
    assert (await alice.schedules.get("often")).last_job == ""


async def test_what_a_core_left_that_died_in_removing_is_taken_away_when_it_fires(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    book = stack.core.schedules.book
    async with asyncio.timeout(SOON):
        while (kept := await book.get("often")) is not None:
            await book.remove(kept)
    async with asyncio.timeout(SOON):
        while await standing(stack):
            await asyncio.sleep(0.02)


async def test_what_fires_for_another_definition_is_put_right(stack: Stack, alice: Client) -> None:
    """A core died after it had replaced the definition, and before its message."""
    await alice.schedules.add("often", "backup", BACKUP, every=1)
    book = stack.core.schedules.book
    kept = await book.get("often")
    assert kept is not None
    changed = msgspec.structs.replace(kept.value, id="another", every=0, cron=NEVER)
    await book.write(changed, kept.revision)
    subjects = stack.core.bus.subjects
    async with asyncio.timeout(SOON):
        while await pattern(stack, subjects.schedule("often")) != f"0 {NEVER}":
            await asyncio.sleep(0.02)
    assert stack.core.store.records.kept == {}


async def pattern(stack: Stack, subject: str) -> str:
    """Of the newest message there."""
    try:
        message = await stack.core.bus.js.get_last_msg(stack.core.bus.subjects.schedules_stream, subject)
    except NotFoundError:
        return ""
    assert message.headers is not None
    return message.headers["Nats-Schedule"]


async def test_one_may_not_fill_the_bucket(stack: Stack, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "SCHEDULES_PER_OWNER", 1)
    await alice.schedules.add("one", "backup", BACKUP, cron=NEVER)
    await alice.schedules.add("one", "backup", BACKUP, cron="0 3 * * *", replace=True)
    with pytest.raises(InvalidCommand, match="may have no more"):
        await alice.schedules.add("two", "backup", BACKUP, cron=NEVER)
    await Client(await stack.bus("bob")).schedules.add("two", "backup", BACKUP, cron=NEVER)


async def test_adding_again_is_harmless_and_another_one_replaces_only_if_asked(stack: Stack, alice: Client) -> None:
    first = await alice.schedules.add("nightly", "backup", BACKUP, cron="0 2 * * *", time_zone="Europe/Berlin")
    assert await alice.schedules.add("nightly", "backup", BACKUP, cron="0 2 * * *", time_zone="Europe/Berlin") == first
    with pytest.raises(InvalidCommand, match="there is a schedule"):
        await alice.schedules.add("nightly", "backup", BACKUP, cron="0 3 * * *")
    second = await alice.schedules.add("nightly", "backup", BACKUP, cron="0 3 * * *", replace=True)
    assert second.id != first.id
    assert [schedule.cron for schedule in await alice.schedules.list()] == ["0 3 * * *"]
    subjects = stack.core.bus.subjects
    message = await stack.core.bus.js.get_last_msg(subjects.schedules_stream, subjects.schedule("nightly"))
    assert message.headers is not None
    assert {name: message.headers[name] for name in message.headers if name.startswith("Nats-Schedule")} == {
        "Nats-Schedule": "0 0 3 * * *",
        "Nats-Schedule-Time-Zone": "UTC",
        "Nats-Schedule-Target": subjects.due("nightly"),
    }


async def test_anothers_schedule_does_not_exist_and_its_name_is_taken(stack: Stack, alice: Client) -> None:
    await alice.schedules.add("nightly", "backup", BACKUP, cron=NEVER)
    mallory = Client(await stack.bus("mallory"))
    assert await mallory.schedules.list() == []
    for ask in (mallory.schedules.get, mallory.schedules.pause, mallory.schedules.remove, mallory.schedules.run_now):
        with pytest.raises(ScheduleNotFound):
            await ask("nightly")
    with pytest.raises(InvalidCommand, match="there is a schedule"):
        await mallory.schedules.add("nightly", "backup", BACKUP, cron=NEVER, replace=True)


async def test_with_authentication_off_everybody_is_the_same_caller(server: NatsServer) -> None:
    stack = Stack(server.url, RealClock())
    await stack.start_core(SETTINGS, private_inboxes=False)
    await stack.target()
    await stack.worker()
    await Client(await stack.bus("alice")).schedules.add("nightly", "backup", BACKUP, cron=NEVER)
    assert (await Client(await stack.bus("bob")).schedules.pause("nightly")).state == "paused"
    await stack.close()


# ---- refusing --------------------------------------------------------------------------------------------------------


async def test_what_can_never_run_or_would_always_is_refused(stack: Stack, alice: Client) -> None:
    for fields, told in (
        ({}, "none of them"),
        ({"every": 0}, r"\$\.every"),
        ({"cron": "* * * *"}, "five fields"),
        ({"every": 60, "missed": "twice"}, r"\$\.missed"),
    ):
        with pytest.raises(InvalidCommand, match=told):
            await alice.schedules.add("bad", "backup", BACKUP, **fields)  # type: ignore[arg-type]
    assert (await alice.schedules.list(), await standing(stack)) == ([], set())


async def test_the_server_understands_what_is_not_refused(stack: Stack, alice: Client) -> None:
    patterns = ["*/15 8-18 * * MON-FRI", "5 4 * * 7", "0 0 1 JAN,jul *", "0 3 1-7 * 5-7", "10/20 0 * * 1/2", NEVER]
    for number, pattern in enumerate(patterns):
        await alice.schedules.add(f"p{number}", "backup", BACKUP, cron=pattern, time_zone="America/New_York")
    assert len(await standing(stack)) == len(await alice.schedules.list()) == len(patterns)


async def test_the_job_is_looked_at_like_any_command(stack: Stack, alice: Client) -> None:
    for kind, command, error in (
        ("backup", {**BACKUP, "target": "nowhere"}, UnknownService),
        ("backup", {**BACKUP, "password": "hunter2"}, InvalidCommand),
        ("backup", {**BACKUP, "request": "mine"}, InvalidCommand),
        ("backup", {**BACKUP, "deadline": "2030-01-01T00:00:00Z"}, InvalidCommand),
        ("backup", {**BACKUP, "options": {"paths": ["/" + "x" * 70_000]}}, InvalidCommand),
        ("burn", BACKUP, InvalidCommand),
    ):
        with pytest.raises(error):
            await alice.schedules.add("bad", kind, command, every=60)
    with pytest.raises(InvalidCommand, match=r"\$\.name"):
        await alice.schedules.add("Not A Name", "backup", BACKUP, every=60)
    assert await alice.schedules.list() == []


@pytest.mark.parametrize(
    ("code", "told"), [(10189, "does not understand the pattern"), (10223, "does not know the time zone")]
)
async def test_what_the_server_refuses_is_told_and_leaves_nothing(
    stack: Stack, alice: Client, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    """The server's own word: its pattern or its zone is spoilt on the way."""
    spoilt = {10189: {"Nats-Schedule": "0 0 0 0 0 0"}, 10223: {"Nats-Schedule-Time-Zone": "Mars/Olympus"}}[code]
    headers = plan.headers
    monkeypatch.setattr(plan, "headers", lambda *given: headers(*given) | spoilt)
    with pytest.raises(InvalidCommand, match=told):
        await alice.schedules.add("bad", "backup", BACKUP, cron="0 2 * * *")
    assert (await alice.schedules.list(), await standing(stack)) == ([], set())


async def test_a_message_that_is_not_of_the_schedule_runs_nothing(stack: Stack, alice: Client) -> None:
    """On a server without permissions anybody may publish there; who does not know the definition's id is refused."""
    await alice.schedules.add("nightly", "backup", BACKUP, cron=NEVER)
    bus = await stack.bus("mallory")
    forged = {plan.DEFINITION: "guess"}
    with pytest.raises(BusError, match="invalid scheduler"):  # the server's own word
        await bus.store(bus.subjects.due("nightly"), b"{}", headers=forged | {"Nats-Scheduler": "me"})
    await bus.store(bus.subjects.due("nightly"), b"{}", headers=forged)
    async with asyncio.timeout(SOON):
        while not any("no message of the schedule" in reason for reason in await stack.refusals()):
            await asyncio.sleep(0.02)
    assert stack.core.store.records.kept == {}
