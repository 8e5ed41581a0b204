"""An attempt: what it reports, however its work ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from snappy.bus.subjects import Subjects
from snappy.errors import (
    AttemptOver,
    BadOptions,
    BusUnavailable,
    Damaged,
    Denied,
    Interrupted,
    JobCancelled,
    SourceMissing,
    TooLarge,
    Unavailable,
)
from snappy.jobs.messages import JobRecord, Report, Result
from snappy.jobs.states import State
from snappy.repository.progress import Progress
from snappy.sources import attempt as module
from snappy.sources.attempt import Attempt

JOB = JobRecord(id="job-1", kind="backup", submitter="alice", state=State.RUNNING)


class Bus:
    """Keeps what is stored; ``trouble`` is raised, or answered as a repeat, before that."""

    def __init__(self, *trouble: Exception | str) -> None:
        self.subjects = Subjects()
        self.trouble = list(trouble)
        self.reports: list[Report] = []
        self.ids: list[str] = []

    async def store(self, subject: str, body: bytes, *, message_id: str, attempts: int) -> Any:
        assert subject == "snappy.report.site.r1"
        self.ids.append(message_id)
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is None:
            self.reports.append(msgspec.json.decode(body, type=Report))
        return SimpleNamespace(duplicate=trouble == "duplicate")

    async def publish(self, subject: str, body: bytes) -> None:
        assert subject == "snappy.progress.job-1"


class Hold:
    """A hold that nobody renews."""

    job, attempt = JOB, 1

    def __init__(self) -> None:
        self.ended: Exception | None = None
        self.released = False

    async def keep(self) -> None:
        await asyncio.Event().wait()

    def end(self, reason: Exception) -> None:
        self.ended = self.ended or reason

    async def release(self) -> None:
        self.released = True


async def outcome(work: Callable[[Any, Progress], Awaitable[Result]], *trouble: Any) -> tuple[Bus, Hold]:
    bus, hold = Bus(*trouble), Hold()
    made: Any = Attempt(bus, "site", "r1", hold, work)  # type: ignore[arg-type]
    await made.run()
    return bus, hold


def failing(error: Exception) -> Callable[[Any, Progress], Awaitable[Result]]:
    async def work(_hold: Any, _progress: Progress) -> Result:
        raise error

    return work


async def succeeding(_hold: Any, _progress: Progress) -> Result:
    return Result(snapshot="abc")


async def test_success_is_reported_with_its_result() -> None:
    bus, _ = await outcome(succeeding)
    assert [report.kind for report in bus.reports] == ["succeeded"]
    assert bus.reports[0].result == Result(snapshot="abc")
    assert (bus.reports[0].job, bus.reports[0].attempt) == ("job-1", 1)


@pytest.mark.parametrize(
    ("error", "kind", "code", "retryable"),
    [
        (Denied(), "rejected", "denied", False),
        (BadOptions(), "rejected", "bad-options", False),
        (SourceMissing(), "failed", "source-missing", False),
        (Unavailable(), "failed", "unavailable", True),
        (AttemptOver(), "failed", "attempt-over", True),
        (ValueError("a bug with a secret in it"), "failed", "internal", False),
    ],
)
async def test_failure_is_reported_with_its_error(error: Exception, kind: str, code: str, retryable: bool) -> None:
    bus, _ = await outcome(failing(error))
    last = bus.reports[-1]
    assert last.error is not None
    assert (last.kind, last.error.code, last.error.retryable) == (kind, code, retryable)
    assert "secret" not in last.error.message


async def test_what_a_check_found_is_reported_with_its_error() -> None:
    bus, _ = await outcome(failing(Damaged("two packs are gone", result=Result(finding_count=2))))
    assert (bus.reports[-1].kind, bus.reports[-1].result) == ("failed", Result(finding_count=2))


async def test_a_cancelled_job_is_reported_as_such() -> None:
    bus, _ = await outcome(failing(JobCancelled()))
    assert bus.reports[-1].kind == "cancelled"


async def test_why_the_hold_ended_counts_more_than_what_broke_by_it() -> None:
    async def work(hold: Any, _progress: Progress) -> Result:
        hold.end(JobCancelled())
        raise Unavailable

    bus, _ = await outcome(work)
    assert bus.reports[-1].kind == "cancelled"


async def test_an_attempt_that_is_over_reports_nothing_more() -> None:
    async def work(hold: Any, _progress: Progress) -> Result:
        hold.end(AttemptOver())
        raise AttemptOver

    bus, _ = await outcome(work)
    assert bus.reports == []


async def test_a_report_is_kept_until_the_bus_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.001)
    bus, _ = await outcome(succeeding, BusUnavailable(), BusUnavailable(), "duplicate")
    assert len(bus.ids) == 3
    assert len(set(bus.ids)) == 1, "what the server calls a repeat of itself is stored"


async def test_a_new_report_that_the_server_calls_a_repeat_is_sent_with_another_id() -> None:
    bus, _ = await outcome(succeeding, "duplicate")
    assert [report.kind for report in bus.reports] == ["succeeded"]
    assert bus.ids[0] != bus.ids[1]


async def test_a_service_that_stops_gives_its_job_back() -> None:
    started = asyncio.Event()

    async def work(hold: Any, _progress: Progress) -> Result:
        started.set()
        while hold.ended is None:
            await asyncio.sleep(0.001)
        raise hold.ended

    bus, hold = Bus(), Hold()
    made: Any = Attempt(bus, "site", "r1", hold, work)  # type: ignore[arg-type]
    running = asyncio.create_task(made.run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert isinstance(hold.ended, Interrupted)
    assert hold.released
    assert bus.reports == []


async def test_a_report_that_is_too_large_is_not_tried_for_ever() -> None:
    async with asyncio.timeout(5):
        bus, _ = await outcome(succeeding, TooLarge("a message of 2 MB"))
    assert [(report.kind, report.error and report.error.code) for report in bus.reports] == [("failed", "too-large")]
