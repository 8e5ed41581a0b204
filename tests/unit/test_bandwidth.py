from __future__ import annotations

from datetime import datetime

import pytest

from snappy.bandwidth import Rates, Timetable

KIB, MIB = 1 << 10, 1 << 20
MONDAY = datetime(2026, 11, 23)


def at(text: str, hour: int, minute: int = 0, day: int = 23) -> Rates:
    return Timetable.parse(text).at(datetime(2026, 11, day, hour, minute))


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("512k", (512 * KIB, 512 * KIB)),
        ("512", (512 * KIB, 512 * KIB)),
        ("1.5M", (3 * MIB // 2, 3 * MIB // 2)),
        ("100000B", (100_000, 100_000)),
        ("1G:off", (1 << 30, 0)),
        ("off:128k", (0, 128 * KIB)),
        ("off", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_a_rate(text: str, rates: tuple[int, int]) -> None:
    assert at(text, 12) == rates


def test_an_entry_holds_until_the_next_and_over_midnight() -> None:
    text = "08:00,512k 12:30,2M:1M 18:00,off"
    assert at(text, 7, 59) == at(text, 18) == at(text, 0) == (0, 0)
    assert at(text, 8) == at(text, 12, 29) == (512 * KIB, 512 * KIB)
    assert at(text, 12, 30) == at(text, 17, 59) == (2 * MIB, MIB)


def test_an_entry_may_be_for_one_weekday() -> None:
    text = "Mon-08:00,1M Fri-18:00,off"
    assert at(text, 8, day=23) == at(text, 3, day=25) == at(text, 17, 59, day=27) == (MIB, MIB)
    assert at(text, 18, day=27) == at(text, 12, day=29) == at(text, 7, 59, day=23) == (0, 0)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("fast", "'fast' is no rate"),
        ("1M:", "'' is no rate"),
        ("10k", "'10k' is less than 64k"),
        ("0", "less than 64k"),
        ("1M 2M", "'1m' is no entry"),
        ("24:00,1M", "no entry"),
        ("8:60,1M", "no entry"),
        ("xyz-08:00,1M", "no entry"),
        ("08:00,", "'' is no rate"),
        ("08:00,1M:2M:3M", "is no rate"),
    ],
)
def test_what_is_no_timetable_is_named(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Timetable.parse(text)


def test_what_never_limits_is_known() -> None:
    assert not any(Timetable.parse(text).is_limit() for text in ("", "off", "08:00,off 09:00,off:off"))
    assert all(Timetable.parse(text).is_limit() for text in ("1M", "off:1M", "08:00,off 09:00,1M"))
