"""Where schedules are kept: the jobs bucket, one key a schedule, written by compare-and-set. Nothing is cached, so
that every core sees a schedule as it is."""

from __future__ import annotations

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.jobs.bucket import Bucket, Entry
from snappy.jobs.kinds import read
from snappy.jobs.mirror import Kept
from snappy.jobs.schedule_words import Schedule

_log = log.get(__name__)

START = "schedule."

StoredSchedule = Kept[Schedule]


class ScheduleBook:
    """Methods raise BusUnavailable when the bucket does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bucket = Bucket(bus, bus.subjects.jobs_bucket)

    async def get(self, name: str) -> StoredSchedule | None:
        entry = await self._bucket.get(START + name)
        return _read(entry) if entry else None

    async def all(self) -> list[StoredSchedule]:
        """By name."""
        entries = [entry async for entry in self._bucket.changes(0, f"{START}*") if entry.value]
        found = [kept for kept in map(_read, entries) if kept]
        return sorted(found, key=lambda kept: kept.value.name)

    async def write(self, schedule: Schedule, revision: int) -> StoredSchedule:
        """Replace what was written as ``revision`` (0: there is none). Raises WrongSequence if it has changed."""
        key, value = START + schedule.name, msgspec.json.encode(schedule)
        return Kept(schedule, await self._bucket.update(key, value, revision))

    async def remove(self, kept: StoredSchedule) -> bool:
        """Whether it was still as it is known here, and is gone now."""
        return await self._bucket.remove(START + kept.value.name, kept.revision)


def _read(entry: Entry) -> StoredSchedule | None:
    """None for what a far newer core wrote: it must not stop all others."""
    try:
        return Kept(read(entry.value, Schedule), entry.revision)
    except msgspec.DecodeError as error:
        _log.error("a schedule cannot be read", key=entry.key, error=str(error))
        return None
