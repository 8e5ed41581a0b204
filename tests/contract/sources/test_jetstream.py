"""The plug-in ``jetstream`` against a real server, without a bus: consumers, what is slow, what stands in the way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StorageType, StreamConfig

from snappy.errors import BadOptions, SourceMissing, SourceUnavailable
from snappy.repository.entries import Node
from snappy.sources.plugins import jetstream_snapshot, jetstream_upload
from snappy.sources.plugins.jetstream import JetstreamOptions, JetstreamSource
from snappy.sources.plugins.jetstream_restore import UNFINISHED, JetstreamRestore, JetstreamSink
from tests.support import jetstream
from tests.support.jetstream import Jetstream, messages
from tests.support.plugin_jobs import Jobs

SILENCE_SECONDS = 6.5
"""Longer than JetStream waits."""
MIB = 1 << 20
Files = dict[bytes, bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jetstream]:
    with jetstream.running(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def jobs(server: Jetstream, tmp_path: Path) -> Jobs:
    server.wipe()
    return Jobs(tmp_path, "jetstream", server.settings(tmp_path))


async def run(server: Jetstream, work: Any, account: str = "main") -> Any:
    return await asyncio.to_thread(server.run, work, account)


async def files_of(jobs: Jobs, *streams: str, silence: float = 0.0) -> Files:
    """What the plug-in gives, after so many seconds amid each file."""
    source = JetstreamSource(JetstreamOptions(server="main", streams=streams), jobs.site)

    def read(frozen: Any) -> Files:
        found = {}
        for entry in source.export(frozen):
            if entry.open:
                with entry.open() as file:
                    first = file.read(1)
                    time.sleep(silence)
                    found[entry.path] = first + file.read()
        return found

    async with source.snap() as frozen:
        return await asyncio.to_thread(read, frozen)


def restored(jobs: Jobs, files: Files, *, silence: float = 0.0, **options: Any) -> None:
    def pieces(data: bytes) -> Iterator[bytes]:
        yield data[: len(data) // 2]
        time.sleep(silence)
        yield data[len(data) // 2 :]

    sink = JetstreamSink(JetstreamRestore(**options), jobs.site)
    try:
        for path, data in files.items():
            sink.receive(path, Node(name=path.rpartition(b"/")[2], type="file"), pieces(data))
        sink.finish()
    finally:
        sink.close()


async def numbers(js: JetStreamContext) -> None:
    await js.add_stream(StreamConfig(name="NUMBERS", subjects=["numbers"]))
    for number in range(20):
        await js.publish("numbers", b"%d" % number)


async def test_a_consumer_goes_on_from_what_was_acknowledged(server: Jetstream, jobs: Jobs) -> None:
    async def consume(js: JetStreamContext) -> None:
        await numbers(js)
        await js.add_consumer("NUMBERS", ConsumerConfig(durable_name="one", ack_policy="explicit", ack_wait=1.0))  # type: ignore[arg-type]
        reader = await js.pull_subscribe_bind("one", "NUMBERS")
        for message in (await reader.fetch(10))[:7]:
            await message.ack_sync()

    async def go_on(js: JetStreamContext) -> list[int]:
        reader = await js.pull_subscribe_bind("one", "NUMBERS")
        await asyncio.sleep(1.2)
        found: set[int] = set()
        while len(found) < 13:
            found |= {int(message.data) for message in await reader.fetch(20, timeout=5)}
        return sorted(found)

    await run(server, consume)
    await jobs.backup(server="main")
    await jobs.restore(server="other")
    assert await run(server, go_on, "other") == list(range(7, 20))


async def test_what_lies_in_a_snapshot_is_what_the_nats_program_reads(server: Jetstream, jobs: Jobs) -> None:
    await run(server, numbers)
    files = await files_of(jobs)
    assert list(files) == [f"/jetstream/main/NUMBERS/{name}".encode() for name in ("backup.json", "stream.arc.s2")]
    about = json.loads(next(iter(files.values())))
    assert about["config"]["subjects"] == ["numbers"]
    assert about["state"]["messages"] == 20


async def test_buckets_of_objects_and_streams_in_memory_come_back(server: Jetstream, jobs: Jobs) -> None:
    data = bytes(range(256)) * 4096

    async def fill(js: JetStreamContext) -> None:
        await (await js.create_object_store("things")).put("thing", data)
        await js.add_stream(StreamConfig(name="MEMORY", subjects=["memory"], storage=StorageType.MEMORY))
        await js.publish("memory", b"kept")

    async def found(js: JetStreamContext) -> tuple[bytes | None, list[tuple[int, str, bytes]]]:
        return (await (await js.object_store("things")).get("thing")).data, await messages(js, "MEMORY")

    await run(server, fill)
    result = await jobs.backup(server="main", streams=["OBJ_*", "MEMORY"])
    assert result.warnings == []
    await jobs.restore(server="other")
    assert await run(server, found, "other") == (data, [(1, "memory", b"kept")])


async def test_keys_that_are_overwritten_meanwhile_are_warned_of(server: Jetstream, jobs: Jobs) -> None:
    async def fill(js: JetStreamContext) -> None:
        bucket = await js.create_key_value(bucket="B")
        for number in range(300):
            await bucket.put(f"key.{number}", bytes(100_000))

    async def overwrite(js: JetStreamContext) -> None:
        await (await js.key_value("B")).put("key.299", b"new")

    await run(server, fill)
    source = JetstreamSource(JetstreamOptions(server="main"), jobs.site)
    async with source.snap() as frozen:
        entries = await asyncio.to_thread(lambda: [entry for entry in source.export(frozen) if entry.changed])
        (entry,) = entries
        assert entry.open
        assert entry.changed
        with await asyncio.to_thread(entry.open) as file:
            await asyncio.to_thread(file.read)
        assert await asyncio.to_thread(entry.changed) == ""
        await run(server, overwrite)
        assert "may be missing" in await asyncio.to_thread(entry.changed)


async def test_a_stream_that_stands_there_stays_unless_it_is_to_be_replaced(server: Jetstream, jobs: Jobs) -> None:
    async def change(js: JetStreamContext) -> None:
        await js.publish("numbers", b"new")

    async def count(js: JetStreamContext) -> int:
        return int((await js.stream_info("NUMBERS")).state.messages)

    await run(server, numbers)
    await jobs.backup(server="main")
    await run(server, change)
    with pytest.raises(BadOptions, match="has a stream 'NUMBERS'"):
        await jobs.restore(server="main")
    assert await run(server, count) == 21
    await jobs.restore(server="main", overwrite=True)
    assert await run(server, count) == 20


async def test_what_a_dead_restore_left_is_removed_by_its_service_alone(server: Jetstream, jobs: Jobs) -> None:
    async def leave(js: JetStreamContext) -> None:
        await js.add_stream(StreamConfig(name="NUMBERS", subjects=["numbers"], metadata={UNFINISHED: whose}))

    async def metadata(js: JetStreamContext) -> dict[str, str]:
        return (await js.stream_info("NUMBERS")).config.metadata or {}

    await run(server, numbers)
    await jobs.backup(server="main")
    whose = "another"
    await run(server, leave, "other")
    with pytest.raises(BadOptions):
        await jobs.restore(server="other")
    await asyncio.to_thread(server.wipe_account, "other")
    whose = "site"
    await run(server, leave, "other")
    await jobs.restore(server="other")
    assert UNFINISHED not in await run(server, metadata, "other")


async def test_two_restores_to_one_place_leave_each_others_streams_alone(server: Jetstream, jobs: Jobs) -> None:
    async def metadata(js: JetStreamContext) -> dict[str, str]:
        return (await js.stream_info("NUMBERS")).config.metadata or {}

    async def remove(js: JetStreamContext) -> None:
        await js.delete_stream("NUMBERS")

    def sink_with(files: Files) -> JetstreamSink:
        sink = JetstreamSink(JetstreamRestore(server="other", overwrite=True), jobs.site)
        try:
            for path, data in files.items():
                sink.receive(path, Node(name=path.rpartition(b"/")[2], type="file"), iter([data]))
        except BaseException:
            sink.close()
            raise
        return sink

    await run(server, numbers)
    files = await files_of(jobs)
    first = await asyncio.to_thread(sink_with, files)
    with pytest.raises(SourceUnavailable, match="another restore makes"):
        await asyncio.to_thread(sink_with, files)
    await asyncio.to_thread(first.finish)
    await asyncio.to_thread(first.close)
    assert UNFINISHED not in await run(server, metadata, "other")
    dead = await asyncio.to_thread(sink_with, files)
    await asyncio.to_thread(dead._connection.close)
    last = await asyncio.to_thread(sink_with, files)
    await asyncio.to_thread(dead.close)  # what it made is not there any more
    await asyncio.to_thread(last.finish)
    await asyncio.to_thread(last.close)
    assert UNFINISHED not in await run(server, metadata, "other")
    robbed = await asyncio.to_thread(sink_with, files)
    await run(server, remove, "other")
    with pytest.raises(SourceUnavailable, match="somebody removed"):
        await asyncio.to_thread(robbed.finish)
    await asyncio.to_thread(robbed.close)


async def test_a_stream_that_was_backed_up_unfinished_is_not_so_for_ever(server: Jetstream, jobs: Jobs) -> None:
    async def leave(js: JetStreamContext) -> None:
        await js.add_stream(StreamConfig(name="NUMBERS", subjects=["numbers"], metadata={UNFINISHED: "x", "kept": "y"}))

    async def metadata(js: JetStreamContext) -> dict[str, str]:
        return (await js.stream_info("NUMBERS")).config.metadata or {}

    await run(server, leave)
    await asyncio.to_thread(restored, jobs, await files_of(jobs), server="other")
    found = await run(server, metadata, "other")
    assert (UNFINISHED in found, found["kept"]) == (False, "y")


async def test_a_stream_that_is_removed_meanwhile_is_left_out(server: Jetstream, jobs: Jobs) -> None:
    async def remove(js: JetStreamContext) -> None:
        await js.delete_stream("NUMBERS")

    for streams, kind in (((), FileNotFoundError), (("NUMBERS",), SourceMissing)):
        await run(server, numbers)
        source = JetstreamSource(JetstreamOptions(server="main", streams=streams), jobs.site)
        async with source.snap() as frozen:
            await run(server, remove)
            for entry in source.export(frozen):
                if entry.open:
                    with pytest.raises(kind):
                        await asyncio.to_thread(entry.open)


async def test_a_restore_that_lacks_a_stream_makes_none(server: Jetstream, jobs: Jobs) -> None:
    async def names(js: JetStreamContext) -> list[str | None]:
        return [info.config.name for info in await js.streams_info()]

    await run(server, numbers)
    files = await files_of(jobs)
    with pytest.raises(SourceMissing, match="no stream 'MORE'"):
        await asyncio.to_thread(restored, jobs, files, server="other", streams={"NUMBERS": "N2", "MORE": "MORE"})
    assert await run(server, names, "other") == []
    await asyncio.to_thread(restored, jobs, files, server="other", streams={"NUMBERS": "N2"})
    assert await run(server, names, "other") == ["N2"]


async def test_what_an_old_server_wrote_gets_no_other_name(server: Jetstream, jobs: Jobs) -> None:
    await run(server, numbers)
    files = {path.replace(b".arc.", b".tar."): data for path, data in (await files_of(jobs)).items()}
    with pytest.raises(BadOptions, match=r"before 2\.15"):
        await asyncio.to_thread(restored, jobs, files, server="other", streams={"NUMBERS": "N2"})


@pytest.mark.long
@pytest.mark.parametrize("is_patient", [True, False])
async def test_who_is_slow_keeps_a_snapshot_alive(
    server: Jetstream, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, is_patient: bool
) -> None:
    await asyncio.to_thread(server.fill, 24 * MIB)
    if is_patient:
        files = await files_of(jobs, "NOISE", silence=SILENCE_SECONDS)
        await asyncio.to_thread(restored, jobs, files, server="other")
        return
    monkeypatch.setattr(jetstream_snapshot, "PATIENCE_SECONDS", 60.0)
    with pytest.raises(SourceUnavailable, match="gave up the snapshot"):
        await files_of(jobs, "NOISE", silence=SILENCE_SECONDS)


@pytest.mark.long
@pytest.mark.parametrize("is_patient", [True, False])
async def test_who_is_slow_keeps_a_restore_alive(
    server: Jetstream, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, is_patient: bool
) -> None:
    await asyncio.to_thread(server.fill, 4 * MIB)
    files = await files_of(jobs, "NOISE")
    if is_patient:
        await asyncio.to_thread(restored, jobs, files, silence=SILENCE_SECONDS, server="other")
        return
    monkeypatch.setattr(jetstream_upload, "PATIENCE_SECONDS", 60.0)
    with pytest.raises(SourceUnavailable, match="gave up a restore"):
        await asyncio.to_thread(restored, jobs, files, silence=SILENCE_SECONDS, server="other")
    assert await asyncio.to_thread(server.leftovers) == []
