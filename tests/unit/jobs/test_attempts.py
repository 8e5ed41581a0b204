"""How attempts end: what is retried and when, what ends the job, and that no attempt begins under an older grant."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy import config
from snappy.bus.grants import CLOCK_MARGIN
from snappy.bus.subjects import WorkerSubject
from snappy.errors import AttemptLost, Damaged, Interrupted, NotARepository, SnappyError, Unavailable
from snappy.jobs.attempts import CATCH_UP_ATTEMPTS, LONGEST_BACKOFF, LONGEST_CATCH_UP_BACKOFF, Attempts
from snappy.jobs.ledger import Ledger
from snappy.jobs.messages import Attempt, Hold, JobRecord, Result
from snappy.jobs.mirror import Kept
from snappy.jobs.rules import LOST
from snappy.jobs.states import Event, State, after
from snappy.jobs.store import JobStore, StoredJob

NOW = 1000.0
HOLD_SECONDS = 30.0
SETTINGS = config.Core(hold_seconds=HOLD_SECONDS, max_attempts=3, max_lost_attempts=4)
WORKER = WorkerSubject("report", "site1", "r1")


class Holds:
    """One job's hold, in memory."""

    def __init__(self, deadline: float) -> None:
        self.hold: Kept[Hold] | None = Kept(Hold(attempt=1, service="site1", replica="r1", deadline=deadline), 1)

    async def fetch(self, job: str) -> Kept[Hold] | None:
        return self.hold

    def get(self, job: str) -> Kept[Hold] | None:
        return self.hold

    async def remove(self, job: str) -> None:
        self.hold = None


class MemoryLedger:
    async def transition(self, stored: StoredJob, event: Event, **changes: Any) -> StoredJob:
        record = msgspec.structs.replace(stored.value, state=after(stored.value.state, event), **changes)
        return Kept(record, stored.revision + 1)


class Bench:
    """Attempts at one job, over memory."""

    def __init__(self, settings: config.Core = SETTINGS) -> None:
        self.now = NOW
        self.holds = Holds(NOW + HOLD_SECONDS)
        store = type("Store", (), {"holds": self.holds})()
        self.attempts = Attempts(
            cast(JobStore, store), cast(Ledger, MemoryLedger()), settings, lambda: self.now, jitter=lambda: 1.0
        )
        self.job: StoredJob = Kept(
            JobRecord(id="j", kind="backup", submitter="alice", state=State.QUEUED, source="site1"), 1
        )

    async def start(self, target: str = "") -> None:
        number = len(self.job.value.attempts) + 1
        self.holds.hold = Kept(
            Hold(attempt=number, service="site1", replica="r1", deadline=self.now + HOLD_SECONDS), number
        )
        attempt = Attempt(number=number, service="site1", replica="r1", started=self.now, target=target)
        changes = {"attempts": [*self.job.value.attempts, attempt]}
        self.job = await MemoryLedger().transition(self.job, Event.STARTED, **changes)

    async def fail(self, error: SnappyError) -> JobRecord:
        self.job = await self.attempts.failed(self.job, error)
        return self.job.value


async def failed_until_over(bench: Bench, *errors: SnappyError) -> JobRecord:
    for error in errors:
        await bench.start()
        await bench.fail(error)
    return bench.job.value


async def test_the_wait_doubles_with_each_error() -> None:
    bench = Bench(msgspec.structs.replace(SETTINGS, max_attempts=20))
    waits = []
    for _ in range(12):
        await bench.start()
        bench.now += HOLD_SECONDS + CLOCK_MARGIN  # the grant is over, so that the backoff alone is seen
        waits.append((await bench.fail(Unavailable())).not_before - bench.now)
        bench.now += waits[-1]
    assert waits == [min(2.0 * 2**number, LONGEST_BACKOFF) for number in range(12)]


async def test_no_attempt_begins_while_the_grant_of_the_last_is_good() -> None:
    bench = Bench()
    await bench.start()
    record = await bench.fail(Unavailable())
    assert record.not_before == NOW + HOLD_SECONDS + CLOCK_MARGIN
    assert record.attempts[-1].until == NOW + HOLD_SECONDS


async def test_a_lost_attempt_is_followed_at_once_when_its_grant_is_over() -> None:
    bench = Bench()
    await bench.start()
    bench.now += HOLD_SECONDS + CLOCK_MARGIN + 1
    assert (await bench.fail(AttemptLost())).not_before == bench.now


async def test_errors_and_losses_have_limits_of_their_own() -> None:
    bench = Bench()
    record = await failed_until_over(
        bench, AttemptLost(), Unavailable(), Interrupted(), Unavailable(), AttemptLost(), Unavailable()
    )
    assert (record.state, record.error.code if record.error else "") == (State.FAILED, "unavailable")
    record = await failed_until_over(Bench(), *[AttemptLost()] * 4)
    assert (record.state, record.error.code if record.error else "") == (State.FAILED, "attempt-lost")


async def test_what_a_check_found_stays_where_the_job_failed_and_not_where_it_is_tried_again() -> None:
    bench = Bench()
    await bench.start()
    retried = await bench.attempts.failed(bench.job, Unavailable(), result=Result(finding_count=1))
    assert (retried.value.state, retried.value.result) == (State.RETRYING, None)
    bench.job = retried
    await bench.start()
    failed = await bench.attempts.failed(bench.job, Damaged(), result=Result(finding_count=2))
    assert (failed.value.state, failed.value.result) == (State.FAILED, Result(finding_count=2))


async def test_what_is_not_retryable_ends_the_job_and_the_reason_stays() -> None:
    bench = Bench()
    record = await failed_until_over(bench, NotARepository("no repository at vault"))
    assert record.state is State.FAILED
    assert record.error is not None
    assert record.error.message == "no repository at vault"
    assert record.attempts[0].error == record.error
    assert bench.holds.hold is None


@pytest.mark.parametrize("error", [Unavailable(), NotARepository(), AttemptLost()])
async def test_a_job_that_was_to_be_cancelled_is_not_tried_again(error: SnappyError) -> None:
    bench = Bench()
    await bench.start()
    bench.job = Kept(msgspec.structs.replace(bench.job.value, cancel="alice"), 2)
    assert (await bench.fail(error)).state is State.CANCELLED


async def test_only_the_worker_of_the_attempt_that_goes_on_is_current() -> None:
    bench = Bench()
    assert not bench.attempts.is_current(bench.job.value, WORKER, 1)
    await bench.start()
    assert bench.attempts.is_current(bench.job.value, WORKER, 1)
    for worker, number in (
        (WORKER, 2),
        (WORKER._replace(replica="r2"), 1),
        (WORKER._replace(service="site2"), 1),
    ):
        assert not bench.attempts.is_current(bench.job.value, worker, number)
    await bench.fail(NotARepository())
    assert not bench.attempts.is_current(bench.job.value, WORKER, 1)


@given(st.lists(st.sampled_from([Unavailable, AttemptLost, Interrupted, NotARepository]), min_size=10, max_size=10))
async def test_every_job_ends_within_its_limits(errors: list[type[SnappyError]]) -> None:
    bench = Bench()
    for error in errors:
        await bench.start()
        if (await bench.fail(error())).state is State.FAILED:
            break
    record = bench.job.value
    lost = sum(attempt.error is not None and attempt.error.code in LOST for attempt in record.attempts)
    assert record.state is State.FAILED
    assert lost <= SETTINGS.max_lost_attempts
    assert len(record.attempts) - lost <= SETTINGS.max_attempts


async def test_a_copy_that_follows_a_backup_is_tried_for_most_of_a_day() -> None:
    bench = Bench()
    bench.job = Kept(msgspec.structs.replace(bench.job.value, kind="copy", follows="j"), 1)
    waits = []
    for _ in range(CATCH_UP_ATTEMPTS):
        await bench.start()
        bench.now += HOLD_SECONDS + CLOCK_MARGIN
        waits.append((await bench.fail(Unavailable())).not_before - bench.now)
        bench.now += max(waits[-1], 0.0)
    assert bench.job.value.state is State.FAILED
    assert waits[-2] == max(waits) == LONGEST_CATCH_UP_BACKOFF
    assert bench.now - NOW > 80_000


async def test_another_of_several_targets_is_tried_and_at_last_all_are_named() -> None:
    bench = Bench()
    command = {"target": "a", "key": "k", "targets": [{"target": "b", "key": None}], "quorum": 1}
    bench.job = Kept(msgspec.structs.replace(bench.job.value, command=command), 1)
    await bench.start("a")
    record = await bench.fail(NotARepository("none"))
    assert (record.state, record.place.target if record.place else "") == (State.RETRYING, "b")
    await bench.start("b")
    record = await bench.fail(NotARepository("neither"))
    assert (record.state, record.error.code if record.error else "") == (State.FAILED, "quorum-missed")
    assert [one.reason for one in record.result.stored] == ["none", "neither"] if record.result else False
