"""Lengths of time by the calendar, as restic writes and counts them: ``1y5m7d2h``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple, Self

from snappy.errors import UsageError

_PART = re.compile(r"([0-9]{1,6})([ymdh])")
_WHOLE = re.compile(rf"\s*({_PART.pattern})*\s*\Z")


class Span(NamedTuple):
    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """In any order; of two numbers with one unit the later counts. Raises UsageError."""
        if not _WHOLE.match(text):
            raise UsageError(f"{text!r} is no length of time", hint="for example 1y5m7d2h, 14d or 12h")
        given = {unit: int(number) for number, unit in _PART.findall(text)}
        return cls(*(given.get(unit, 0) for unit in "ymdh"))

    def __str__(self) -> str:
        return "".join(f"{number}{unit}" for number, unit in zip(self, "ymdh", strict=True) if number)

    def before(self, moment: datetime, local: tzinfo | None = None) -> datetime | None:
        """The time so long before ``moment``; None if the calendar ends before it. A month before March 31 is March 3,
        three days after February ended. Days are those of ``moment``'s time zone: ``local``, with its summer time, if
        it was written there (None: this machine's), else one that never changes."""
        try:
            return _instant(self._date_before(moment.replace(tzinfo=None)), moment, local) - timedelta(hours=self.hours)
        except (ValueError, OverflowError):
            return None

    def _date_before(self, wall: datetime) -> datetime:
        months = 12 * (wall.year - self.years) + wall.month - 1 - self.months
        first = wall.replace(year=months // 12, month=months % 12 + 1, day=1)
        return first + timedelta(days=wall.day - 1 - self.days)


def _instant(wall: datetime, moment: datetime, local: tzinfo | None) -> datetime:
    """When a clock in the time zone of ``moment`` shows ``wall``; where the clock is put forward or back, the one of
    the two that Go takes."""
    offset = moment.utcoffset()
    assert offset is not None
    as_utc = wall.replace(tzinfo=UTC)
    if offset and offset == _offset(moment, local):
        offset = _offset(as_utc - _offset(as_utc, local), local)
    return as_utc - offset


def _offset(moment: datetime, local: tzinfo | None) -> timedelta:
    offset = moment.astimezone(local).utcoffset()
    assert offset is not None
    return offset
