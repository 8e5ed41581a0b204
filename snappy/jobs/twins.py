"""What becomes of a job whose twin is not over yet: a twin does the same, for the same submitter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from snappy.errors import Duplicate, Replaced
from snappy.jobs.identity import time_of
from snappy.jobs.messages import JobRecord
from snappy.jobs.rules import are_twins, twin_key
from snappy.jobs.states import FINAL
from snappy.jobs.stopping import Stopper
from snappy.jobs.store import JobStore

ABANDONED_SECONDS = 60.0
"""A job that was reserved so long ago, and never opened, never will be."""


class Twins:
    """``clock`` gives Unix seconds."""

    def __init__(self, store: JobStore, stopper: Stopper, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._stopper = stopper
        self._clock = clock

    async def refuse_second(self, record: JobRecord) -> None:
        """Of any number of twins that ask for ``skip`` at once, one passes. Raises Duplicate, which names the other.

        A job that is already kept passes: it is a repeat of the one that passed.
        """
        if record.command.get("duplicates") != "skip" or await self._store.records.fetch(record.id):
            return
        await self._store.records.sync()
        for twin in self._twins(record):
            raise _duplicate(twin.id)
        await self._reserve(record)

    async def _reserve(self, record: JobRecord) -> None:
        name, now = twin_key(record), self._clock()
        while (owner := await self._store.reserve_twin(name, record.id)) != record.id:
            other = await self._store.records.fetch(owner)
            active = other.value.state not in FINAL if other else now - time_of(owner) < ABANDONED_SECONDS
            if active:
                raise _duplicate(owner)
            await self._store.release_twin(name, owner)

    async def end_replaced(self, record: JobRecord) -> None:
        """With ``replace``, the newest alone goes on: the older ones are cancelled, in the submitter's name."""
        if record.command.get("duplicates") != "replace":
            return
        await self._store.records.sync()
        family = sorted([record, *self._twins(record)], key=_age)
        newest = max(place for place, job in enumerate(family) if job.command.get("duplicates") == "replace")
        for older in family[:newest]:
            reason = Replaced(f"job {family[newest].id} took its place")
            await self._stopper.stop_if_active(older.id, by=record.submitter, reason=reason)

    def _twins(self, record: JobRecord) -> Iterator[JobRecord]:
        """The others that are not over."""
        others = (stored.value for stored in self._store.records.unfinished() if stored.value.id != record.id)
        return (other for other in others if are_twins(record, other))


def _duplicate(twin: str) -> Duplicate:
    return Duplicate(f"job {twin} does the same and is not over")


def _age(record: JobRecord) -> tuple[float, str]:
    return record.created, record.id
