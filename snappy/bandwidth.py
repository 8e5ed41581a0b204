"""How many bytes a second may go to a repository and come from it, by the time of day.

The words are those of rclone's ``--bwlimit``: a rate (``512k``, ``10M``, ``off``; a bare number is KiB/s), two for
upload and download (``10M:1M``), or a timetable of them, ``08:00,512k 18:00,off``, each entry perhaps for one weekday,
``Sat-00:00,off``. An entry holds until the next. See https://rclone.org/docs/#bwlimit-bandwidth-spec.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
UNITS = {"b": 1, "": 1 << 10, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
RATE = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>[bkmg]?)\Z")
TIME = re.compile(r"(?:(?P<day>[a-z]{3})-)?(?P<hour>[01]?[0-9]|2[0-3]):(?P<minute>[0-5][0-9])\Z")
LEAST = 64 << 10
"""Bytes a second: at less one message takes longer than its sender waits for an answer."""
DAY_MINUTES = 24 * 60


class Rates(NamedTuple):
    """Bytes a second, 0 for as many as will go. ``upload`` is towards the repository."""

    upload: int
    download: int


class Entry(NamedTuple):
    """``minute`` of the week, from Monday 00:00, from which ``rates`` hold."""

    minute: int
    rates: Rates


@dataclass(frozen=True)
class Timetable:
    """``entries`` by time; without any there is no limit."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Timetable:
        """Raises ValueError with the word that is wrong."""
        words = text.lower().split()
        if len(words) == 1 and "," not in words[0]:
            return cls((Entry(0, _rates(words[0])),))
        return cls(tuple(sorted(entry for word in words for entry in _entries(word))))

    def at(self, moment: datetime) -> Rates:
        """What holds at a moment of the clock on the wall."""
        if not self.entries:
            return Rates(0, 0)
        minute = moment.weekday() * DAY_MINUTES + moment.hour * 60 + moment.minute
        return self.entries[bisect_right(self.entries, minute, key=lambda entry: entry.minute) - 1].rates

    def is_limit(self) -> bool:
        """Whether it ever limits anything."""
        return any(any(entry.rates) for entry in self.entries)


def _entries(word: str) -> list[Entry]:
    at, comma, rates = word.partition(",")
    found = TIME.match(at)
    if not comma or found is None or found["day"] not in (None, *WEEKDAYS):
        raise ValueError(f"{word!r} is no entry of a timetable; for example 08:00,512k or Sat-00:00,off")
    days = range(7) if found["day"] is None else [WEEKDAYS.index(found["day"])]
    minute = int(found["hour"]) * 60 + int(found["minute"])
    return [Entry(day * DAY_MINUTES + minute, _rates(rates)) for day in days]


def _rates(word: str) -> Rates:
    upload, colon, download = word.partition(":")
    return Rates(_rate(upload), _rate(download if colon else upload))


def _rate(word: str) -> int:
    if word == "off":
        return 0
    if (found := RATE.match(word)) is None:
        raise ValueError(f"{word!r} is no rate; for example 512k, 10M or off")
    rate = int(float(found["number"]) * UNITS[found["unit"]])
    if rate < LEAST:
        raise ValueError(f"{word!r} is less than {LEAST >> 10}k, the lowest rate")
    return rate
