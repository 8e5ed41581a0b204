"""Which promises are made of which source: those of the core's configuration, and those of schedules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from snappy import config, durations
from snappy.jobs.protection import BACKUP, DRILL, Promise, Protections, is_meant, last_heard, of_backup, of_each
from snappy.jobs.protection_words import Protection, Upcoming
from snappy.jobs.schedule_words import Schedule

ANY = "*"


class _Age(NamedTuple):
    """Seconds, and since when they are promised."""

    most: int
    since: float = 0.0


class Promises:
    def __init__(self, configured: Sequence[config.Promise], schedules: Iterable[Schedule]) -> None:
        self._configured = configured
        self._backups: defaultdict[str, list[Schedule]] = defaultdict(list)
        self._drills: defaultdict[str, list[Schedule]] = defaultdict(list)
        self._expected: dict[str, Protection] = {}
        for schedule in schedules:
            self._add(schedule)

    def _add(self, schedule: Schedule) -> None:
        if schedule.kind == BACKUP:
            for source in of_each(schedule.command, 0.0):
                self._backups[source.id].append(schedule)
                self._expected[source.id] = source
        elif schedule.kind == DRILL:
            self._drills[schedule.command["target"]].append(schedule)

    def expected(self, known: Collection[Protection]) -> Protections:
        """What ought to be backed up, whether it ever was or not, by id. A promise that names one of
        which something is ``known`` means that one."""
        known = [source for source in known if last_heard(source)]
        named = (each for each in self._configured if _is_named(each))
        missing = (_expect(each) for each in named if not any(self._names(each, source) for source in known))
        return self._expected | {source.id: source for source in missing}

    def of(self, source: Protection) -> Promise:
        """The strictest, of backups and of drills."""
        named = next((each for each in self._configured if self._names(each, source)), config.Promise())
        backups = [_Age(_seconds(named.max_age)), *map(_age, self._backups[source.id])]
        drills = [_Age(_seconds(named.max_drill_age)), *map(_age, self._drills_of(source))]
        strictest = _strictest(drills)
        return Promise(_strictest(backups).most, strictest.most, strictest.since)

    def upcoming(self, source: Protection) -> Upcoming | None:
        """The next backup, or drill, that a schedule leads to."""
        schedules = [*self._backups[source.id], *self._drills_of(source)]
        due = [schedule for schedule in schedules if schedule.next_slot]
        first = min(due, key=lambda schedule: schedule.next_slot, default=None)
        return Upcoming(schedule=first.name, kind=first.kind, at=first.next_slot) if first else None

    def _drills_of(self, source: Protection) -> list[Schedule]:
        return [schedule for schedule in self._drills[source.target] if is_meant(schedule.command, source)]

    def _names(self, promise: config.Promise, source: Protection) -> bool:
        if _is_named(promise) and _expect(promise).id == source.id:
            return True
        pairs = ((promise.source, source.source), (promise.target, source.target), (promise.host, source.host))
        same = all(wanted in (ANY, found) for wanted, found in pairs)
        return same and (not promise.paths or sorted(promise.paths) == source.paths)


def _is_named(promise: config.Promise) -> bool:
    return bool(promise.paths) and ANY not in (promise.source, promise.target)


def _expect(promise: config.Promise) -> Protection:
    host = None if promise.host == ANY else promise.host
    options = {"paths": promise.paths}
    return of_backup({"source": promise.source, "target": promise.target, "host": host, "options": options}, 0.0)


def _seconds(age: str) -> int:
    return durations.seconds(age) if age else 0


def _age(schedule: Schedule) -> _Age:
    return _Age(schedule.max_age, schedule.created)


def _strictest(ages: Iterable[_Age]) -> _Age:
    return min((age for age in ages if age.most), default=_Age(0))
