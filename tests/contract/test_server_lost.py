"""A NATS server that comes back with less than it had is found, said loudly, and given back what the audit knows."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.errors import Error as NatsError

from snappy.errors import JobNotFound
from snappy.frontend.api import Client
from snappy.jobs.audit import AuditService
from snappy.jobs.core import Core
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.recall import NOTE
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, SIGNING_KEY, Clock, Stack, Worker, jetstream_server
from tests.support.natsserver import NatsServer
from tests.support.roles import standing


class Place:
    """A server, its state, the audit's log; :meth:`up` starts what runs there."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        self.folder = folder
        self.server = server
        self.clock = Clock()
        self.prefix = ""

    @asynccontextmanager
    async def up(self) -> AsyncIterator[tuple[Stack, AuditService]]:
        stack = Stack(self.server.url, self.clock)
        stack.prefix = self.prefix = self.prefix or stack.prefix
        async with AsyncExitStack() as started:
            started.push_async_callback(down, stack)
            await stack.start_core(SETTINGS, sweep_seconds=0.1)
            audit = AuditService(await stack.bus("audit"), self.folder / "log")
            started.callback(audit.close)
            running = asyncio.create_task(audit.run())
            started.push_async_callback(asyncio.wait, {running})
            started.callback(running.cancel)
            async with asyncio.timeout(10):
                await audit.ready.wait()
            await stack.target()
            yield stack, audit

    def lose_everything(self) -> None:
        self.server.kill()
        shutil.rmtree(self.folder / "store")
        self.server.restart()


async def down(stack: Stack) -> None:
    for core in list(stack._running):
        await stack.stop_core(core)
    for bus in stack.buses:
        await bus.drain()


@pytest.fixture
def place(tmp_path: Path) -> Any:
    with jetstream_server(tmp_path) as server:
        yield Place(tmp_path, server)


async def until(condition: Any) -> None:
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.02)


async def recalled(stack: Stack) -> None:
    async def is_noted() -> bool:
        return await stack.core.recall._bucket.get(NOTE) is not None

    await until(is_noted)


async def logged(audit: AuditService, number: int) -> None:
    async def enough() -> bool:
        return len(audit.log) >= number

    await until(enough)


async def logged_end(audit: AuditService, job: JobRecord) -> None:
    def is_end(entry: Mapping[str, Any]) -> bool:
        event = entry.get("event", {})
        return event.get("subject") == job.id and event["type"].endswith(".succeeded")

    async def found() -> bool:
        return bool(audit.log.newest(1, is_end))

    await until(found)


async def losses(stack: Stack) -> list[Any]:
    found = [json.loads(body) for body in await stack._stored(stack.core.bus.subjects.events_stream)]
    return [event["data"] for event in found if event["type"] == "io.snappy.server.lost-state"]


async def filled(place: Place) -> tuple[JobRecord, JobRecord, JobRecord]:
    """A job that is over, one at which a worker is, one that waits."""
    async with place.up() as (stack, audit):
        site, alice = await stack.worker(), Client(await stack.bus("alice"))
        await recalled(stack)
        over = await alice.submit("backup", BACKUP)
        await site.succeed(await site.claimed())
        await alice.wait(over.id)
        held = await alice.submit("backup", {**BACKUP, "priority": 1})
        await site.claimed()
        waiting = await alice.submit("backup", {**BACKUP, "request": "mine"})
        await alice.schedules.add("nightly", "backup", BACKUP, every=3600)
        await alice.schedules.add("gone", "backup", BACKUP, every=3600)
        await alice.schedules.remove("gone")
        await logged(audit, 9)
        assert await losses(stack) == []
    return over, held, waiting


async def test_jobs_and_schedules_of_before_are_put_back(place: Place) -> None:
    over, held, waiting = await filled(place)
    place.lose_everything()
    async with place.up() as (stack, audit):
        site, alice = await stack.worker(), Client(await stack.bus("alice"))
        await recalled(stack)
        [loss] = await losses(stack)
        assert (loss["jobs"], loss["schedules"], loss["remembered"] > loss["found"]) == (2, 1, True)
        with pytest.raises(JobNotFound):
            await alice.get(over.id)
        assert (await alice.submit("backup", {**BACKUP, "request": "mine"})).id == waiting.id
        assert [schedule.name for schedule in await alice.schedules.list()] == ["nightly"]

        await runs(site, alice, waiting)
        await stack.pass_time(3 * SETTINGS.hold_seconds)
        assert (await stack.until(held.id, State.RETRYING)).attempts[0].error is not None
        await stack.pass_time(60)
        await runs(site, alice, held)

        await logged_end(audit, held)
        state = await alice.audit_verify()
        assert state.fault == ""
        assert state.alarms >= 2
        assert state.alarm
    async with place.up() as (stack, _):
        await stack.core.recall.look()
        assert len(await losses(stack)) == 1
        assert (await Client(await stack.bus("alice")).get(waiting.id)).state is State.SUCCEEDED


async def runs(site: Worker, alice: Client, job: JobRecord) -> None:
    claimed = await site.claimed()
    assert claimed.job is not None
    assert claimed.job.id == job.id
    await site.succeed(claimed)
    assert (await alice.wait(job.id)).state is State.SUCCEEDED


async def test_a_server_that_kept_everything_is_no_loss(place: Place) -> None:
    await filled(place)
    place.server.restart()
    async with place.up() as (stack, _):
        alice = Client(await stack.bus("alice"))
        assert await stack.core.recall.look() is None
        assert await losses(stack) == []
        assert (await alice.audit_verify()).alarms == 0


async def test_a_core_that_runs_on_finds_it_too(place: Place) -> None:
    async with place.up() as (stack, audit):
        site, alice = await stack.worker(), Client(await stack.bus("alice"))
        await recalled(stack)
        job = await alice.submit("backup", BACKUP)
        await logged(audit, 1)
        place.lose_everything()

        async def is_told() -> bool:
            try:
                return len(await losses(stack)) == 1
            except (NatsError, OSError):  # the stream is not there yet
                return False

        await until(is_told)
        await site.beat()
        await runs(site, alice, job)


async def test_a_bucket_alone_that_lost_a_record(place: Place) -> None:
    """As after a flipped bit in its file: what came later is gone, and what it had replaced is there again."""
    async with place.up() as (stack, audit):
        site, alice = await stack.worker(), Client(await stack.bus("alice"))
        await recalled(stack)
        job = await alice.submit("backup", BACKUP)
        kept = await stack.core.store.records.fetch(job.id)
        assert kept is not None
        await site.succeed(await site.claimed())
        await alice.wait(job.id)
        await logged(audit, 3)
        await stack.core.store.records.put(job.id, kept.value)
        loss = await stack.core.recall.look()
        assert loss is not None
        assert (loss.jobs, loss.reason) == (1, "a job's record is older than the audit remembers")
        assert (await alice.get(job.id)).state is State.SUCCEEDED
        assert (await alice.audit_verify()).alarms == 1


async def test_what_is_known_of_sources_is_put_back(place: Place) -> None:
    async with place.up() as (stack, audit):
        site, alice = await stack.worker(), Client(await stack.bus("alice"))
        await recalled(stack)
        job = await alice.submit("backup", BACKUP)
        made = Result(snapshot="a" * 64, host="db1", paths=["/etc"], time=stack.clock.now, bytes_processed=7)
        await site.report("succeeded", await site.claimed(), result=made)
        await alice.wait(job.id)
        await logged(audit, 3)
        known = (await alice.status()).sources[0].known
        assert [good.job for good in known.backups] == [job.id]
    place.lose_everything()
    async with place.up() as (stack, _):
        await recalled(stack)
        alice = Client(await stack.bus("alice"))
        with pytest.raises(JobNotFound):
            await alice.get(job.id)
        assert (await alice.status()).sources[0].known == known


async def test_only_the_core_recalls(place: Place) -> None:
    async with place.up() as (stack, audit):
        audit._private = True
        bus = await stack.bus("alice")
        subject = bus.subjects.api("audit", "recall", "alice")
        answer = json.loads(await bus.request(subject, b'{"records":true}', timeout=5))
        assert answer["error"]["code"] == "denied"


async def test_the_deployed_roles_let_the_core_ask(tmp_path: Path) -> None:
    async with standing(tmp_path) as ground, AsyncExitStack() as started:
        audit = AuditService(ground["audit"], tmp_path / "log")
        core = Core(ground.core, SETTINGS, SIGNING_KEY)
        started.callback(audit.close)
        for service in (audit, core):
            running = asyncio.create_task(service.run())
            started.push_async_callback(asyncio.wait, {running})
            started.callback(running.cancel)
            async with asyncio.timeout(10):
                await service.ready.wait()
        stack = Stack("", Clock())
        stack.core = core
        await recalled(stack)
        assert await core.recall.look() is None
