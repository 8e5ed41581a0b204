"""Lengths of time by the calendar. That they are restic's is shown in ``tests/interop/test_restic_forget.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from snappy.errors import UsageError
from snappy.repository.spans import Span

BERLIN = ZoneInfo("Europe/Berlin")
SUMMER = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("text", "span", "written"),
    [
        ("1y5m7d2h", Span(1, 5, 7, 2), "1y5m7d2h"),
        (" 2h1d ", Span(0, 0, 1, 2), "1d2h"),
        ("3d4d", Span(0, 0, 4, 0), "4d"),
        ("0y", Span(), ""),
        ("", Span(), ""),
    ],
)
def test_as_it_is_written(text: str, span: Span, written: str) -> None:
    assert (Span.parse(text), str(span)) == (span, written)


@pytest.mark.parametrize("text", ["5", "d", "-5d", "5w", "1 d", "5d\n6", "1.5d", "٣d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="is no length of time"):
        Span.parse(text)


@pytest.mark.parametrize(
    ("span", "moment", "before"),
    [
        ("1m", datetime(2026, 3, 31, 12, tzinfo=UTC), datetime(2026, 3, 3, 12, tzinfo=UTC)),
        ("1y", datetime(2024, 2, 29, tzinfo=UTC), datetime(2023, 3, 1, tzinfo=UTC)),
        ("13m1d", datetime(2026, 1, 1, tzinfo=UTC), datetime(2024, 11, 30, tzinfo=UTC)),
        ("1d1h", datetime(2026, 3, 30, 12, tzinfo=SUMMER), datetime(2026, 3, 29, 11, tzinfo=SUMMER)),
        ("2d", datetime(2026, 3, 30, 12, tzinfo=SUMMER), datetime(2026, 3, 28, 12, tzinfo=BERLIN)),
        ("2d", datetime(2026, 3, 30, 12, tzinfo=timezone(timedelta(hours=3))), datetime(2026, 3, 28, 9, tzinfo=UTC)),
        ("1d", datetime(2026, 3, 30, 2, 30, tzinfo=SUMMER), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    ],
)
def test_counted_back(span: str, moment: datetime, before: datetime) -> None:
    assert Span.parse(span).before(moment, BERLIN) == before


@pytest.mark.parametrize("span", ["3000y", "999999d", "999999m", "1999y999999h"])
def test_the_calendar_ends(span: str) -> None:
    assert Span.parse(span).before(datetime(2026, 1, 1, tzinfo=UTC)) is None
