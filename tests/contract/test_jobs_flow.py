"""The core, spoken to as services and strangers do: over a real nats-server, by subjects alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import pytest

from snappy.bus.grants import GrantChecker
from snappy.errors import AttemptOver, JobError, JobNotFound
from snappy.frontend.api import Client
from snappy.jobs import endpoints
from snappy.jobs.roster import REMEMBERED_SECONDS
from snappy.jobs.states import State
from tests.support.jobs import BACKUP, SETTINGS, SIGNING_KEY, Stack, Worker


async def publish(stack: Stack, command: Any, *, kind: str = "backup", user: str = "alice", **options: Any) -> None:
    """As `nats pub` does."""
    body = command if isinstance(command, bytes) else json.dumps(command).encode()
    await stack.core.bus.js.publish(f"{stack.prefix}.cmd.{kind}.{user}", body, **options)


async def kinds(stack: Stack, job: str) -> list[str]:
    return [event.type.rpartition(".")[2] for event in await stack.events(job)]


# ---- the walk of a job -------------------------------------------------------------------------------------------


async def test_from_a_bare_publish_to_the_final_event(stack: Stack, site: Worker, alice: Client) -> None:
    await publish(stack, {**BACKUP, "request": "nightly-1"})
    async with asyncio.timeout(5):
        while await site.calls() == 0:
            await asyncio.sleep(0.01)
    held = await site.claimed()
    await site.report("started", held)
    await site.succeed(held)
    record = await stack.until(held.job.id)  # type: ignore[union-attr]
    assert (record.state, record.submitter, record.request) == (State.SUCCEEDED, "alice", "nightly-1")
    assert record.result is not None
    assert record.result.snapshot == "abc"
    events = await stack.events(record.id)
    assert [event.id for event in events] == [f"{record.id}/{number}" for number in (1, 2, 3)]
    assert await kinds(stack, record.id) == ["accepted", "started", "succeeded"]
    assert {event.request for event in events} == {"nightly-1"}
    assert events[-1].data == record


async def test_the_grant_lets_the_worker_do_its_job_and_no_more(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.submit("backup", {**BACKUP, "bandwidth": "10M:1M"})
    held = await site.claimed()
    checker = GrantChecker(SIGNING_KEY.public_text())
    grant = checker.check(held.grant, caller="site1", target="vault", right="w", now=stack.clock.now)
    assert (grant.rights, grant.attempt, grant.expires) == ("rlw", 1, stack.clock.now + SETTINGS.hold_seconds)
    assert grant.bandwidth == "10M:1M"
    with pytest.raises(AttemptOver):
        checker.check(held.grant, caller="site1", target="vault", right="w", now=held.deadline)


async def test_a_restore_may_not_write(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.submit("restore", {"source": "site1", "target": "vault", "options": {"to": "/srv"}})
    held = await site.claimed()
    grant = GrantChecker(SIGNING_KEY.public_text()).check(
        held.grant, caller="site1", target="vault", right="r", now=stack.clock.now
    )
    assert grant.rights == "rl"


async def test_a_check_may_leave_a_lock_and_delete_nothing(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.submit("check", {"source": "site1", "target": "vault"})
    held = await site.claimed()
    grant = GrantChecker(SIGNING_KEY.public_text()).check(
        held.grant, caller="site1", target="vault", right="w", now=stack.clock.now
    )
    assert grant.rights == "rlw"


async def test_the_oldest_job_comes_first_and_none_is_an_answer(stack: Stack, site: Worker, alice: Client) -> None:
    first = await alice.submit("backup", BACKUP)
    stack.clock.now += 1
    second = await alice.submit("backup", BACKUP)
    assert [(await site.claimed()).job.id for _ in range(2)] == [first.id, second.id]  # type: ignore[union-attr]
    assert (await site.claim()).job is None


async def test_two_claims_at_once_get_two_jobs(stack: Stack, site: Worker, alice: Client) -> None:
    jobs = {(await alice.submit("backup", BACKUP)).id for _ in range(8)}
    answers = await asyncio.gather(*(site.claim() for _ in range(10)))
    assert sorted(answer.job.id for answer in answers if answer.job) == sorted(jobs)


async def test_a_claim_whose_answer_was_lost_is_asked_again(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.submit("backup", BACKUP)
    await alice.submit("backup", BACKUP)
    first, again = await site.claim("n1"), await site.claim("n1")
    assert first.job is not None
    assert again.job is not None
    assert (again.job.id, again.attempt) == (first.job.id, first.attempt)


# ---- repeats -----------------------------------------------------------------------------------------------------


async def test_a_repeated_request_is_one_job(stack: Stack, site: Worker, alice: Client) -> None:
    command = {**BACKUP, "request": "once"}
    first = await alice.submit("backup", command)
    again = await alice.submit("backup", command)
    await publish(stack, command)
    assert first.id == again.id
    other = await alice.submit("backup", {**BACKUP, "request": "marker"})
    assert await alice.get(request="once") == first
    assert {record.id for record in await alice.list()} == {first.id, other.id}
    assert await kinds(stack, first.id) == ["accepted"]


async def test_two_submitters_may_use_the_same_request(stack: Stack, site: Worker, alice: Client) -> None:
    bob = Client(await stack.bus("bob"))
    command = {**BACKUP, "request": "same"}
    assert (await alice.submit("backup", command)).id != (await bob.submit("backup", command)).id


async def test_a_command_delivered_again_is_one_job(stack: Stack, site: Worker, alice: Client) -> None:
    """The core dies after the record is kept and before the command is acknowledged."""
    receive, seen = stack.core.reception.accept, asyncio.Event()

    async def accept_and_die(*arguments: Any, **options: Any) -> Any:
        await receive(*arguments, **options)
        seen.set()
        await asyncio.Event().wait()

    stack.core.reception.accept = accept_and_die  # type: ignore[method-assign]
    await publish(stack, BACKUP)
    async with asyncio.timeout(5):
        await seen.wait()
    await stack.stop_core()
    await stack.core.bus.js.delete_consumer(f"{stack.prefix.upper()}_COMMANDS", f"{stack.prefix}_core")
    await stack.start_core()
    async with asyncio.timeout(5):
        while (await stack.core.bus.js.stream_info(f"{stack.prefix.upper()}_COMMANDS")).state.messages:
            await asyncio.sleep(0.01)
    (record,) = await alice.list()
    assert await kinds(stack, record.id) == ["accepted"]


# ---- bad commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code", "fault"),
    [
        (b"not json", "invalid-command", "malformed"),
        (b"[1]", "invalid-command", "object"),
        ({"source": "site1"}, "invalid-command", "target"),
        ({**BACKUP, "target": 7}, "invalid-command", "$.target"),
        ({**BACKUP, "pasword": "hunter2"}, "invalid-command", "pasword"),
        ({**BACKUP, "source": "s3://secret@host"}, "invalid-command", "$.source"),
        ({**BACKUP, "source": "nowhere"}, "unknown-service", "nowhere"),
        ({**BACKUP, "target": "nowhere"}, "unknown-service", "nowhere"),
        ({**BACKUP, "v": 2}, "invalid-command", "$.v"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[-20:],
)
async def test_a_bad_command_is_rejected_with_its_reason(
    stack: Stack, site: Worker, alice: Client, command: Any, code: str, fault: str
) -> None:
    await publish(stack, command)
    good = await alice.submit("backup", BACKUP)
    async with asyncio.timeout(5):
        while not (rejected := await alice.list(states=[State.REJECTED])):
            await asyncio.sleep(0.01)
    (record,) = rejected
    assert record.error is not None
    assert record.error.code == code
    assert fault in record.error.message
    assert record.error.hint
    (event,) = await stack.events(record.id)
    assert event.type == "io.snappy.backup.rejected"
    assert b"hunter2" not in json.dumps(str(event)).encode()
    assert (await alice.get(good.id)).state is State.QUEUED


async def test_an_unknown_kind_is_rejected(stack: Stack, site: Worker, alice: Client) -> None:
    record = await alice.submit("security", BACKUP)
    assert (record.state, record.kind) == (State.REJECTED, "unknown")


class Scheduled:
    """A message as a server that let users schedule would deliver it; nats-server 2.15 refuses the header itself."""

    reply = ""
    data = json.dumps(BACKUP).encode()
    headers: ClassVar[dict[str, str]] = {"Nats-Scheduler": "snappy.schedule.own"}
    acknowledged = False

    def __init__(self, subject: str) -> None:
        self.subject = subject

    async def ack(self) -> None:
        self.acknowledged = True


async def test_a_command_of_a_private_schedule_is_dropped(stack: Stack, site: Worker, alice: Client) -> None:
    message = Scheduled(alice.bus.subjects.command("backup", "alice"))
    await stack.core.reception.receive([message])  # type: ignore[list-item]
    assert message.acknowledged
    assert "schedule" in (await stack.refusals())[0]
    assert await alice.list() == []


# ---- failures and retries ----------------------------------------------------------------------------------------


async def test_a_retryable_error_is_tried_again_and_then_given_up(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    for _ in range(SETTINGS.max_attempts - 1):
        await site.fail(await site.claimed(), retryable=True)
        record = await stack.until(job, State.RETRYING)
        assert record.not_before > stack.clock.now
        assert (await site.claim()).job is None, "the wait is kept"
        await stack.pass_time(record.not_before - stack.clock.now + 1)
    await site.fail(await site.claimed(), retryable=True)
    record = await stack.until(job)
    assert record.state is State.FAILED
    assert [attempt.number for attempt in record.attempts] == [1, 2, 3]
    assert record.error is not None
    assert record.error.code == "unavailable"
    assert await kinds(stack, job) == ["accepted", *["started", "retrying"] * 2, "started", "failed"]


async def test_an_error_that_is_not_retryable_ends_the_job(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await site.fail(await site.claimed(), retryable=False)
    assert (await stack.until(job)).state is State.FAILED


async def test_a_service_may_reject_what_it_was_asked(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await site.report("rejected", await site.claimed())
    assert (await stack.until(job)).state is State.REJECTED


async def test_a_job_given_back_goes_to_another_replica(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    assert (await site.ask("release", job=job, attempt=held.attempt)).error is None
    other = Worker(site.bus, "r2")
    assert (await other.claim()).job is None, "the first grant is still good"
    await stack.pass_time(SETTINGS.hold_seconds + 3)
    assert (await other.claimed()).attempt == 2
    late = await site.renew(held)
    assert late.error is not None
    assert late.error.code == "attempt-over"


# ---- holds -------------------------------------------------------------------------------------------------------


async def test_a_renewed_hold_goes_on(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    for _ in range(6):
        await stack.pass_time(SETTINGS.hold_seconds / 2)
        renewed = await site.renew(held)
        assert renewed.deadline == stack.clock.now + SETTINGS.hold_seconds
    assert (await stack.record(job)).state is State.RUNNING


async def test_a_silent_worker_loses_its_job_when_its_grant_has_run_out(
    stack: Stack, site: Worker, alice: Client
) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await stack.pass_time(SETTINGS.hold_seconds)
    await stack.forget_calls()
    held = await site.claimed()
    await stack.pass_time(SETTINGS.hold_seconds - 1)
    assert (await stack.record(job)).state is State.RUNNING
    await stack.pass_time(2)
    record = await stack.record(job)
    assert record.state is State.RETRYING
    assert record.error is not None
    assert record.error.code == "attempt-lost"
    other = Worker(site.bus, "r2")
    assert (await other.claim()).job is None, "the clock margin is not over"
    await stack.pass_time(2)
    assert await site.calls() == 1, "it is called for again"
    assert (await other.claimed()).attempt == 2
    late = await site.renew(held)
    assert late.error is not None
    assert late.error.code == "attempt-over"
    await site.succeed(held)
    await alice.submit("backup", BACKUP)
    assert (await stack.record(job)).state is State.RUNNING, "a report of an old attempt changes nothing"


async def test_a_job_lost_too_often_fails(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await stack.pass_time(SETTINGS.hold_seconds)
    for _ in range(SETTINGS.max_lost_attempts):
        await site.claimed()
        await stack.pass_time(SETTINGS.hold_seconds + 4)
    record = await stack.until(job)
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.code == "attempt-lost"


async def test_a_core_that_did_not_look_does_not_judge(stack: Stack, site: Worker, alice: Client) -> None:
    """While the core was away nobody could renew: the same attempt goes on."""
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    stack.clock.now += 10 * SETTINGS.hold_seconds
    await stack.core.sweep.tick()
    assert (await stack.record(job)).state is State.RUNNING
    await stack.pass_time(SETTINGS.hold_seconds - 1)
    assert (await site.renew(held)).error is None
    await stack.pass_time(SETTINGS.hold_seconds - 1)
    await site.succeed(held)
    assert len((await stack.until(job)).attempts) == 1


# ---- forged messages ---------------------------------------------------------------------------------------------


async def test_reports_of_others_are_refused(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    mallory = await stack.worker("site2")
    await mallory.succeed(held)
    await site.report("succeeded", held, replica="r2")
    async with asyncio.timeout(5):
        while (await stack.core.bus.js.stream_info(f"{stack.prefix.upper()}_REPORTS")).state.messages:
            await asyncio.sleep(0.01)
    assert (await stack.record(job)).state is State.RUNNING
    assert job in (await stack.refusals())[0]


async def test_a_service_cannot_renew_anothers_hold(stack: Stack, site: Worker, alice: Client) -> None:
    await alice.submit("backup", BACKUP)
    held = await site.claimed()
    mallory = await stack.worker("site2")
    assert (await mallory.renew(held)).error is not None
    assert (await mallory.claim()).job is None


@pytest.mark.parametrize("reply", ["{}.cmd.backup.victim", "_INBOX.victim.x", "$JS.API.STREAM.PURGE.X"])
async def test_an_answer_goes_to_the_callers_inbox_alone(stack: Stack, site: Worker, reply: str) -> None:
    forged = reply.format(stack.prefix)
    heard: asyncio.Queue[Any] = asyncio.Queue()
    await stack.core.bus.nc.subscribe(forged, cb=heard.put)
    for subject in (site.bus.subjects.hold("claim", "site1", "r1"), site.bus.subjects.api("job", "list", "alice")):
        await site.bus.nc.publish(subject, b"{}", reply=forged)
    async with asyncio.timeout(5):
        while not await stack.refusals():
            await asyncio.sleep(0.01)
    await site.beat()
    assert heard.empty()


# ---- cancel ------------------------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_at_once(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    assert (await alice.cancel(job)).state is State.CANCELLED
    assert (await site.claim()).job is None
    with pytest.raises(JobError, match="over"):
        await alice.cancel(job)


async def test_a_job_between_attempts_is_cancelled_at_once(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await site.fail(await site.claimed(), retryable=True)
    await stack.until(job, State.RETRYING)
    assert (await alice.cancel(job)).state is State.CANCELLED


async def test_a_running_job_is_told_to_stop(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    held = await site.claimed()
    told: asyncio.Queue[Any] = asyncio.Queue()
    await site.bus.listen(site.bus.subjects.control("site1"), "", told.put)
    assert (await alice.cancel(job)).state is State.RUNNING
    async with asyncio.timeout(5):
        assert json.loads((await told.get()).data) == {"verb": "cancel", "job": job, "v": 1}
    assert (await site.renew(held)).cancel
    await site.report("cancelled", held)
    record = await stack.until(job)
    assert (record.state, record.cancel) == (State.CANCELLED, "alice")


async def test_a_cancelled_job_whose_worker_died_is_cancelled(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    await stack.pass_time(SETTINGS.hold_seconds)
    await site.claimed()
    await alice.cancel(job)
    await stack.pass_time(SETTINGS.hold_seconds + 1)
    assert (await stack.record(job)).state is State.CANCELLED


async def test_anothers_job_does_not_exist(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    bob = Client(await stack.bus("bob"))
    for asked in (bob.get(job), bob.cancel(job)):
        with pytest.raises(JobNotFound):
            await asked
    assert await bob.list() == []


# ---- cores come and go -------------------------------------------------------------------------------------------


async def test_another_core_goes_on_where_one_died(stack: Stack, site: Worker, alice: Client) -> None:
    waiting = await alice.submit("backup", BACKUP)
    stack.clock.now += 1
    running = await alice.submit("backup", BACKUP)
    held = await site.claimed()
    await stack.stop_core()
    await stack.start_core()
    assert held.job is not None
    assert held.job.id == waiting.id
    assert (await site.renew(held)).error is None
    await site.succeed(held)
    assert (await stack.until(waiting.id)).state is State.SUCCEEDED
    assert (await site.claimed()).job.id == running.id  # type: ignore[union-attr]


async def test_an_event_lost_with_its_core_is_published_later(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id

    async def die(*_: Any) -> None:
        raise asyncio.CancelledError

    stack.core.ledger._tell = die  # type: ignore[method-assign]
    with pytest.raises(Exception, match="no answer"):
        await site.bus.request(site.bus.subjects.hold("claim", "site1", "r1"), b"{}", timeout=0.5)
    assert (await stack.record(job)).state is State.RUNNING
    assert await kinds(stack, job) == ["accepted"]
    await stack.stop_core()
    await stack.start_core()
    await stack.pass_time(1)
    assert await kinds(stack, job) == ["accepted", "started"]


async def test_a_core_sees_what_another_accepted(stack: Stack, site: Worker, alice: Client) -> None:
    first = stack.core
    await stack.start_core()
    jobs = {(await alice.submit("backup", BACKUP)).id for _ in range(20)}
    claimed = {(await site.claimed()).job.id for _ in range(20)}  # type: ignore[union-attr]
    assert claimed == jobs
    assert first is not stack.core


async def test_leftovers_of_a_one_shot_stack_are_failed(stack: Stack, site: Worker, alice: Client) -> None:
    waiting = (await alice.submit("backup", BACKUP)).id
    await stack.core.end_leftovers()
    record = await stack.record(waiting)
    assert (record.state, record.error.code if record.error else "") == (State.FAILED, "interrupted")


# ---- the client --------------------------------------------------------------------------------------------------


async def test_wait_ends_with_the_job(stack: Stack, site: Worker, alice: Client) -> None:
    job = (await alice.submit("backup", BACKUP)).id
    waiting = asyncio.create_task(alice.wait(job))
    await site.succeed(await site.claimed())
    async with asyncio.timeout(4):
        assert (await waiting).state is State.SUCCEEDED


async def test_events_by_request(stack: Stack, site: Worker, alice: Client) -> None:
    seen: list[str] = []

    async def follow() -> None:
        async for event in alice.events(request="mine"):
            seen.append(event.type)

    following = asyncio.create_task(follow())
    while not alice.bus.subscriptions:
        await asyncio.sleep(0.01)
    await alice.submit("backup", BACKUP)
    job = (await alice.submit("backup", {**BACKUP, "request": "mine"})).id
    await alice.cancel(job)
    async with asyncio.timeout(5):
        await following
    assert seen == ["io.snappy.backup.accepted", "io.snappy.backup.cancelled"]


PLUGINS = {"tape": {"backup": {"type": "object", "properties": {"reel": {}}, "additionalProperties": False}}}
NAMES: dict[str, Any] = {"tape": {}}


async def test_plug_ins_are_told_once_and_known_to_all(stack: Stack, site: Worker, alice: Client) -> None:
    other = await stack.worker("site2")
    etag = (await site.beat(plugins=PLUGINS)).etag
    assert etag
    assert (await other.beat(plugins=PLUGINS)).etag == etag
    assert (await site.beat(etag=etag)).etag == etag
    assert (await site.beat(etag="unheard-of")).etag == ""
    assert [beat.plugins for beat in await alice.services("source")] == [{}, NAMES], "site1 has not told its own"
    assert (await site.beat(etag=etag)).etag == etag
    assert [beat.plugins for beat in await alice.services("source", "site1")] == [PLUGINS]
    wrong = {**BACKUP, "plugin": "tape", "options": {"cassette": 1}}
    assert (await alice.submit("backup", wrong)).error.code == "bad-options"  # type: ignore[union-attr]
    await stack.stop_core()
    await stack.start_core()
    assert (await site.beat(etag=etag)).etag == etag


async def test_replicas_that_are_long_dead_are_forgotten_when_another_starts(
    stack: Stack, site: Worker, alice: Client
) -> None:
    etag = (await site.beat(plugins=PLUGINS)).etag
    stack.clock.now += REMEMBERED_SECONDS + 1
    assert [beat.service for beat in await alice.services()] == ["site1", "vault"]
    await stack.worker("site1", "r2")
    assert [beat.replica for beat in await alice.services("source")] == ["r2"]
    assert (await site.beat(etag=etag)).etag == "", "what nobody offered any more is gone too"
    assert {beat.replica for beat in await alice.services("source")} == {"r1", "r2"}


async def test_more_services_than_a_message_holds_are_listed(
    stack: Stack, site: Worker, alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "ENVELOPE_BYTES", stack.core.bus.nc.max_payload - 5000)
    others = [Worker(site.bus, f"r{number}") for number in range(2, 10)]
    for other in others:
        await other.beat(keys=["x" * 1000])
    found = await alice.services()
    assert [beat.replica for beat in found if beat.role == "source"] == ["r1", *(other.replica for other in others)]


async def test_services_are_listed(stack: Stack, site: Worker, alice: Client) -> None:
    assert [(beat.role, beat.service) for beat in await alice.services()] == [("source", "site1"), ("target", "vault")]
    assert [beat.service for beat in await alice.services("target")] == ["vault"]
