"""A permit, and how that of another process follows it."""

from __future__ import annotations

import threading

import pytest

from snappy.errors import AccessDenied, AttemptOver, JobCancelled, Replaced
from snappy.sources.permit import Permit
from snappy.sources.worker_store import open_store


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pair(clock: Clock) -> tuple[Permit, Permit]:
    """A permit and one that follows it."""
    here, there = Permit(clock), Permit(clock)
    here.watch(there.told)
    return here, there


def waits(permit: Permit) -> threading.Event:
    """Set as soon as the permit lets work go on."""
    passed = threading.Event()

    def work() -> None:
        permit.check()
        passed.set()

    threading.Thread(target=work, daemon=True).start()
    return passed


def test_it_is_told_how_things_are_at_once() -> None:
    here, there = Permit(Clock()), Permit(Clock())
    here.extend("first", 130.0)
    here.watch(there.told)
    there.check()
    assert there.grant() == "first"


def test_a_new_grant_lets_both_go_on() -> None:
    clock = Clock()
    here, there = pair(clock)
    passed = waits(there)
    assert not passed.wait(0.05)
    here.extend("second", 130.0)
    assert passed.wait(10)
    clock.now = 131.0
    passed = waits(there)
    assert not passed.wait(0.05)
    here.extend("third", 160.0)
    assert passed.wait(10)
    assert there.grant() == "third"


def test_a_grant_that_lapsed_there_is_not_taken_up_again() -> None:
    here, there = pair(Clock())
    here.extend("first", 130.0)
    there.lapse("first")
    here.watch(there.told)
    passed = waits(there)
    assert not passed.wait(0.05)
    here.extend("first", 131.0)
    assert passed.wait(10)


def test_another_grant_that_lapsed_is_nothing() -> None:
    here, there = pair(Clock())
    here.extend("second", 130.0)
    there.lapse("first")
    there.check()


def test_the_end_is_told_with_its_reason() -> None:
    here, there = pair(Clock())
    here.extend("first", 130.0)
    here.end(Replaced("a newer job came"))
    here.end(AttemptOver())
    with pytest.raises(JobCancelled, match="a newer job came"):
        there.check()
    assert isinstance(there.ended, Replaced)
    assert there.grant() == "first", "what has to be put in order may still be"


def test_who_waits_hears_of_the_end() -> None:
    here, there = pair(Clock())
    failed = threading.Event()

    def work() -> None:
        with pytest.raises(AttemptOver):
            there.check()
        failed.set()

    threading.Thread(target=work, daemon=True).start()
    assert not failed.wait(0.05)
    here.end(AttemptOver())
    assert failed.wait(10)


def test_who_no_longer_watches_is_not_told() -> None:
    here, there = Permit(Clock()), Permit(Clock())
    leave = here.watch(there.told)
    leave()
    leave()
    here.extend("first", 130.0)
    assert there.grant() == ""


def test_a_worker_removes_no_lock() -> None:
    store = open_store(
        target="vault", caller="site1", prefix="snappy", nats={"url": "nats://127.0.0.1:1"}, patience=0.0
    )
    with pytest.raises(AccessDenied):
        store._hold.letting_go("lock")
