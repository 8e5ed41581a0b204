"""The line of jobs that wait: who may go now, in which order, and who is called when there is room."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from snappy.jobs.calls import Calls
from snappy.jobs.limits import Limits
from snappy.jobs.messages import JobRecord
from snappy.jobs.rules import is_due
from snappy.jobs.store import JobStore, StoredJob


class Line:
    """``ageing``: the seconds of waiting for one step of priority; ``clock`` gives Unix seconds. ``rests`` says of a
    job that is due whether there is no use in it now."""

    def __init__(
        self,
        store: JobStore,
        calls: Calls,
        limits: Limits,
        ageing: float,
        clock: Callable[[], float] = time.time,
        rests: Callable[[JobRecord], bool] = lambda _: False,
    ) -> None:
        self._store = store
        self._calls = calls
        self._limits = limits
        self._ageing = ageing
        self._clock = clock
        self._rests = rests

    def first(self, source: str, besides: Collection[str]) -> StoredJob | None:
        """The job that a worker of that service should do next, as far as this core knows."""
        for stored in self._due(source):
            if stored.value.id not in besides and self._limits.have_room(stored.value):
                return stored
        return None

    async def call(self) -> None:
        """See to it that workers are called for what may run."""
        waiting = [stored.value for source in self._store.records.sources_waited_for() for stored in self._due(source)]
        await self._calls.call_again(self._limits.fitting(waiting))

    async def move_up(self, ended: JobRecord) -> None:
        """An attempt has ended: call for one that a limit kept waiting for that."""
        if not self._limits.apply_to(ended):
            return
        for source in self._store.records.sources_waited_for():
            for stored in self._due(source):
                record = stored.value
                if record.id != ended.id and self._limits.shared(ended, record) and self._limits.have_room(record):
                    await self._calls.call_once_more(record)
                    return

    def _due(self, source: str) -> Iterator[StoredJob]:
        now = self._clock()
        waiting = self._store.records.waiting(source, now, self._ageing)
        return (stored for stored in waiting if is_due(stored.value, now) and not self._rests(stored.value))
