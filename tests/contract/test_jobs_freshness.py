"""Promises over a real nats-server: each change is told once, by whichever core; and what `snappy status` is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg

from snappy import config
from snappy.errors import InvalidCommand
from snappy.frontend.api import Client
from snappy.jobs.core import Core
from snappy.jobs.messages import ErrorInfo, Result
from snappy.jobs.protection_words import SourceStatus
from tests.support.jobs import BACKUP, SETTINGS, Clock, Stack, Worker
from tests.support.natsserver import NatsServer

HOUR = 3600.0
PROMISED = replace(SETTINGS, promises=[config.Promise(max_age="26h", max_drill_age="30d")])
CRON = "0 2 * * *"


@pytest.fixture
async def stack(server: NatsServer) -> AsyncIterator[Stack]:
    stack = Stack(server.url, Clock())
    await stack.start_core(PROMISED)
    await stack.target()
    yield stack
    await stack.close()


async def watch(stack: Stack, hours: float = 0.0) -> None:
    """Let time pass, and the core look for long enough to be sure of what it sees."""
    stack.clock.now += hours * HOUR
    await stack.pass_time(40)
    for _ in range(3):
        await stack.core.freshness.look()


async def back_up(stack: Stack, site: Worker, alice: Client, command: dict[str, Any] = BACKUP) -> str:
    """A job that made a snapshot just now."""
    job = (await alice.submit("backup", command)).id
    paths = command["options"]["paths"]
    result = Result(snapshot=f"{stack.clock.now:064.0f}", host="db1", paths=paths, time=stack.clock.now, seconds=2.0)
    await site.report("succeeded", await site.claimed(), result=result)
    await stack.until(job)
    return job


async def only(client: Client) -> SourceStatus:
    (source,) = (await client.status()).sources
    return source


async def test_a_broken_promise_is_told_once_and_that_it_holds_again(stack: Stack, site: Worker, alice: Client) -> None:
    job = await back_up(stack, site, alice)
    await watch(stack)
    source = await only(alice)
    assert (source.state, source.is_kept, source.max_age, source.known.backups[0].job) == ("fresh", True, 93600, job)
    assert await stack.source_events() == []
    await watch(stack, 27)
    await watch(stack, 27)
    source = await only(alice)
    assert (source.state, source.is_kept, source.drill_state) == ("stale", False, "unproven")
    assert await stack.source_events() == ["stale"]
    await back_up(stack, site, alice)
    await watch(stack)
    assert (await only(alice)).is_kept
    assert await stack.source_events() == ["stale", "fresh"]
    await watch(stack, 31 * 24)
    assert await stack.source_events() == ["stale", "fresh", "stale", "unproven"]


async def test_what_is_asked_is_answered_for_now_and_not_for_the_last_look(
    stack: Stack, site: Worker, alice: Client
) -> None:
    job = await back_up(stack, site, alice)
    assert (await only(alice)).known.backups[0].job == job
    stack.clock.now += 27 * HOUR
    assert (await only(alice)).state == "stale"


async def test_several_cores_tell_once(stack: Stack, site: Worker, alice: Client) -> None:
    cores = [stack.core, await stack.start_core(PROMISED), await stack.start_core(PROMISED)]
    await back_up(stack, site, alice)
    stack.clock.now += 27 * HOUR
    for _ in range(3):
        for _ in range(12):
            stack.clock.now += 4
            for core in cores:
                await core.sweep.tick()
        for _ in range(4):
            await asyncio.gather(*(core.freshness.look() for core in cores))
    assert await stack.source_events() == ["stale"]


@pytest.mark.parametrize("amid", ["_publish", "told"])
async def test_a_core_that_dies_amid_telling_leaves_it_to_another(
    stack: Stack, site: Worker, alice: Client, amid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await back_up(stack, site, alice)
    dying: Any = stack.core.freshness

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    if amid == "_publish":
        monkeypatch.setattr(dying, amid, die)
    else:
        write = dying._kept.write

        async def die_in_the_end(key: str, value: Any, revision: int) -> Any:
            if value.told and value.event:
                await die()
            return await write(key, value, revision)

        monkeypatch.setattr(dying._kept, "write", die_in_the_end)
    with pytest.raises(asyncio.CancelledError):
        await watch(stack, 27)
    assert await stack.source_events() == ([] if amid == "_publish" else ["stale"])
    await stack.stop_core()
    await stack.start_core(PROMISED)
    await watch(stack)
    assert await stack.source_events() == ["stale"]
    source = await only(alice)
    assert source.known.told
    assert source.known.event_number == 1


async def test_a_core_that_was_away_reads_first_what_happened(
    stack: Stack, site: Worker, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup ended while there was no core, and its report waits."""
    await back_up(stack, site, alice)
    await alice.submit("backup", BACKUP)
    held = await site.claimed()
    await stack.stop_core()
    stack.clock.now += 25 * HOUR
    await site.report("succeeded", held, result=Result(snapshot="b" * 64, time=stack.clock.now))
    stack.clock.now += 2 * HOUR
    may_read = asyncio.Event()
    receive = Core._consume

    async def late(self: Core, stream: str, act: Any) -> None:
        async def wait_first(messages: list[Msg]) -> None:
            await may_read.wait()
            await act(messages)

        await receive(self, stream, wait_first if stream == self.bus.subjects.reports_stream else act)

    monkeypatch.setattr(Core, "_consume", late)
    await stack.start_core(replace(PROMISED, hold_seconds=1e9))  # the attempt itself is another matter
    monkeypatch.setattr(stack.core.freshness._backlog, "_is_watching", lambda: True)
    await watch(stack)
    assert await stack.source_events() == []
    may_read.set()
    assert held.job is not None
    await stack.until(held.job.id)
    await watch(stack)
    assert (await only(alice)).known.backups[0].snapshot == "b" * 64
    assert await stack.source_events() == []
    await watch(stack, 25)
    assert await stack.source_events() == ["stale"]


async def test_a_core_that_has_just_begun_accuses_nobody(stack: Stack, site: Worker, alice: Client) -> None:
    await back_up(stack, site, alice)
    await stack.stop_core()
    stack.clock.now += 27 * HOUR
    await stack.start_core(PROMISED)
    for _ in range(3):
        await stack.pass_time(4)
        await stack.core.freshness.look()
    assert await stack.source_events() == []


async def test_a_schedule_promises_also_for_what_was_never_backed_up(stack: Stack, site: Worker, alice: Client) -> None:
    command = {**BACKUP, "target": "vault", "options": {"paths": ["/srv"]}}
    await alice.schedules.add("nightly", "backup", command, cron=CRON, max_age=7200)
    await watch(stack)
    source = await only(alice)
    assert (source.state, source.is_kept, source.max_age) == ("never", True, 7200)
    assert source.upcoming is not None
    assert (source.upcoming.schedule, source.upcoming.kind) == ("nightly", "backup")
    await watch(stack, 3)
    source = await only(alice)
    assert (source.state, source.is_kept) == ("never", False)
    assert await stack.source_events() == ["stale"]
    await back_up(stack, site, alice, command)
    await watch(stack)
    assert (await only(alice)).state == "fresh"
    await alice.schedules.remove("nightly")
    await watch(stack)
    assert (await only(alice)).max_age == 93600, "the configuration's promise is left"
    assert await stack.source_events() == ["stale", "fresh"]


async def test_what_is_no_more_expected_and_never_was_leaves(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.schedules.add("nightly", "backup", BACKUP, cron=CRON)
    await watch(stack)
    assert (await only(alice)).state == "never"
    await alice.schedules.remove("nightly")
    await watch(stack)
    assert (await alice.status()).sources == []


async def test_what_a_schedule_may_not_any_more_is_told(stack: Stack, site: Worker, alice: Client) -> None:
    """Its jobs are rejected before they run, and keep nothing of their command."""
    name, command = "nightly", {**BACKUP, "options": {"paths": ["/srv"]}}
    await alice.schedules.add(name, "backup", command, cron=CRON)
    kept = await stack.core.schedules.book.get(name)
    assert kept is not None
    wrong = {**kept.value.command, "target": "gone"}
    rejected = await alice.submit("backup", wrong)
    assert (rejected.state, "options" in rejected.command) == ("rejected", False)
    await stack.core.schedules.book.write(replace(kept.value, last_job=rejected.id), kept.revision)
    source = await only(alice)
    assert source.known.paths == ["/srv"]
    assert source.known.mishap is not None
    assert (source.known.mishap.job, source.known.mishap.code) == (rejected.id, "unknown-service")


async def test_commands_that_make_no_sense_stop_nobody(stack: Stack, site: Worker, alice: Client) -> None:
    job = await back_up(stack, site, alice)
    for kind in ("backup", "drill", "copy", "forget"):
        for body in ({}, {"target": "vault"}, {"target": ["vault"], "paths": 7}):
            assert (await alice.submit(kind, body)).state == "rejected"
    await watch(stack)
    source = await only(alice)
    assert source.known.backups[0].job == job


async def test_a_promise_of_what_is_neither_backup_nor_drill_is_refused(
    stack: Stack, site: Worker, alice: Client
) -> None:
    with pytest.raises(InvalidCommand, match="max_age says nothing of a check"):
        await alice.schedules.add("c", "check", {"source": "site1", "target": "vault"}, cron=CRON, max_age=60)


async def test_what_failed_what_goes_on_and_what_is_wrong_around(stack: Stack, site: Worker, alice: Client) -> None:
    await back_up(stack, site, alice)
    failing = (await alice.submit("backup", BACKUP)).id
    await site.report("failed", await site.claimed(), error=ErrorInfo(code="no-space", message="full"))
    await stack.until(failing)
    running = (await alice.submit("backup", BACKUP)).id
    await site.claimed()
    await alice.submit("backup", {**BACKUP, "options": {"paths": ["/other"]}})
    status = await alice.status()
    (source,) = status.sources
    assert source.known.mishap is not None
    assert (source.known.mishap.job, source.known.mishap.code) == (failing, "no-space")
    assert [(job.job, job.state) for job in source.doing] == [(running, "running")]
    assert (status.damaged, status.absent) == ([], [])
    check = (await alice.submit("check", {"source": "site1", "target": "vault", "priority": 9})).id
    await site.report("failed", await site.claimed(), error=ErrorInfo(code="damaged", message="x"))
    await stack.until(check)
    stack.clock.now += 30
    await site.beat()
    status = await alice.status()
    assert status.damaged == ["vault"]
    assert [(each.role, each.service) for each in status.absent] == [("target", "vault")]


async def test_sources_that_fill_more_than_one_message_all_come(stack: Stack, site: Worker, alice: Client) -> None:
    for number in range(60):
        await back_up(stack, site, alice, {**BACKUP, "options": {"paths": [f"/{number}/" + "x" * 40_000]}})
    found = (await alice.status()).sources
    assert len({source.known.id for source in found}) == len(found) == 60


async def test_a_bucket_that_was_made_anew_is_filled_again(stack: Stack, site: Worker, alice: Client) -> None:
    """From the records, as far as there are any."""
    job = await back_up(stack, site, alice)
    await watch(stack)
    known = (await only(alice)).known
    await stack.core.freshness._kept._bucket.remove(f"protection.{known.id}", 10**9)
    await stack.stop_core()
    await stack.start_core(PROMISED)
    assert (await only(alice)).known.backups[0].job == job
