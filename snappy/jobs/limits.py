"""How many attempts may run at once: at one source service, at one target, with one key.

A claim is counted when its hold is written, and only then looks whether there was room: the holds bucket has one
order of all writes, so of claims by any number of cores never more pass than the limit says. Two that meet may both
give way; they are called again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from snappy import config
from snappy.bus.grants import CLOCK_MARGIN
from snappy.jobs.messages import Hold, JobRecord
from snappy.jobs.mirror import Kept
from snappy.jobs.places import place_of
from snappy.jobs.states import FINAL
from snappy.jobs.store import JobStore

Group = tuple[str, str]
"""What is limited: its sort, and its name. A key is a source service's own."""


class Limits:
    """``clock`` gives Unix seconds."""

    def __init__(self, settings: config.Limits, store: JobStore, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock

    def apply_to(self, record: JobRecord) -> bool:
        """Whether any limit can keep this job waiting."""
        return any(limit for _, limit in self._limited(record))

    def have_room(self, record: JobRecord) -> bool:
        """Whether one more attempt may run, as far as this core knows."""
        return not self.apply_to(record) or self._fits(record, self._running(record.id))

    async def have_room_after(self, record: JobRecord, held: Kept[Hold]) -> bool:
        """The same once its own hold is written, whatever other cores did meanwhile. Raises BusUnavailable."""
        await self._store.holds.sync_to(held.revision)
        return self._fits(record, self._running(record.id))

    def fitting(self, waiting: Iterable[JobRecord]) -> Iterator[JobRecord]:
        """Those that could all run now, beside what runs; the first ones are preferred."""
        running: Counter[Group] | None = None
        for record in waiting:
            if self.apply_to(record):
                running = self._running("") if running is None else running
                if not self._fits(record, running):
                    continue
                running.update(group for group, _ in self._limited(record))
            yield record

    def shared(self, one: JobRecord, other: JobRecord) -> bool:
        """Whether the end of one makes room for the other."""
        groups = {group for group, limit in self._limited(one) if limit}
        return any(group in groups for group, _ in self._limited(other))

    def _fits(self, record: JobRecord, running: Counter[Group]) -> bool:
        return all(not limit or running[group] < limit for group, limit in self._limited(record))

    def _limited(self, record: JobRecord) -> Iterator[tuple[Group, int]]:
        """Zero: no limit."""
        source, place, limits = record.source, place_of(record), self._settings
        target, key = place.target, place.key or ""
        yield ("source", source), limits.sources.get(source, limits.source)
        yield ("target", target), limits.targets.get(target, limits.target)
        yield ("key", f"{source}/{key}"), limits.keys.get(key, limits.key)

    def _running(self, besides: str) -> Counter[Group]:
        """How many attempts each group has, without those at the job ``besides``."""
        counted: Counter[Group] = Counter()
        for job, kept in self._store.holds.kept.items():
            if job != besides and self._is_running(job, kept.value):
                hold = kept.value
                counted.update(
                    [("source", hold.service), ("target", hold.target), ("key", f"{hold.service}/{hold.key}")]
                )
        return counted

    def _is_running(self, job: str, hold: Hold) -> bool:
        """A hold whose attempt the record does not show yet counts until it runs out: its core may have died."""
        if hold.over:
            return False
        stored = self._store.records.get(job)
        if stored is not None and stored.value.state in FINAL:
            return False
        if stored is not None and len(stored.value.attempts) >= hold.attempt:
            return stored.value.attempts[hold.attempt - 1].ended is None
        return self._clock() < hold.deadline + CLOCK_MARGIN
