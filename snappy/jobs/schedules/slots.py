"""Cron patterns, and the points in time ("slots") that they mean in a time zone.

JetStream decides when a schedule fires; this says *which* slot a firing stands for, so that a slot runs once. The
fields are those of crontab(5): minute, hour, day of month, month, day of week (0 or 7 is Sunday).

A slot in an hour that a clock change repeats is the first of the two. One in an hour that a clock change skips moves
to the first moment after the change; several that are skipped together are one there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from snappy.errors import InvalidCommand

SUNDAY = 7
MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
MONTHS |= {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
WEEKDAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
DAYS_LOOKED_AT = 5 * 366
"""The server gives up after five years, too."""
DAY = timedelta(days=1)
LONGEST_CHANGE = timedelta(hours=25)
"""No clock was ever put forward or back by more: whole days were skipped in the Pacific."""
RANGE = re.compile(r"(?P<start>\*|[a-z0-9]+)(?:-(?P<end>[a-z0-9]+))?(?:/(?P<step>[0-9]+))?\Z")


class Slot(NamedTuple):
    """``at``: Unix seconds. ``local``: the wall clock then. ``moved``: a clock change skips the time of the pattern."""

    at: float
    local: datetime
    moved: bool


class Bounds(NamedTuple):
    word: str
    low: int
    high: int
    names: dict[str, int]


FIELDS = (
    Bounds("minute", 0, 59, {}),
    Bounds("hour", 0, 23, {}),
    Bounds("day of month", 1, 31, {}),
    Bounds("month", 1, 12, MONTHS),
    Bounds("day of week", 0, SUNDAY, WEEKDAYS),
)


@dataclass(frozen=True)
class Cron:
    """A parsed pattern. ``either_day``: both kinds of day are restricted, and one that matches suffices."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Raises InvalidCommand with the field at fault, or if no day of the next years matches."""
        words = text.lower().split()
        if len(words) != len(FIELDS):
            hint = "minute hour day-of-month month day-of-week, for example '0 2 * * *'"
            raise InvalidCommand(f"a cron pattern has five fields, and {text!r} has {len(words)}", hint=hint)
        minutes, hours, days, months, weekdays = (
            _values(word, bounds) for word, bounds in zip(words, FIELDS, strict=True)
        )
        weekdays = frozenset(day % SUNDAY for day in weekdays)
        either = not any(_is_star(word) for word in (words[2], words[4]))
        return cls(text, tuple(sorted(minutes)), tuple(sorted(hours)), days, months, weekdays, either)

    def six_fields(self) -> str:
        """As nats-server takes it: with seconds, Sunday as 0, and an asterisk where every day is meant."""
        minute, hour, day, month, weekday = self.text.lower().split()
        if not _is_star(weekday):
            weekday = ",".join(map(str, sorted(self.weekdays)))
        return f"0 {minute} {hour} {day} {month} {weekday}"

    def is_on(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % SUNDAY in self.weekdays
        return day.month in self.months and ((in_month or in_week) if self.either_day else (in_month and in_week))

    def of_day(self, day: date) -> Iterator[datetime]:
        """The pattern's times on one day, by the clock on the wall."""
        if self.is_on(day):
            for hour in self.hours:
                for minute in self.minutes:
                    yield datetime.combine(day, time(hour, minute))

    def next_slot(self, after: float, zone: ZoneInfo) -> Slot | None:
        """The first slot later than ``after`` (Unix seconds); None if there is none in five years."""
        start = datetime.fromtimestamp(after, zone).replace(tzinfo=None) - LONGEST_CHANGE
        for offset in range(DAYS_LOOKED_AT):
            for local in self.of_day(start.date() + offset * DAY):
                if local > start and (slot := resolve(local, zone)).at > after:
                    return self._settled(slot)
        return None

    def last_slot(self, until: float, zone: ZoneInfo) -> Slot | None:
        """The latest slot that is not later than ``until`` (Unix seconds)."""
        start = datetime.fromtimestamp(until, zone).replace(tzinfo=None) + LONGEST_CHANGE
        for offset in range(DAYS_LOOKED_AT):
            for local in reversed([*self.of_day(start.date() - offset * DAY)]):
                if local < start and (slot := resolve(local, zone)).at <= until:
                    return self._settled(slot)
        return None

    def _settled(self, slot: Slot) -> Slot:
        """A skipped slot that moves to a moment at which the pattern has one anyway is that one."""
        return slot._replace(moved=slot.moved and slot.local not in self.of_day(slot.local.date()))


def resolve(local: datetime, zone: ZoneInfo) -> Slot:
    """When the wall clock of ``zone`` shows ``local``: the first time if twice, the moment after the gap if never."""
    at = local.replace(tzinfo=zone).timestamp()
    if datetime.fromtimestamp(at, zone).replace(tzinfo=None) == local:
        return Slot(at, local, moved=False)
    change = _change_between(local.replace(tzinfo=zone, fold=1).timestamp(), at, zone)
    return Slot(change, datetime.fromtimestamp(change, zone).replace(tzinfo=None), moved=True)


def find_zone(name: str) -> ZoneInfo:
    """Raises InvalidCommand for a name that this machine does not know."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        hint = "a name of the IANA data base, for example Europe/Berlin"
        raise InvalidCommand(f"there is no time zone {name[:64]!r}", hint=hint) from error


def _change_between(before: float, after: float, zone: ZoneInfo) -> float:
    """The first second after ``before`` at which the offset of ``after`` holds."""
    low, high = int(before), int(after)
    goal = _offset(high, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone) == goal else (middle, high)
    return float(high)


def _offset(at: int, zone: ZoneInfo) -> timedelta | None:
    return datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset()


def _is_star(word: str) -> bool:
    """Whether a day's field leaves the choice to the other one; a step is a restriction, as the server has it."""
    return any(part in ("*", "*/1") for part in word.split(","))


def _values(word: str, bounds: Bounds) -> frozenset[int]:
    return frozenset(value for part in word.split(",") for value in _range(part, bounds))


def _range(part: str, bounds: Bounds) -> range:
    """``*``, ``a``, ``a-b``, each perhaps with ``/step``; ``a/step`` goes on to the end."""
    if (found := RANGE.match(part)) is None:
        raise _wrong(part, bounds)
    step, last = int(found["step"] or 1), SUNDAY - 1 if bounds.high == SUNDAY else bounds.high
    if found["start"] == "*":
        low, high = bounds.low, last
    else:
        low = _number(found["start"], part, bounds)
        high = _number(found["end"], part, bounds) if found["end"] else max(low, last) if found["step"] else low
    if low > high or step < 1 or (found["start"] == "*" and found["end"]):
        raise _wrong(part, bounds)
    return range(low, high + 1, step)


def _number(word: str, part: str, bounds: Bounds) -> int:
    number = bounds.names.get(word, int(word) if word.isdigit() else -1)
    if not bounds.low <= number <= bounds.high:
        raise _wrong(part, bounds)
    return number


def _wrong(part: str, bounds: Bounds) -> InvalidCommand:
    names = f", or {next(iter(bounds.names))} and so on" if bounds.names else ""
    return InvalidCommand(
        f"{part[:32]!r} is no {bounds.word} of a cron pattern", hint=f"{bounds.low} to {bounds.high}{names}"
    )
