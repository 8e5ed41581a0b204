"""What a schedule means: patterns for JetStream, slots of firings, what is late, jitter, request ids."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from snappy.bus.subjects import REQUEST
from snappy.errors import InvalidCommand
from snappy.jobs.schedule_words import Schedule, ScheduleAddRequest
from snappy.jobs.schedules import plan
from snappy.jobs.schedules.plan import Firing

NOW = datetime.fromisoformat("2026-12-01T12:00:00+00:00").timestamp()
HOUR = 3600.0


def schedule(**fields: Any) -> Schedule:
    return Schedule(name=fields.pop("name", "nightly"), id="i1", owner="alice", kind="backup", command={}, **fields)


def asked(**fields: Any) -> ScheduleAddRequest:
    return ScheduleAddRequest(name="nightly", kind="backup", command=msgspec.Raw(b"{}"), **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cron": "0 2 * * *"}, {"cron": "0 2 * * *", "time_zone": "UTC"}),
        ({"cron": "0 2 * * *", "time_zone": "Asia/Tokyo"}, {"cron": "0 2 * * *", "time_zone": "Asia/Tokyo"}),
        ({"every": 3600}, {"every": 3600}),
        ({"at": "2026-12-01T14:00:00+01:00"}, {"at": NOW + HOUR}),
    ],
)
def test_when(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert plan.timing(asked(**fields), NOW) == expected


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "none of them"),
        ({"every": 1, "cron": "0 0 * * *"}, "cron and every"),
        ({"every": 60, "time_zone": "Europe/Berlin"}, "belongs to a cron pattern"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 0 31 2 *"}, "no time in the next five years"),
        ({"cron": "0 0 * * *", "time_zone": "Mars/Olympus"}, "no time zone"),
        ({"at": "tomorrow"}, "no point in time"),
        ({"at": "2027-01-01T02:00:00"}, "in which time zone"),
        ({"at": "2026-12-01T12:00:00Z"}, "is past"),
        ({"at": "9999-01-01T00:00:00Z"}, "too far away"),
    ],
)
def test_what_can_never_run_or_would_always_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidCommand, match=told):
        plan.timing(asked(**fields), NOW)


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"every": 0}, "every"), ({"every": -5}, "every"), ({"jitter": -1}, "jitter"), ({"missed": "twice"}, "missed")],
)
def test_an_interval_of_nothing_does_not_even_decode(fields: dict[str, Any], told: str) -> None:
    body = {"name": "n", "kind": "backup", "command": {}, **fields}
    with pytest.raises(msgspec.ValidationError, match=rf"\$\.{told}"):
        msgspec.json.decode(msgspec.json.encode(body), type=ScheduleAddRequest)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"cron": "0 2 * * 7", "time_zone": "Europe/Berlin"}, ("0 0 2 * * 0", "Europe/Berlin")),
        ({"every": 21600}, ("@every 21600s", None)),
        ({"at": NOW + 0.5}, ("@at 2026-12-01T12:00:00.500000Z", None)),
    ],
)
def test_headers(fields: dict[str, Any], pattern: tuple[str, str | None]) -> None:
    headers = plan.headers(schedule(**fields), "p.due.nightly")
    assert (headers["Nats-Schedule"], headers.get("Nats-Schedule-Time-Zone")) == pattern
    assert (headers["Nats-Schedule-Target"], headers["Snappy-Schedule"]) == ("p.due.nightly", "i1")


@pytest.mark.parametrize(
    ("header", "following"),
    [("2026-12-01T13:00:00Z", NOW + HOUR), ("2026-12-01T14:00:00+01:00", NOW + HOUR), ("purge", None), ("", None)],
)
def test_what_a_message_says_of_the_next_one(header: str, following: float | None) -> None:
    assert Firing.read(NOW, {"Nats-Schedule-Next": header}) == Firing(NOW, following)


def test_the_slot_of_a_firing() -> None:
    every = schedule(every=60)
    assert plan.slot_of(every, Firing(NOW + 0.3, NOW + 60)).at == NOW
    assert plan.slot_of(every, Firing(NOW + 0.3)).at == NOW + 0.3
    assert plan.slot_of(schedule(at=NOW), Firing(NOW + 900)).at == NOW
    assert plan.slot_of(schedule(cron="0 9 * * *"), Firing(NOW)).at == NOW - 3 * HOUR
    assert plan.slot_of(schedule(cron="0 12 * * *"), Firing(NOW - 0.5)).at == NOW


def test_what_comes_next() -> None:
    for fields, expected in (
        ({"every": 60}, NOW + 60),
        ({"at": NOW + 5}, NOW + 5),
        ({"cron": "0 13 * * *"}, NOW + HOUR),
    ):
        slot = plan.next_slot(schedule(**fields), NOW)
        assert slot is not None
        assert slot.at == expected
    assert plan.next_slot(schedule(at=NOW), NOW) is None


def test_help_is_needed_where_the_server_would_fire_later() -> None:
    daily = schedule(cron="30 2 * * *", time_zone="Europe/Berlin")
    before = datetime.fromisoformat("2027-03-27T02:30:00+01:00").timestamp()
    skipped = plan.next_slot(daily, before)
    usual = plan.next_slot(daily, before - HOUR)
    assert plan.needs_help(skipped, None)
    assert not plan.needs_help(usual, before)
    assert not plan.needs_help(usual, None)
    assert plan.needs_help(usual, before + 86400)
    assert not plan.needs_help(None, None)


@pytest.mark.parametrize(
    ("fields", "slot", "now", "missed"),
    [
        ({"cron": "0 9 * * *"}, Firing(NOW), NOW, True),
        ({"cron": "0 12 * * *"}, Firing(NOW), NOW + 1, False),
        ({"cron": "0 12 * * *"}, Firing(NOW), NOW + 301, True),
        ({"at": NOW}, Firing(NOW), NOW + 200, False),
        ({"at": NOW}, Firing(NOW), NOW + HOUR, True),
        ({"every": 3600, "since": NOW - HOUR}, Firing(NOW, NOW + HOUR), NOW, False),
        ({"every": 3600, "since": NOW - 3.5 * HOUR}, Firing(NOW, NOW + HOUR), NOW, True),
        ({"every": 3600, "since": NOW - 4 * HOUR - 1}, Firing(NOW, NOW + HOUR), NOW, False),
        ({"every": 3600, "since": 1.0, "last_slot": NOW - HOUR}, Firing(NOW, NOW + HOUR), NOW + HOUR / 2, True),
    ],
)
def test_missed_is_what_comes_five_minutes_late(fields: dict[str, Any], slot: Firing, now: float, missed: bool) -> None:
    skipping, catching = schedule(missed="skip", **fields), schedule(**fields)
    found = plan.slot_of(skipping, slot)
    assert plan.is_missed(skipping, found, now) is missed
    assert plan.is_missed(catching, found, now) is False


def test_jitter_is_stable_and_spread() -> None:
    waits = [plan.jitter(schedule(name=f"s{number}", jitter=600)) for number in range(200)]
    assert waits == [plan.jitter(schedule(name=f"s{number}", jitter=600)) for number in range(200)]
    assert min(waits) < 60
    assert max(waits) > 540
    assert plan.jitter(schedule(name="nightly", jitter=600)) == 391
    assert plan.jitter(schedule(jitter=0)) == 0


def test_a_slot_is_a_request_id_by_the_clock_on_the_wall() -> None:
    longest = schedule(name="n" * 40, cron="30 2 * * *", time_zone="Europe/Berlin")
    found = set()
    for offset in ("+02:00", "+01:00"):
        at = datetime.fromisoformat(f"2027-10-31T02:30:00{offset}").timestamp()
        found.add(plan.request_of(longest, plan.slot_of(longest, Firing(at))))
    assert found == {f"{'n' * 40}-20271031T0230"}
    every = schedule(name="n" * 40, every=1)
    request = plan.request_of(every, plan.slot_of(every, Firing(NOW, NOW + 1)))
    assert request == f"{'n' * 40}-20261201T120000Z"
    assert REQUEST.match(request)
