from __future__ import annotations

import asyncio
from datetime import datetime
from random import Random

import pytest

from snappy.bandwidth import Timetable
from snappy.bus import throttle
from snappy.bus.grants import Grant
from snappy.bus.throttle import LEAST_FRAME, REMEMBERED, Pace, Throttle, Throttles

MIB = 1 << 20
RATE = 4 * MIB


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes when somebody sleeps, and a little more than was asked for."""
    made, chance = Clock(), Random(7)

    async def sleep(seconds: float) -> None:
        made.now += seconds + chance.uniform(0.0, 0.02)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return made


def grant(job: str = "j1", bandwidth: str = "") -> Grant:
    return Grant(job, 1, "site1", "vault", "rlw", 2e9, (), bandwidth)


@pytest.mark.parametrize("piece", [4 << 10, 100_000, MIB])
async def test_ten_seconds_hold_what_they_may_within_a_twentieth(clock: Clock, piece: int) -> None:
    pace, passed = Pace([Throttle(lambda: RATE, clock)]), 0
    while clock.now < 1010:
        await pace.take(piece)
        passed += piece
    assert abs(passed / (clock.now - 1000.0) / RATE - 1) < 0.05


async def test_a_pause_is_not_made_up_for(clock: Clock) -> None:
    pace = Pace([Throttle(lambda: RATE, clock)])
    await pace.take(MIB)
    clock.now += 60
    began = clock.now
    for _ in range(4):
        await pace.take(MIB)
    assert clock.now - began > 0.85


async def test_the_slower_of_two_limits_holds(clock: Clock) -> None:
    own, job = Throttle(lambda: RATE, clock), Throttle(lambda: RATE // 2, clock)
    for _ in range(8):
        await Pace([own, job]).take(MIB)
    assert 3.9 < clock.now - 1000 < 4.3


async def test_what_one_waits_no_longer_for_the_next_ones_pay(clock: Clock) -> None:
    pace = Pace([Throttle(lambda: MIB, clock)])
    await pace.take(30 * MIB, longest=10.0)
    assert clock.now - 1000 < 10.1
    await pace.take(MIB)
    assert 30.8 < clock.now - 1000 < 31.2


async def test_without_a_limit_nobody_waits(clock: Clock) -> None:
    for pace in (Pace(), Pace([Throttle(lambda: 0, clock)])):
        await pace.take(1 << 40)
        assert pace.frame(MIB) == MIB
    assert clock.now == 1000.0
    assert Pace().is_free


def test_frames_are_smaller_under_a_limit() -> None:
    assert Pace([Throttle(lambda: RATE)]).frame(MIB) == RATE // throttle.FRAMES_A_SECOND
    assert Pace([Throttle(lambda: 100 * MIB)]).frame(MIB) == MIB
    assert Pace([Throttle(lambda: 10)]).frame(MIB) == LEAST_FRAME
    assert Pace([Throttle(lambda: 0), Throttle(lambda: RATE)]).frame(MIB) == RATE // throttle.FRAMES_A_SECOND


async def test_what_holds_is_the_targets_limit_and_the_jobs(clock: Clock) -> None:
    free = Throttles()
    assert free.upload(None).is_free
    assert free.upload(grant()).is_free
    assert not free.download(grant(bandwidth="1M")).is_free
    table = Throttles(Timetable.parse("08:00,1M:8M 20:00,off"), lambda: hour)
    hour = datetime(2026, 11, 23, 9)
    assert table.upload(None).frame(MIB) == MIB // 8
    assert table.download(None).frame(MIB) == MIB
    hour = datetime(2026, 11, 23, 21)
    assert table.upload(None).frame(MIB) == MIB
    assert table.upload(grant(bandwidth="4M")).frame(MIB) == MIB // 2


def test_all_transfers_of_a_job_share_its_limit() -> None:
    throttles = Throttles()
    (first,), (again,) = throttles.upload(grant("j1", "1M")).throttles, throttles.upload(grant("j1", "1M")).throttles
    (other,), (back,) = throttles.upload(grant("j2", "1M")).throttles, throttles.download(grant("j1", "1M")).throttles
    assert first is again
    assert len({first, other, back}) == 3
    for number in range(REMEMBERED):
        throttles.upload(grant(f"n{number}", "1M"))
    assert throttles.upload(grant("j1", "1M")).throttles != (first,)
