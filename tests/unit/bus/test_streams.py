"""Streams as data: made once however often asked for, and an operator's own taken as far as they fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from snappy.bus import broker, pulling, streams
from snappy.bus.connection import Bus
from snappy.bus.pulling import Puller, in_progress
from snappy.bus.subjects import Subjects
from snappy.config import Nats
from snappy.errors import BusError, StreamMismatch
from tests.support.natsserver import NatsServer, nats_server

SUBJECTS = Subjects()
ALL = [*streams.streams(SUBJECTS), *streams.buckets(SUBJECTS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path, f'jetstream {{ store_dir: "{tmp_path}/store" }}') as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    made = await Bus.connect(Nats(url=server.url), name="test", user="core")
    yield made
    await made.drain()


async def make(bus: Bus, config: dict[str, Any]) -> None:
    """As an operator would."""
    answer = await bus.request(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode(), timeout=5)
    assert "error" not in json.loads(answer)


async def test_again_and_by_several_cores_at_once(bus: Bus) -> None:
    await asyncio.gather(*(streams.ensure(bus) for _ in range(4)))
    await streams.ensure(bus)
    assert {info.config.name for info in await bus.js.streams_info()} == {stream.name for stream in ALL}


async def test_two_prefixes_live_side_by_side(server: NatsServer, bus: Bus) -> None:
    other = await Bus.connect(Nats(url=server.url), name="test", prefix="second-site")
    await streams.ensure(bus)
    await streams.ensure(other)
    await streams.ensure_work_consumer(other, "site1")
    await other.drain()


async def test_what_is_stored_stays(bus: Bus) -> None:
    await streams.ensure(bus)
    await bus.store("snappy.cmd.backup.alice", b"{}")
    await streams.ensure(bus)
    assert (await bus.js.stream_info("SNAPPY_COMMANDS")).state.messages == 1


@pytest.mark.parametrize("stream", ALL, ids=lambda stream: stream.name)
def test_on_disk_and_acknowledged(stream: streams.Stream) -> None:
    config = stream.config(replicas=3)
    assert config["storage"] == "file"
    assert config["num_replicas"] == 3
    assert not config.get("no_ack")
    assert "persist_mode" not in config


def test_only_the_cores_own_streams_let_a_header_command_the_server() -> None:
    commanded = {stream.name for stream in ALL if {"allow_msg_schedules", "allow_rollup_hdrs"} & set(stream.extra)}
    assert commanded == {"SNAPPY_SCHEDULES", *(stream.name for stream in streams.buckets(SUBJECTS))}


def test_the_embedded_server_has_room_for_all() -> None:
    reserved = sum(stream.max_bytes for stream in ALL if stream.max_bytes > 0)
    assert reserved < broker.JETSTREAM["max_file_store"]


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("SNAPPY_COMMANDS", "subjects", ["snappy.cmd.*.*"]),
        ("SNAPPY_COMMANDS", "storage", "memory"),
        ("SNAPPY_COMMANDS", "max_msgs_per_subject", 5),
        ("SNAPPY_COMMANDS", "no_ack", True),
        ("SNAPPY_COMMANDS", "allow_rollup_hdrs", True),
        ("SNAPPY_REPORTS", "retention", "limits"),
        ("SNAPPY_EVENTS", "duplicate_window", 10**9),
        ("SNAPPY_SCHEDULES", "allow_msg_schedules", False),
        ("KV_snappy_jobs", "max_msgs_per_subject", 5),
    ],
)
async def test_an_operators_stream_that_does_not_fit(bus: Bus, name: str, field: str, value: Any) -> None:
    [wanted] = [stream.config() for stream in ALL if stream.name == name]
    await make(bus, wanted | {field: value})
    with pytest.raises(StreamMismatch, match=f"{name}.*{field}") as caught:
        await streams.ensure(bus)
    assert caught.value.details["field"] == field
    assert caught.value.details["found"] == (value or None)
    assert caught.value.details["wanted"] == wanted.get(field)


async def test_an_operators_limits_are_the_operators(bus: Bus) -> None:
    commands = streams.streams(SUBJECTS)[0].config()
    await make(bus, commands | {"max_bytes": 1 << 20, "max_age": 10**15, "description": "mine", "compression": "s2"})
    await streams.ensure(bus)
    assert (await bus.js.stream_info("SNAPPY_COMMANDS")).config.max_bytes == 1 << 20


async def test_fewer_replicas_than_asked(bus: Bus) -> None:
    await streams.ensure(bus)
    with pytest.raises(StreamMismatch, match="num_replicas 1") as caught:
        await streams.ensure(bus, replicas=3)
    assert caught.value.exit_code == 2


async def test_replicas_without_a_cluster(bus: Bus) -> None:
    with pytest.raises(BusError, match="SNAPPY_COMMANDS cannot be made"):
        await streams.ensure(bus, replicas=3)


async def test_a_consumer_that_does_not_fit(bus: Bus) -> None:
    await streams.ensure(bus)
    await bus.js.add_consumer(
        "SNAPPY_WORK", name="work-site1", durable_name="work-site1", filter_subject="snappy.work.x"
    )
    with pytest.raises(StreamMismatch, match="filter_subject"):
        await streams.ensure_work_consumer(bus, "site1")


async def test_calls_reach_the_service_they_are_for(bus: Bus) -> None:
    await streams.ensure(bus)
    await asyncio.gather(*(streams.ensure_work_consumer(bus, "site1") for _ in range(3)))
    await streams.ensure_work_consumer(bus, "site2")
    await bus.store("snappy.work.site2", b"for site2")
    await bus.store("snappy.work.site1", b"for site1")
    for site in ("site1", "site2"):
        pull = await bus.js.pull_subscribe_bind(durable=f"work-{site}", stream="SNAPPY_WORK")
        [call] = await pull.fetch(1, timeout=5)
        assert call.data == f"for {site}".encode()
        await call.ack_sync(timeout=5)


async def test_an_older_snappys_wait_for_the_core_is_shortened(bus: Bus) -> None:
    await streams.ensure(bus)
    known = (await bus.js.consumer_info("SNAPPY_REPORTS", "snappy_core")).config
    await bus.js.add_consumer("SNAPPY_REPORTS", known.evolve(ack_wait=30.0, description="mine"))
    await streams.ensure(bus)
    found = (await bus.js.consumer_info("SNAPPY_REPORTS", "snappy_core")).config
    assert (found.ack_wait, found.description) == (streams.CORE_ACK_SECONDS, "mine")
    assert (await bus.js.consumer_info("SNAPPY_EVENTS", "snappy_audit")).config.ack_wait == streams.CORE_ACK_SECONDS


async def test_what_is_still_handled_does_not_come_again(bus: Bus) -> None:
    await streams.ensure(bus)
    known = (await bus.js.consumer_info("SNAPPY_REPORTS", "snappy_core")).config
    await bus.js.add_consumer("SNAPPY_REPORTS", known.evolve(ack_wait=1.0))
    await bus.store("snappy.report.site1.r1", b"{}")
    batches = Puller(bus, "SNAPPY_REPORTS", "snappy_core", expires=1.0).batches()
    [slow] = await anext(batches)
    again = asyncio.ensure_future(anext(batches))
    async with in_progress([slow], 0.1):
        await asyncio.wait({again}, timeout=2.0)
        assert not again.done()
    assert (await asyncio.wait_for(again, 5.0))[0].metadata.num_delivered == 2


async def test_what_was_asked_while_the_server_was_away_swallows_nothing(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "GRACE_SECONDS", -4.8)  # many requests in a short outage, each good for five seconds
    await streams.ensure(bus)
    batches = Puller(bus, "SNAPPY_REPORTS", "snappy_core").batches()
    arriving = asyncio.ensure_future(anext(batches))
    server.kill()
    await asyncio.wait({arriving}, timeout=2.0)
    server.restart()
    for number in range(6):
        await bus.store("snappy.report.site1.r1", str(number).encode(), timeout=10.0)
    got: list[Msg] = []
    while len(got) < 6:
        got += await asyncio.wait_for(arriving, 10.0)
        arriving = asyncio.ensure_future(anext(batches))
    arriving.cancel()
    assert [(message.data, message.metadata.num_delivered) for message in got] == [(b"%d" % n, 1) for n in range(6)]


async def test_commands_are_read_by_the_core_with_and_without_a_submitter(bus: Bus) -> None:
    await streams.ensure(bus)
    await bus.store("snappy.cmd.backup.alice", b"1")
    await bus.store("snappy.cmd.backup", b"2")
    pull = await bus.js.pull_subscribe_bind(durable="snappy_core", stream="SNAPPY_COMMANDS")
    got = [(await pull.fetch(1, timeout=5))[0].subject for _ in range(2)]
    assert [SUBJECTS.parse_command(subject) for subject in got] == [("backup", "alice"), ("backup", "anyone")]


async def test_a_command_has_a_largest_size(bus: Bus) -> None:
    await streams.ensure(bus)
    with pytest.raises(BusError, match="size"):
        await bus.store("snappy.cmd.backup.alice", bytes(streams.COMMAND_BYTES))


async def test_buckets_work_with_nats_py(bus: Bus) -> None:
    await streams.ensure(bus)
    bucket = await bus.js.key_value("snappy_jobs")
    first = await bucket.create("a", b"1")
    await bucket.update("a", b"2", last=first)
    assert (await bucket.get("a")).value == b"2"
    await bucket.purge("a")
    assert await bucket.create("a", b"3") > first


async def test_of_a_schedule_the_newest_remains(bus: Bus) -> None:
    await streams.ensure(bus)
    every = {"Nats-Schedule": "0 0 2 * * *", "Nats-Schedule-Target": "snappy.due.nightly"}
    for body in (b"old", b"new"):
        await bus.store("snappy.schedule.nightly", body, headers=every)
    kept = await bus.js.get_last_msg("SNAPPY_SCHEDULES", "snappy.schedule.nightly")
    assert kept.data == b"new"
    assert (await bus.js.stream_info("SNAPPY_SCHEDULES")).state.messages == 1
