"""What the core says of a lock that a worker met: removable once its attempt is over and its grant ran out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from snappy.bus.grants import CLOCK_MARGIN, Grant, GrantChecker
from snappy.frontend.api import Client
from snappy.jobs.dead_locks import ASKED_AT_ONCE, STALE_SECONDS
from snappy.jobs.messages import HoldAnswer, LockRef
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, SIGNING_KEY, Stack, Worker

LOCK = "ab" * 32
CHECKER = GrantChecker(SIGNING_KEY.public_text())


@pytest.fixture
async def dead(stack: Stack, alice: Client) -> Worker:
    """Claims, and falls silent."""
    worker = await stack.worker(replica="dead")
    await alice.submit("backup", BACKUP)
    return worker


@pytest.fixture
async def site(stack: Stack) -> Worker:
    return await stack.worker(replica="alive")


def left_by(held: HoldAnswer, stack: Stack, age: float = 0.0, **changes: Any) -> LockRef:
    assert held.job is not None
    fields = {"name": LOCK, "job": held.job.id, "attempt": held.attempt, "refreshed": stack.clock.now - age}
    return LockRef(**{**fields, **changes})


async def ask(worker: Worker, held: HoldAnswer, *locks: LockRef) -> HoldAnswer:
    assert held.job is not None
    return await worker.ask("renew", job=held.job.id, attempt=held.attempt, locks=list(locks))


def granted(answer: HoldAnswer) -> Grant:
    return CHECKER.check(answer.grant, caller="site1", target="vault", right="r", now=answer.clock)


async def told(stack: Stack) -> list[dict[str, Any]]:
    events = map(json.loads, await stack._stored(stack.core.bus.subjects.events_stream))
    return [event["data"] for event in events if event["type"] == "io.snappy.lock.removable"]


async def other_job(alice: Client, worker: Worker, kind: str = "backup") -> HoldAnswer:
    more = {"snapshot": "latest"} if kind == "restore" else {}
    options = {"to": "/back"} if kind == "restore" else BACKUP["options"]
    await alice.submit(kind, {**BACKUP, "options": options, **more})
    return await worker.claimed()


async def test_a_lock_is_removable_when_its_attempt_is_over_and_its_grant_ran_out(
    stack: Stack, alice: Client, dead: Worker, site: Worker
) -> None:
    lost = await dead.claimed()
    lock = left_by(lost, stack)
    other = await other_job(alice, site)
    assert (await ask(site, other, lock)).locks == [], "it is held"
    await alice.cancel(lost.job.id if lost.job else "")
    while (await stack.record(lock.job)).state is State.RUNNING:
        assert (await ask(site, other, lock)).locks == []
        await stack.pass_time(4.0)
    ended = (await stack.record(lock.job)).attempts[-1]
    stack.clock.now = max(stack.clock.now, ended.until + CLOCK_MARGIN)
    answer = await ask(site, other, lock)
    assert (answer.error, answer.locks, granted(answer).locks) == (None, [LOCK], (LOCK,))
    (event,) = await told(stack)
    assert event["reason"] == "attempt 1 is over, and its grant ran out"
    assert (event["lock"]["name"], event["lock"]["job"], event["target"]) == (LOCK, lock.job, "vault")
    assert other.job is not None
    assert (event["job"], event["attempt"], event["replica"]) == (other.job.id, 1, "alive")
    assert granted(await site.renew(other)).locks == (), "it was asked for once"


async def test_the_end_alone_does_not_make_it_removable(
    stack: Stack, alice: Client, dead: Worker, site: Worker
) -> None:
    """Its last grant lets the worker write for a while."""
    over = await dead.claimed()
    lock = left_by(over, stack)
    other = await other_job(alice, site)
    await dead.fail(over, retryable=False)
    await stack.until(lock.job, State.FAILED)
    assert (await ask(site, other, lock)).locks == []
    stack.clock.now = over.deadline + CLOCK_MARGIN - 0.1
    assert (await ask(site, other, lock)).locks == []
    stack.clock.now += 0.2
    assert (await ask(site, other, lock)).locks == [LOCK]


async def test_an_earlier_attempts_lock_is_removable_and_so_is_ones_own(
    stack: Stack, dead: Worker, site: Worker
) -> None:
    first = await dead.claimed()
    while (await stack.record(left_by(first, stack).job)).state is not State.RETRYING:
        await stack.pass_time(4.0)
    await stack.pass_time(SETTINGS.hold_seconds)
    second = await site.claimed()
    own = left_by(second, stack, name="cd" * 32)
    answer = await ask(site, second, left_by(first, stack), own)
    assert answer.locks == [LOCK, own.name]
    assert [event["reason"] for event in await told(stack)] == [
        "attempt 1 is over, and its grant ran out",
        "its own attempt lets go of it",
    ]


async def test_a_prune_waits_for_the_next_attempt_at_a_backup(
    stack: Stack, alice: Client, dead: Worker, site: Worker
) -> None:
    """What a lost attempt stored, no snapshot uses yet: its lock stays until its job is over."""
    first = await dead.claimed()
    lock = left_by(first, stack)
    while (await stack.record(lock.job)).state is not State.RETRYING:
        await stack.pass_time(4.0)
    await stack.pass_time(SETTINGS.hold_seconds)
    names = {"source": "site1", "target": "vault", "priority": 5}
    await alice.submit("prune", {**names, "dry_run": True})
    prune = await site.claimed()
    await alice.submit("check", names)
    check = await site.claimed()
    assert (await ask(site, prune, lock)).locks == []
    assert (await ask(site, check, lock)).locks == [LOCK], "who deletes nothing need not wait"
    await alice.cancel(lock.job)
    await stack.until(lock.job, State.CANCELLED)
    assert (await ask(site, prune, lock)).locks == [LOCK]


@pytest.mark.parametrize("changes", [{"job": "of-another-installation"}, {"attempt": 7}, {"attempt": 0}])
async def test_a_job_that_is_not_known_keeps_its_lock_until_it_is_stale(
    stack: Stack, dead: Worker, changes: dict[str, Any]
) -> None:
    """It may run under another core on the same repository."""
    held = await dead.claimed()
    fresh = left_by(held, stack, age=STALE_SECONDS - 60, **changes)
    stale = left_by(held, stack, age=STALE_SECONDS + 60, **{**changes, "name": "cd" * 32})
    assert (await ask(dead, held, fresh, stale)).locks == [stale.name]


async def test_who_may_only_read_is_told_but_removes_nothing(
    stack: Stack, alice: Client, dead: Worker, site: Worker
) -> None:
    over = await dead.claimed()
    await dead.fail(over, retryable=False)
    await stack.until(left_by(over, stack).job, State.FAILED)
    restore = await other_job(alice, site, "restore")
    stack.clock.now = over.deadline + CLOCK_MARGIN
    answer = await ask(site, restore, left_by(over, stack))
    assert (answer.locks, "w" in granted(answer).rights) == ([LOCK], False)
    assert await told(stack) == []


async def test_what_is_no_lock_and_too_many_are_refused(stack: Stack, dead: Worker) -> None:
    held = await dead.claimed()
    many = [left_by(held, stack)] * (ASKED_AT_ONCE + 1)
    for locks in (many, [left_by(held, stack, name="../config")], [left_by(held, stack, name="a.b")]):
        answer = await ask(dead, held, *locks)
        assert answer.error is not None
        assert answer.error.code == "invalid-command"


async def test_another_replica_cannot_ask_in_its_name(stack: Stack, dead: Worker, site: Worker) -> None:
    held = await dead.claimed()
    answer = await ask(site, held, left_by(held, stack))
    assert answer.error is not None
    assert (answer.error.code, answer.grant, await told(stack)) == ("attempt-over", "", [])
