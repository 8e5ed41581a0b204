"""A worker's hold: it waits while the core is away, goes on when it is back, and ends when it is told."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from snappy.bus.subjects import Subjects
from snappy.errors import AttemptOver, BusUnavailable, InternalError, JobCancelled
from snappy.jobs.messages import ErrorInfo, HoldAnswer, HoldRequest, JobRecord, LockRef
from snappy.jobs.states import State
from snappy.sources.hold import Hold

JOB = JobRecord(id="job-1", kind="backup", submitter="alice", state=State.RUNNING)


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Core:
    """Answers renewals in the place of a bus; an exception among the answers is raised."""

    def __init__(self, *answers: HoldAnswer | Exception) -> None:
        self.subjects = Subjects()
        self.answers = list(answers)
        self.asked: list[tuple[str, HoldRequest]] = []

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        self.asked.append((subject, msgspec.json.decode(body, type=HoldRequest)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode(answer)


def granted(grant: str, seconds: float, **more: Any) -> HoldAnswer:
    return HoldAnswer(clock=1000.0, deadline=1000.0 + seconds, grant=grant, attempt=2, **more)


def held(core: Core, clock: Clock, seconds: float = 30.0) -> Hold:
    bus: Any = core
    return Hold(bus, "site", "r1", granted("first", seconds, job=JOB), clock.now, clock)


async def keep_until(hold: Hold, happened: Any) -> None:
    task = asyncio.create_task(hold.keep())
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_fresh_hold_lets_work_go_on() -> None:
    hold = held(Core(), Clock())
    hold.check()
    assert (hold.grant(), hold.attempt, hold.job.id) == ("first", 2, "job-1")


async def test_it_is_renewed_with_a_new_grant() -> None:
    core, clock = Core(granted("second", 30.0)), Clock()
    hold = held(core, clock, seconds=0.03)
    await keep_until(hold, lambda: hold.grant() == "second")
    assert core.asked[0] == ("snappy.hold.renew.site.r1", HoldRequest(job="job-1", attempt=2))


async def test_work_pauses_when_the_grant_ran_out_and_goes_on_when_it_is_renewed() -> None:
    core, clock = Core(BusUnavailable(), BusUnavailable(), granted("later", 60.0)), Clock()
    hold = held(core, clock, seconds=0.03)
    clock.now += 1.0
    passed = threading.Event()

    def work() -> None:
        hold.check()
        passed.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert not passed.wait(0.05)
    await keep_until(hold, passed.is_set)
    worker.join(5)
    assert len(core.asked) == 3


async def test_it_ends_when_the_core_says_that_the_attempt_is_over() -> None:
    over = granted("", 0.0, error=ErrorInfo.of(AttemptOver()))
    hold = held(Core(over), Clock(), seconds=0.03)
    await hold.keep()
    with pytest.raises(AttemptOver):
        hold.check()


async def test_another_refusal_does_not_end_it() -> None:
    refused = granted("", 0.0, error=ErrorInfo.of(InternalError()))
    core = Core(refused, granted("second", 30.0))
    hold = held(core, Clock(), seconds=0.03)
    await keep_until(hold, lambda: hold.grant() == "second")
    hold.check()


async def test_a_cancelled_job_ends_but_keeps_its_grant_fresh() -> None:
    core = Core(granted("second", 0.03, cancel=True), granted("third", 0.03, cancel=True))
    hold = held(core, Clock(), seconds=0.03)
    await keep_until(hold, lambda: hold.grant() == "third")
    with pytest.raises(JobCancelled):
        hold.check()


async def test_a_worker_that_waits_hears_of_the_end() -> None:
    clock = Clock()
    hold = held(Core(), clock)
    clock.now += 31.0
    waiting = asyncio.create_task(asyncio.to_thread(hold.check))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    hold.end(JobCancelled())
    with pytest.raises(JobCancelled):
        await waiting


def test_the_first_reason_stays() -> None:
    hold = held(Core(), Clock())
    hold.end(JobCancelled())
    hold.end(AttemptOver())
    assert isinstance(hold.ended, JobCancelled)


async def test_a_grant_that_a_target_finds_run_out_is_waited_for_anew() -> None:
    core = Core(granted("second", 30.0))
    hold = held(core, Clock(), seconds=0.03)
    hold.lapse("of long ago")
    hold.check()
    hold.lapse("first")
    waiting = asyncio.create_task(asyncio.to_thread(hold.check))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await keep_until(hold, waiting.done)
    await waiting


async def test_a_hold_that_cannot_be_kept_ends_the_work() -> None:
    hold = held(Core(ValueError("a bug")), Clock(), seconds=0.03)
    with pytest.raises(ValueError):
        await hold.keep()
    with pytest.raises(InternalError):
        hold.check()


async def test_giving_back_is_best_effort() -> None:
    core = Core(BusUnavailable())
    await held(core, Clock()).release()
    assert core.asked[0][0] == "snappy.hold.release.site.r1"


LOCKS = [LockRef(name=digit * 64, job="job-0", attempt=1, refreshed=0.0) for digit in "ab"]


async def removable(hold: Hold) -> tuple[set[str], str]:
    """What may be removed of :data:`LOCKS`, and the grant meanwhile, as a thread of the engine sees it."""

    def ask() -> tuple[set[str], str]:
        with hold.removing(LOCKS) as names:
            return names, hold.grant()

    return await asyncio.to_thread(ask)


async def test_locks_that_nobody_holds_are_named_by_the_next_grant() -> None:
    core = Core(granted("naming", 30.0, locks=["a" * 64, "of another question"]), granted("plain", 30.0))
    hold = held(core, Clock())
    keeper = asyncio.create_task(hold.keep())
    await asyncio.sleep(0)
    assert await removable(hold) == ({"a" * 64}, "naming")
    assert core.asked[-1][1].locks == LOCKS
    assert await hold._renew()
    assert core.asked[-1][1].locks == []
    keeper.cancel()


async def test_a_core_that_does_not_answer_names_none() -> None:
    hold = held(Core(BusUnavailable()), Clock())
    keeper = asyncio.create_task(hold.keep())
    await asyncio.sleep(0)
    assert await removable(hold) == (set(), "first")
    keeper.cancel()


async def test_a_hold_that_is_not_kept_names_none() -> None:
    assert await removable(held(Core(), Clock())) == (set(), "first")


async def test_its_own_lock_is_named_as_its_own() -> None:
    core = Core(granted("naming", 30.0, locks=["c" * 64]))
    hold = held(core, Clock())
    keeper = asyncio.create_task(hold.keep())
    await asyncio.sleep(0)

    def let_go() -> set[str]:
        with hold.letting_go("c" * 64) as names:
            return names

    assert await asyncio.to_thread(let_go) == {"c" * 64}
    (asked,) = core.asked[-1][1].locks
    assert (asked.name, asked.job, asked.attempt) == ("c" * 64, "job-1", 2)
    keeper.cancel()
