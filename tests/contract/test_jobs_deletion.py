"""Jobs that delete, over a real nats-server: who may ask for them, what their grants hold, and how long they wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from snappy.bus.grants import Grant, GrantChecker, SigningKey
from snappy.config import Core, Deletion
from snappy.errors import AccessDenied, AttemptOver, Denied, JobNotFound
from snappy.frontend.api import Client
from snappy.jobs.messages import HoldAnswer, JobRecord
from snappy.jobs.states import Event, State
from tests.support.jobs import BACKUP, SIGNING_KEY, Clock, RealClock, Stack, Worker
from tests.support.natsserver import NatsServer

HOURS = 72
RULES = {"vault": Deletion(may_delete=["keeper"], delete_after=HOURS), "open": Deletion(may_delete=["keeper"])}
SETTINGS = Core(hold_seconds=30.0, may_delete=["root"], targets=RULES)
FORGET = {"source": "site1", "target": "vault", "keep_last": 1}
CHECKER = GrantChecker(SIGNING_KEY.public_text())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def stack(server: NatsServer, clock: Clock) -> AsyncIterator[Stack]:
    stack = Stack(server.url, clock)
    await stack.start_core(SETTINGS, private_inboxes=True)
    await stack.target()
    await stack.target("open")
    yield stack
    await stack.close()


async def client(stack: Stack, name: str) -> Client:
    return Client(await stack.bus(name))


@pytest.fixture
async def keeper(stack: Stack) -> Client:
    return await client(stack, "keeper")


async def forget(client: Client, kind: str = "forget", **more: Any) -> JobRecord:
    return await client.submit(kind, {**FORGET, **more})


async def events(stack: Stack, job: str) -> list[str]:
    return [event.type.rpartition(".")[2] for event in await stack.events(job)]


def granted(held: HoldAnswer, target: str = "vault") -> Grant:
    return CHECKER.check(held.grant, caller="site1", target=target, right="r", now=held.clock)


def refused(record: JobRecord) -> bool:
    return record.state is State.REJECTED and record.error is not None and record.error.code == "denied"


# ---- who may ---------------------------------------------------------------------------------------------------------


async def test_a_stolen_submitter_without_the_right_is_refused(stack: Stack, site: Worker, keeper: Client) -> None:
    alice = await client(stack, "alice")
    for target in ("vault", "open"):
        record = await forget(alice, target=target)
        assert refused(record), record
        assert await events(stack, record.id) == ["rejected"]
        prune = {"source": "site1", "target": target}
        assert refused(await alice.submit("prune", prune))
        await stack.core.bus.js.publish(f"{stack.prefix}.cmd.forget.alice", json.dumps(FORGET).encode())
    await stack.pass_time(2)
    assert (await site.claim()).job is None
    assert (await forget(alice, dry_run=True)).state is State.QUEUED
    assert granted(await site.claimed()).rights == "rlw"


async def test_a_schedule_of_who_has_no_right_is_refused(stack: Stack, site: Worker) -> None:
    alice = await client(stack, "alice")
    with pytest.raises(Denied):
        await alice.schedules.add("often", "forget", FORGET, every=1)
    assert await alice.schedules.list() == []


async def test_no_other_kind_of_job_is_granted_a_deletion(stack: Stack, site: Worker, keeper: Client) -> None:
    """What a stolen source is given for an ordinary job, whoever asked for it."""
    for kind, command in (("backup", BACKUP), ("init", {}), ("check", {}), ("restore", {"options": {"to": "/srv"}})):
        await keeper.submit(kind, {"source": "site1", "target": "vault", **command})
        grant = granted(await site.claimed())
        assert "d" not in grant.rights
        assert grant.deletes == ()


async def test_a_grant_says_what_may_be_deleted(stack: Stack, site: Worker, keeper: Client) -> None:
    await forget(keeper, target="open")
    held = await site.claimed()
    for answer in (held, await site.renew(held)):
        grant = granted(answer, "open")
        assert (grant.rights, grant.deletes) == ("rlwd", ("snapshots/",))
    await keeper.submit("prune", {"source": "site1", "target": "open"})
    assert granted(await site.claimed(), "open").deletes == ("index/", "data/")


async def test_an_old_or_a_forged_grant_holds_nothing(stack: Stack, site: Worker, keeper: Client) -> None:
    await forget(keeper, target="open")
    held = await site.claimed()
    forged = SigningKey.generate().sign(granted(held, "open"))
    for text, caller, target, now, error in (
        (held.grant, "site1", "open", held.deadline, AttemptOver),
        (held.grant, "site2", "open", held.clock, AccessDenied),
        (held.grant, "site1", "vault", held.clock, AccessDenied),
        (forged, "site1", "open", held.clock, AccessDenied),
        (held.grant[:8] + "A" + held.grant[9:], "site1", "open", held.clock, AccessDenied),
    ):
        with pytest.raises(error):
            CHECKER.check(text, caller=caller, target=target, right="d", now=now)


async def test_a_right_that_was_taken_away_is_granted_no_more(stack: Stack, site: Worker, keeper: Client) -> None:
    await forget(keeper, target="open")
    held = await site.claimed()
    await stack.stop_core()
    await stack.start_core(Core(hold_seconds=30.0), private_inboxes=True)
    assert granted(await site.renew(held), "open").rights == "rlw"


# ---- how long they wait ----------------------------------------------------------------------------------------------


async def test_a_deletion_is_announced_and_waits(stack: Stack, site: Worker, keeper: Client, clock: Clock) -> None:
    record = await forget(keeper)
    assert (record.state, record.event, record.not_before) == (State.QUEUED, Event.ANNOUNCED, clock.now + HOURS * 3600)
    (event,) = await stack.events(record.id)
    assert (event.type, event.data, event.submitter) == ("io.snappy.forget.announced", record, "keeper")
    clock.now += HOURS * 3600 - 10
    await stack.pass_time(5)
    assert (await site.calls(), (await site.claim()).job) == (0, None)
    await stack.pass_time(6)
    held = await site.claimed()
    assert granted(held).rights == "rlwd"
    await site.succeed(held)
    await stack.until(record.id)
    assert await events(stack, record.id) == ["announced", "started", "succeeded"]


@pytest.mark.parametrize("name", ["keeper", "root"])
async def test_who_may_delete_there_may_end_it_meanwhile(stack: Stack, site: Worker, keeper: Client, name: str) -> None:
    record = await forget(keeper)
    another = await client(stack, name)
    assert record.id in [listed.id for listed in await another.list()]
    assert (await another.cancel(record.id)).state is State.CANCELLED
    stack.clock.now += HOURS * 3600
    await stack.pass_time(2)
    assert (await site.claim()).job is None


async def test_others_neither_see_nor_end_it(stack: Stack, site: Worker, keeper: Client) -> None:
    record, backup = await forget(keeper), await keeper.submit("backup", BACKUP)
    alice, root = await client(stack, "alice"), await client(stack, "root")
    for stranger, job in ((alice, record), (alice, backup), (root, backup)):
        with pytest.raises(JobNotFound):
            await stranger.cancel(job.id)
    assert await alice.list() == []


async def test_no_field_shortens_the_wait(stack: Stack, site: Worker, keeper: Client, clock: Clock) -> None:
    ends = clock.now + HOURS * 3600
    earlier = datetime.fromtimestamp(clock.now + 60, UTC).isoformat()
    later = datetime.fromtimestamp(ends + 60, UTC).isoformat()
    wishes: list[dict[str, Any]] = [
        {"not_before": earlier},
        {"priority": 10},
        {"request": "same"},
        {"request": "same", "not_before": earlier},
        {"duplicates": "replace"},
    ]
    found = [await forget(keeper, **wish) for wish in wishes]
    assert {record.not_before for record in found} == {ends}
    assert (await forget(keeper, not_before=later)).not_before == ends + 60
    clock.now = ends - 60
    await stack.pass_time(5)
    assert (await site.claim()).job is None


async def test_a_command_that_lay_in_the_stream_has_waited_for_nothing(
    stack: Stack, site: Worker, keeper: Client, clock: Clock
) -> None:
    await stack.stop_core()
    body = json.dumps({**FORGET, "request": "old"}).encode()
    await stack.core.bus.js.publish(f"{stack.prefix}.cmd.forget.keeper", body)
    clock.now = RealClock()() + 10 * HOURS * 3600  # much later than the stream says that it was sent
    await stack.start_core(SETTINGS, private_inboxes=True)
    async with asyncio.timeout(5):
        while not (waiting := await keeper.list(states=[State.QUEUED])):
            await asyncio.sleep(0.02)
    assert waiting[0].created < clock.now - 9 * HOURS * 3600
    assert waiting[0].not_before == clock.now + HOURS * 3600


async def test_an_attempt_that_fails_is_followed_by_one_with_the_same_right(
    stack: Stack, site: Worker, keeper: Client
) -> None:
    record = await forget(keeper)
    stack.clock.now += HOURS * 3600
    await stack.pass_time(1)
    await site.fail(await site.claimed(), retryable=True)
    await stack.until(record.id, State.RETRYING)
    await stack.pass_time(120)
    held = await site.claimed()
    assert (held.attempt, granted(held).rights) == (2, "rlwd")


async def test_each_run_of_a_schedule_waits(server: NatsServer) -> None:
    stack = Stack(server.url, RealClock())
    await stack.start_core(SETTINGS)
    await stack.target()
    await stack.worker()
    keeper = Client(await stack.bus("keeper"))
    try:
        await keeper.schedules.add("often", "forget", FORGET, every=1)
        ran = await keeper.schedules.run_now("often")
        async with asyncio.timeout(12):
            while len(found := await keeper.list(kind="forget")) < 2:
                await asyncio.sleep(0.05)
        assert ran.id in [record.id for record in found]
        for record in found:
            assert (record.state, record.event) == (State.QUEUED, Event.ANNOUNCED)
            assert record.not_before >= record.created + HOURS * 3600
    finally:
        await stack.close()


async def test_a_schedule_whose_owner_lost_the_right_is_refused_each_time(server: NatsServer) -> None:
    stack = Stack(server.url, RealClock())
    await stack.start_core(SETTINGS)
    await stack.target()
    await stack.worker()
    keeper = Client(await stack.bus("keeper"))
    try:
        await keeper.schedules.add("often", "forget", FORGET, every=1)
        await stack.stop_core()
        await stack.start_core(Core(hold_seconds=30.0))
        async with asyncio.timeout(12):
            while not (found := await keeper.list(states=[State.REJECTED])):
                await asyncio.sleep(0.05)
        assert refused(found[0])
    finally:
        await stack.close()
