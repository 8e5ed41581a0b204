"""Rates and time left, from counters."""

from __future__ import annotations

import pytest

from snappy.repository.progress import Progress
from snappy.sources.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_rate_is_of_the_last_seconds_alone(clock: Clock) -> None:
    progress = Progress()
    meter = Meter(progress, "job", 1, clock)
    for _ in range(20):
        clock.now += 1.0
        progress.add(size=100)
        meter.read()
    for _ in range(8):
        clock.now += 1.0
        progress.add(size=10, files=1)
        seen = meter.read()
    assert seen is not None
    assert (seen.files, seen.bytes) == (8, 2080)
    assert 10 <= seen.rate <= 30


def test_time_left_follows_from_the_rate(clock: Clock) -> None:
    progress = Progress()
    progress.expect(files=10, size=1000)
    meter = Meter(progress, "job", 3, clock)
    clock.now += 2.0
    progress.add(size=200, files=1)
    seen = meter.read()
    assert seen is not None
    assert (seen.job, seen.attempt, seen.rate, seen.remaining) == ("job", 3, 100.0, 8.0)


def test_a_total_that_was_passed_is_no_longer_told(clock: Clock) -> None:
    progress = Progress()
    progress.expect(files=10, size=1000)
    meter = Meter(progress, "job", 1, clock)
    clock.now += 1.0
    progress.add(size=1001)
    seen = meter.read()
    assert seen is not None
    assert (seen.bytes_total, seen.files_total, seen.remaining) == (0, 0, None)


def test_nothing_is_told_twice(clock: Clock) -> None:
    meter = Meter(Progress(), "job", 1, clock)
    clock.now += 1.0
    assert meter.read() is not None
    assert meter.read() is None
