"""The audit service: each event once, in the stream's order, whatever dies; and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snappy.bus import streams
from snappy.errors import NoSpace
from snappy.frontend.api import Client
from snappy.jobs import extract
from snappy.jobs.audit import AuditService
from snappy.jobs.audit_words import AuditFilter
from snappy.jobs.auditlog import AuditLog
from tests.support.jobs import BACKUP, Stack, Worker


@asynccontextmanager
async def auditing(stack: Stack, folder: Path, **options: Any) -> AsyncIterator[AuditService]:
    service = AuditService(await stack.bus("audit"), folder, **options)
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(5):
            await service.ready.wait()
        yield service
    finally:
        running.cancel()
        await asyncio.wait({running})
        service.close()


async def entries(service: AuditService, number: int) -> list[Any]:
    """The log's entries, oldest first, once there are so many."""
    async with asyncio.timeout(5):
        while len(service.log) < number:
            await asyncio.sleep(0.01)
    return list(service.log.db)


async def finished_job(site: Worker, alice: Client, snapshot: str = "abc") -> str:
    job = (await alice.submit("backup", BACKUP)).id
    await site.succeed(await site.claimed(), snapshot)
    return (await alice.wait(job)).id


def sequences(found: list[Any]) -> list[int]:
    return [entry["sequence"] for entry in found]


async def test_every_event_once_and_in_order(stack: Stack, site: Worker, alice: Client, tmp_path: Path) -> None:
    jobs = [await finished_job(site, alice) for _ in range(5)]
    async with auditing(stack, tmp_path / "log") as service:
        jobs += [await finished_job(site, alice) for _ in range(5)]
        found = await entries(service, 30)
        assert sequences(found) == list(range(1, 31))
        assert [entry["event"]["id"] for entry in found] == [f"{job}/{n}" for job in jobs for n in (1, 2, 3)]
        assert service.log.verify().fault == ""


async def test_who_asked_what_which_worker_and_which_result(
    stack: Stack, site: Worker, alice: Client, tmp_path: Path
) -> None:
    async with auditing(stack, tmp_path / "log") as service:
        job = await finished_job(site, alice, "5eed")
        await entries(service, 3)
        newest, *_ = await alice.audit(job=job)
        record = newest["event"]["data"]
        assert newest["event"]["submitter"] == "alice"
        assert record["command"]["options"] == BACKUP["options"]
        assert record["attempts"][0]["service"] == "site1"
        assert record["result"]["snapshot"] == "5eed"


async def test_events_delivered_again_are_not_written_again(
    stack: Stack, site: Worker, alice: Client, tmp_path: Path
) -> None:
    """The audit dies after the write and before the acknowledgement: the consumer made anew says all again."""
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        await entries(service, 3)
    subjects = stack.core.bus.subjects
    await stack.core.bus.js.delete_consumer(subjects.events_stream, subjects.audit_durable)
    await streams.ensure(stack.core.bus)
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        found = await entries(service, 6)
        assert sequences(found) == [1, 2, 3, 4, 5, 6]
        assert not any("alarm" in entry for entry in found)


async def test_events_that_left_unread_are_an_alarm(stack: Stack, site: Worker, alice: Client, tmp_path: Path) -> None:
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        await entries(service, 3)
    await finished_job(site, alice)
    await finished_job(site, alice)
    await truncate_events(stack, keep_from=8)
    async with auditing(stack, tmp_path / "log") as service:
        found = await entries(service, 6)
        alarm = found[3]
        assert (alarm["alarm"], alarm["first"], alarm["last"]) == ("events are missing", 4, 7)
        assert sequences(found[4:]) == [8, 9]


async def truncate_events(stack: Stack, keep_from: int) -> None:
    """As a full stream does: the oldest leave. The stream is made anew with what remains, as purging is forbidden."""
    js, subjects = stack.core.bus.js, stack.core.bus.subjects
    found = [await js.get_msg(subjects.events_stream, seq) for seq in range(keep_from, 10)]
    await js.delete_stream(subjects.events_stream)
    config = next(stream for stream in streams.streams(subjects) if stream.name == subjects.events_stream).config()
    body = {**config, "first_seq": keep_from}
    await streams._api(stack.core.bus, f"STREAM.CREATE.{subjects.events_stream}", body)
    await streams.ensure(stack.core.bus)
    for message in found:
        await js.publish(message.subject or "", message.data or b"")


async def test_a_stream_made_anew_is_an_alarm_and_nothing_is_skipped(
    stack: Stack, site: Worker, alice: Client, tmp_path: Path
) -> None:
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        await entries(service, 3)
    await stack.core.bus.js.delete_stream(stack.core.bus.subjects.events_stream)
    await streams.ensure(stack.core.bus)
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        found = await entries(service, 7)
        assert found[3]["alarm"] == "the events stream was made anew"
        assert [(entry["epoch"], entry["sequence"]) for entry in found[4:]] == [(2, 1), (2, 2), (2, 3)]
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        assert sequences(await entries(service, 10))[-3:] == [4, 5, 6]


async def test_a_log_that_cannot_be_written_loses_nothing(
    stack: Stack, site: Worker, alice: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with auditing(stack, tmp_path / "log") as service:
        append, refused = service.log.append, asyncio.Event()
        loop = asyncio.get_running_loop()

        def full(documents: Any) -> list[int]:
            if not refused.is_set():
                loop.call_soon_threadsafe(refused.set)
                raise NoSpace()
            return append(documents)

        monkeypatch.setattr(service.log, "append", full)
        job = asyncio.create_task(finished_job(site, alice))
        async with asyncio.timeout(5):
            await refused.wait()
            await job
        found = await entries(service, 3)
        assert sequences(found) == [1, 2, 3]
        assert not any("alarm" in entry for entry in found)


async def test_a_caller_reads_of_its_own_jobs(stack: Stack, site: Worker, alice: Client, tmp_path: Path) -> None:
    bob = Client(await stack.bus("bob"))
    async with auditing(stack, tmp_path / "log", readers=frozenset({"auditor"})) as service:
        job = await finished_job(site, alice)
        await finished_job(site, bob)
        await entries(service, 6)
        assert await bob.audit(job=job) == []
        assert {entry["event"]["submitter"] for entry in await bob.audit(submitter="alice")} == {"bob"}
        assert {entry["event"]["submitter"] for entry in await bob.audit()} == {"bob"}
        auditor = Client(await stack.bus("auditor"))
        assert len(await auditor.audit()) == 6
        assert len(await auditor.audit(submitter="bob", limit=2)) == 2


async def test_verify_by_the_api(stack: Stack, site: Worker, alice: Client, tmp_path: Path) -> None:
    async with auditing(stack, tmp_path / "log") as service:
        await finished_job(site, alice)
        await entries(service, 3)
        state = await alice.audit_verify()
        assert (state.entries, state.fault, state.head) == (3, "", service.log.head)


async def test_a_second_writer_is_refused_and_a_reader_is_not(stack: Stack, tmp_path: Path) -> None:
    async with auditing(stack, tmp_path / "log"):
        with pytest.raises(Exception, match="another process"):
            AuditService(await stack.bus("audit2"), tmp_path / "log")
        assert len(AuditLog(tmp_path / "log", writable=False)) == 0


async def test_an_export_is_checked_without_the_log(stack: Stack, site: Worker, alice: Client, tmp_path: Path) -> None:
    bob = Client(await stack.bus("bob"))
    async with auditing(stack, tmp_path / "log", readers=frozenset({"bob"})) as service:
        for _ in range(3):
            await finished_job(site, alice)
        await finished_job(site, bob)
        found = await entries(service, 12)
        path = tmp_path / "export"
        path.write_text("".join([f"{line}\n" async for line in bob.audit_export()]))
        assert extract.check(path) == (12, 12, service.log.head, True)
        wanted = AuditFilter(submitter="alice", kind="backup", since=found[3]["time"], until=found[7]["time"])
        path.write_text("".join([f"{line}\n" async for line in alice.audit_export(wanted)]))
        assert extract.check(path)[:2] == (4, 7)
        assert len(await alice.audit(since=wanted.since, until=wanted.until)) == 4
        own = [line async for line in alice.audit_export() if '"i":' in line]
        assert len(own) == 9
