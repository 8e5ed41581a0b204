"""The choice of the next job: the highest priority, then the oldest; and who waits gains priority.

A job's effective priority is its own and one step more for each ``ageing`` seconds that it has waited, without an
upper end: so the number of jobs that can ever overtake it is finite, and nothing starves.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """``since``: from when it waits, in Unix seconds."""

    since: float
    job: str


def effective(priority: int, since: float, now: float, ageing: float) -> int:
    """A priority with what waiting has added; ``ageing`` is the seconds for one step."""
    return priority + int(max(0.0, now - since) // ageing)


class Waiting:
    """Jobs that wait, by priority. Within one priority the order never changes, so that only the first of each need
    be compared."""

    def __init__(self) -> None:
        self._levels: dict[int, list[Place]] = {}
        self._known: dict[str, tuple[int, Place]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, job: str, priority: int, since: float) -> None:
        """Or change what is known of it."""
        found = (priority, Place(since, job))
        if self._known.get(job) != found:
            self.discard(job)
            self._known[job] = found
            insort(self._levels.setdefault(priority, []), found[1])

    def discard(self, job: str) -> None:
        """Take it out, if it is there."""
        found = self._known.pop(job, None)
        if found is not None:
            priority, place = found
            level = self._levels[priority]
            del level[bisect_left(level, place)]
            if not level:
                del self._levels[priority]

    def in_order(self, now: float, ageing: float) -> Iterator[str]:
        """The jobs, those to be tried first before others. To be used up, or dropped, before the next change."""
        ranked = (self._ranked(priority, now, ageing) for priority in self._levels)
        return (place.job for _, place in heapq.merge(*ranked))

    def _ranked(self, priority: int, now: float, ageing: float) -> Iterator[tuple[int, Place]]:
        return ((-effective(priority, place.since, now, ageing), place) for place in self._levels[priority])
