"""The client asks what the table of verbs says, and what it raises is what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from snappy.bus.connection import Bus
from snappy.bus.subjects import Subjects
from snappy.errors import BusUnavailable, Denied, InternalError, JobNotFound
from snappy.frontend import api
from snappy.frontend.api import Client
from snappy.jobs.api_words import Reply, SnapshotsRequest, SubmitRequest
from snappy.jobs.kinds import BackupCommand
from snappy.jobs.messages import CloudEvent, ErrorInfo, JobRecord
from snappy.jobs.states import State
from snappy.jobs.verbs import AUDIT_RECALL, VERBS

JOB = JobRecord(id="j1", kind="backup", submitter="alice", state=State.QUEUED)


class Subscription:
    async def unsubscribe(self) -> None:
        return None


class FakeBus:
    """Answers from a list: a reply, or an error to raise."""

    user = "alice"
    subjects = Subjects()

    def __init__(self, *answers: Reply | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bytes]] = []
        self.subscriptions: list[Any] = []
        self.callback: Callable[[Any], Any] | None = None

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        self.asked.append((subject, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode(answer)

    async def listen(self, subject: str, queue: str, callback: Callable[[Any], Any]) -> Subscription:
        self.callback = callback
        self.subscriptions.append(subscription := Subscription())
        return subscription


def client(*answers: Reply | Exception) -> tuple[Client, FakeBus]:
    bus = FakeBus(*answers)
    return Client(cast(Bus, bus)), bus


async def test_each_verb_is_asked_where_the_table_says() -> None:
    asking = {
        "job-submit": lambda c: c.submit("backup", BackupCommand(source="s", target="t")),
        "job-get": lambda c: c.get("j1"),
        "job-list": lambda c: c.list(states=[State.FAILED]),
        "job-cancel": lambda c: c.cancel("j1"),
        "schedule-add": lambda c: c.schedules.add("s1", "backup", {"source": "s", "target": "t"}, every=60),
        "schedule-list": lambda c: c.schedules.list(),
        "schedule-get": lambda c: c.schedules.get("s1"),
        "schedule-pause": lambda c: c.schedules.pause("s1"),
        "schedule-resume": lambda c: c.schedules.resume("s1"),
        "schedule-remove": lambda c: c.schedules.remove("s1"),
        "schedule-run-now": lambda c: c.schedules.run_now("s1"),
        "events-subscribe": lambda c: c.subscriptions.add(),
        "events-subscription": lambda c: c.subscriptions.get(),
        "events-unsubscribe": lambda c: c.subscriptions.remove(),
        "services-list": lambda c: c.services("source"),
        "repositories-list": lambda c: c.repositories(),
        "status-get": lambda c: c.status(),
        "snapshots-list": lambda c: c.snapshots("site1", "vault"),
        "blobs-locate": lambda c: c.locate("site1", "vault", "default", "data", ["0" * 64]),
        "blobs-get": lambda c: c.blob("site1", "vault", "default", "tree", "0" * 64),
        "trees-get": lambda c: c.trees("site1", "vault", "default", ["0" * 64]),
        "audit-query": lambda c: c.audit(job="j1"),
        "audit-verify": lambda c: c.audit_verify(),
        "audit-export": lambda c: anext(c.audit_export()),
    }
    verbs = [verb for verb in VERBS if verb is not AUDIT_RECALL]  # which a core asks
    assert set(asking) == {verb.name for verb in verbs}
    for verb in verbs:
        asked, bus = client(Reply(error=ErrorInfo(code="denied", message="no", hint="ask")))
        with pytest.raises(Denied, match="no") as refused:
            await asking[verb.name](asked)
        assert refused.value.hint == "ask"
        ((subject, body),) = bus.asked
        where = "ask.site1" if verb.owner == "source" else "api"
        assert subject == f"snappy.{where}.{verb.noun}.{verb.verb}.alice"
        msgspec.json.decode(body, type=verb.request)


async def test_a_submission_whose_answer_was_lost_is_the_same_submission_again() -> None:
    asked, bus = client(BusUnavailable(), BusUnavailable(), Reply(job=JOB))
    assert await asked.submit("backup", {"source": "s", "target": "t"}) == JOB
    bodies = {body for _, body in bus.asked}
    assert (len(bus.asked), len(bodies)) == (3, 1)
    command = msgspec.json.decode(msgspec.json.decode(bodies.pop(), type=SubmitRequest).command)
    assert len(command["request"]) == 32


async def test_a_submission_is_not_tried_for_ever() -> None:
    asked, bus = client(*[BusUnavailable()] * 5)
    with pytest.raises(BusUnavailable):
        await asked.submit("backup", {"source": "s", "target": "t"})
    assert len(bus.asked) == 3


async def test_ones_own_request_stays() -> None:
    asked, bus = client(Reply(job=JOB))
    await asked.submit("backup", BackupCommand(source="s", target="t", request="mine"))
    assert b'"request":"mine"' in bus.asked[0][1]


async def test_an_answer_without_its_field_is_a_bug_of_theirs() -> None:
    asked, _ = client(Reply())
    with pytest.raises(InternalError):
        await asked.get("j1")


async def test_snapshots_that_do_not_fit_into_one_message_are_asked_for_in_turn() -> None:
    one, two, three = ({"id": name} for name in ("one", "two", "three"))
    asked, bus = client(Reply(snapshots=[three], more=True), Reply(snapshots=[two], more=True), Reply(snapshots=[one]))
    assert await asked.snapshots("site1", "vault") == [one, two, three]
    requests = [msgspec.json.decode(body, type=SnapshotsRequest) for _, body in bus.asked]
    assert [request.before for request in requests] == ["", "three", "two"]


async def test_wait_looks_for_itself_when_no_event_comes() -> None:
    over = msgspec.structs.replace(JOB, state=State.SUCCEEDED)
    asked, bus = client(Reply(job=JOB), Reply(job=JOB), Reply(job=over))
    assert await asked.wait("j1", poll=0.01) == over
    assert bus.subscriptions == []


async def test_wait_outlasts_an_outage_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "RETRY_SECONDS", 0.001)
    over = msgspec.structs.replace(JOB, state=State.SUCCEEDED)
    asked, _ = client(Reply(job=JOB), *[BusUnavailable()] * 5, Reply(job=over))
    assert await asked.wait("j1", poll=0.01) == over


async def test_wait_gives_up_an_outage_that_does_not_end() -> None:
    asked, _ = client(Reply(job=JOB), BusUnavailable())
    with pytest.raises(BusUnavailable):
        await asked.wait("j1", poll=0.01, patience=0)


async def test_wait_wakes_with_an_event() -> None:
    over = msgspec.structs.replace(JOB, state=State.SUCCEEDED)
    asked, bus = client(Reply(job=JOB), Reply(job=over))
    waiting = asyncio.create_task(asked.wait("j1", poll=3600))
    while not bus.asked:
        await asyncio.sleep(0)
    assert bus.callback is not None
    await bus.callback(object())
    async with asyncio.timeout(5):
        assert await waiting == over


async def test_wait_passes_on_what_was_answered() -> None:
    asked, bus = client(JobNotFound())
    with pytest.raises(JobNotFound):
        await asked.wait("j1")
    assert bus.subscriptions == []


async def test_events_are_those_of_the_request_and_end_with_the_job() -> None:
    asked, bus = client()
    events = asked.events(request="mine")
    first = asyncio.ensure_future(anext(events))
    while bus.callback is None:
        await asyncio.sleep(0)
    for body in (
        b'{"type":"io.snappy.security.refused","data":{}}',
        _event(State.QUEUED, "mine", "bob"),
        _event(State.QUEUED, "other", "alice"),
        _event(State.QUEUED, "mine", "alice"),
        _event(State.FAILED, "mine", "alice"),
    ):
        await bus.callback(type("Message", (), {"data": body}))
    assert (await first).data.state is State.QUEUED
    assert [event.data.state async for event in events] == [State.FAILED]


def _event(state: State, request: str, submitter: str) -> bytes:
    record = msgspec.structs.replace(JOB, state=state)
    event = CloudEvent(
        id="j1/1", source="s", type="t", subject="j1", time="", data=record, request=request, submitter=submitter
    )
    return msgspec.json.encode(event)
