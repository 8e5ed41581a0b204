"""Cron patterns, and which moments they mean around the changes of a clock, in two zones and both ways."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.errors import InvalidCommand
from snappy.jobs.schedules.slots import Cron, Slot, find_zone, resolve

BERLIN, NEW_YORK, SANTIAGO = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("America/Santiago")


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def slots(pattern: str, zone: ZoneInfo, after: str, count: int) -> list[str]:
    """The next slots, each with the offset that its clock has then, and ``moved`` where a change moved it."""
    cron, found, at = Cron.parse(pattern), [], unix(after)
    for _ in range(count):
        slot = cron.next_slot(at, zone)
        assert slot is not None
        at = slot.at
        text = datetime.fromtimestamp(at, zone).isoformat()
        found.append(f"{text} moved" if slot.moved else text)
    return found


# ---- patterns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "six"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        ("*/15 8-18 * * MON-FRI", "0 */15 8-18 * * 1,2,3,4,5"),
        ("5 4 * * 7", "0 5 4 * * 0"),
        ("0 0 1 JAN,jul *", "0 0 0 1 jan,jul *"),
        ("0 3 1-7 * 5-7", "0 0 3 1-7 * 0,5,6"),
        ("10/20 0 * * 1/2", "0 10/20 0 * * 1,3,5"),
    ],
)
def test_five_fields_become_six(pattern: str, six: str) -> None:
    assert Cron.parse(pattern).six_fields() == six


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("", "five fields"),
        ("0 0 2 * * *", "has 6"),
        ("@daily", "five fields"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of month"),
        ("* * * 13 *", "month"),
        ("* * * foo *", "month"),
        ("* * * * 8", "day of week"),
        ("5-1 * * * *", "minute"),
        ("*/0 * * * *", "minute"),
        ("*-5 * * * *", "minute"),
        ("1,,2 * * * *", "minute"),
        ("-1 * * * *", "minute"),
        ("1-2-3 * * * *", "minute"),
        ("² * * * *", "minute"),
    ],
)
def test_a_bad_pattern_names_its_fault(pattern: str, told: str) -> None:
    with pytest.raises(InvalidCommand, match=told):
        Cron.parse(pattern)


@given(st.text(alphabet="0123456789*/,-? abcjanmosu", max_size=30))
def test_a_pattern_parses_or_is_refused(text: str) -> None:
    try:
        cron = Cron.parse(text)
    except InvalidCommand:
        return
    assert len(cron.six_fields().split()) == 6


def test_both_kinds_of_day_are_alternatives_and_an_asterisk_is_none() -> None:
    thirteenth_or_friday = slots("0 0 13 * 5", ZoneInfo("UTC"), "2026-11-01T00:00:00+00:00", 3)
    assert [text[:10] for text in thirteenth_or_friday] == ["2026-11-06", "2026-11-13", "2026-11-20"]
    only_friday = slots("0 0 * * 5", ZoneInfo("UTC"), "2026-11-07T00:00:00+00:00", 2)
    assert [text[:10] for text in only_friday] == ["2026-11-13", "2026-11-20"]


def test_a_leap_day_is_found_and_the_31st_of_february_is_not() -> None:
    assert slots("0 0 29 2 *", ZoneInfo("UTC"), "2026-11-01T00:00:00+00:00", 1) == ["2028-02-29T00:00:00+00:00"]
    assert Cron.parse("0 0 31 2 *").next_slot(0.0, ZoneInfo("UTC")) is None
    assert Cron.parse("0 0 31 2 *").last_slot(0.0, ZoneInfo("UTC")) is None


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "/etc/passwd", "Europe/\0"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidCommand, match="no time zone"):
        find_zone(name)


# ---- clocks that change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "pattern", "after", "expected"),
    [
        (
            BERLIN,
            "30 2 * * *",
            "2027-03-27T00:00:00+01:00",
            ["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00 moved", "2027-03-29T02:30:00+02:00"],
        ),
        (
            NEW_YORK,
            "15 2 * * *",
            "2027-03-13T00:00:00-05:00",
            ["2027-03-13T02:15:00-05:00", "2027-03-14T03:00:00-04:00 moved", "2027-03-15T02:15:00-04:00"],
        ),
        (
            SANTIAGO,  # midnight itself is skipped there
            "0 0 * * 0",
            "2026-09-01T00:00:00-04:00",
            ["2026-09-06T01:00:00-03:00 moved", "2026-09-13T00:00:00-03:00"],
        ),
    ],
)
def test_a_time_that_is_skipped_runs_at_the_next_that_exists(
    zone: ZoneInfo, pattern: str, after: str, expected: list[str]
) -> None:
    assert slots(pattern, zone, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("zone", "pattern", "after", "expected"),
    [
        (
            BERLIN,
            "30 2 * * *",
            "2027-10-30T12:00:00+02:00",
            ["2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"],
        ),
        (
            NEW_YORK,
            "30 1 * * *",
            "2027-11-06T12:00:00-04:00",
            ["2027-11-07T01:30:00-04:00", "2027-11-08T01:30:00-05:00"],
        ),
    ],
)
def test_a_time_that_comes_twice_runs_once(zone: ZoneInfo, pattern: str, after: str, expected: list[str]) -> None:
    assert slots(pattern, zone, after, len(expected)) == expected


def test_several_skipped_times_are_one_and_that_of_the_pattern_if_it_has_one_there() -> None:
    quarters = slots("*/15 * * * *", BERLIN, "2027-03-28T01:40:00+01:00", 3)
    assert quarters == ["2027-03-28T01:45:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-28T03:15:00+02:00"]
    two = slots("10,50 2 * * *", BERLIN, "2027-03-28T00:00:00+01:00", 2)
    assert two == ["2027-03-28T03:00:00+02:00 moved", "2027-03-29T02:10:00+02:00"]


@pytest.mark.parametrize("offset", ["+02:00", "+01:00"])
def test_a_firing_in_either_of_two_like_hours_stands_for_the_first(offset: str) -> None:
    slot = Cron.parse("30 2 * * *").last_slot(unix(f"2027-10-31T02:30:00{offset}"), BERLIN)
    assert slot == Slot(unix("2027-10-31T02:30:00+02:00"), datetime(2027, 10, 31, 2, 30), moved=False)


def test_the_latest_slot_of_a_firing_that_came_late() -> None:
    slot = Cron.parse("0 2 * * *").last_slot(unix("2027-05-05T09:00:00+02:00"), BERLIN)
    assert slot is not None
    assert slot.at == unix("2027-05-05T02:00:00+02:00")
    moved = Cron.parse("30 2 * * *").last_slot(unix("2027-03-28T09:00:00+02:00"), BERLIN)
    assert moved == Slot(unix("2027-03-28T03:00:00+02:00"), datetime(2027, 3, 28, 3, 0), moved=True)


@given(st.integers(1_700_000_000, 1_900_000_000), st.sampled_from(["30 2 * * *", "0 0 * * 0", "*/20 1-3 * * *"]))
def test_next_and_last_agree(at: int, pattern: str) -> None:
    cron = Cron.parse(pattern)
    for zone in (BERLIN, NEW_YORK, SANTIAGO):
        upcoming = cron.next_slot(at, zone)
        assert upcoming is not None
        assert upcoming.at > at
        assert cron.last_slot(upcoming.at, zone) == upcoming
        before = cron.last_slot(upcoming.at - 1, zone)
        assert before is not None
        assert before.at <= at


def test_a_time_that_exists_is_itself() -> None:
    assert resolve(datetime(2027, 6, 1, 12, 0), BERLIN) == Slot(
        datetime(2027, 6, 1, 10, 0, tzinfo=UTC).timestamp(), datetime(2027, 6, 1, 12, 0), moved=False
    )
