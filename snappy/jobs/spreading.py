"""Brings a backup that one target has to the others that it names, by copies that are jobs of their own.

What is to be done is read off the records, whatever happened before: :meth:`Spreading.settle` may be called at any
time, by any core, and goes on where another one died.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from snappy import config
from snappy.errors import WrongSequence
from snappy.jobs import places
from snappy.jobs.attempts import Attempts
from snappy.jobs.calls import Calls
from snappy.jobs.identity import follower_id
from snappy.jobs.ledger import Ledger
from snappy.jobs.messages import ErrorInfo, JobRecord, Result
from snappy.jobs.place_words import UNSETTLED, StoredAt
from snappy.jobs.rules import attempt_limit, is_due, with_rules
from snappy.jobs.states import Event, State
from snappy.jobs.stopping import Stopper
from snappy.jobs.store import JobStore, StoredJob


class Spreading:
    """``clock`` gives Unix seconds."""

    def __init__(
        self,
        store: JobStore,
        ledger: Ledger,
        attempts: Attempts,
        calls: Calls,
        stopper: Stopper,
        settings: config.Core,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._attempts = attempts
        self._calls = calls
        self._stopper = stopper
        self._settings = settings
        self._clock = clock

    async def begin(self, stored: StoredJob, result: Result) -> None:
        """The first target has the backup. Raises WrongSequence when the record has changed: read again."""
        record = stored.value
        jobs = [follower_id(record.id, number) for number in range(len(places.places_of(record.command)))]
        result = places.stored_first(record, result, jobs)
        await self._attempts.finished(stored, Event.STORED, result=result, error=None)
        await self.settle(record.id)

    async def settle_all(self) -> None:
        """See to it that each backup that has to be copied is, and knows how far that is."""
        for stored in self._store.records.unsettled():
            await self.settle(stored.value.id)

    async def settle(self, job: str) -> None:
        """The same for one, if it is known; what another core changed meanwhile waits for the next time."""
        stored = self._store.records.get(job)
        if stored is None or not places.is_unsettled(stored.value) or stored.value.result is None:
            return
        try:
            now = [await self._look(stored.value, one) for one in stored.value.result.stored]
            if now != stored.value.result.stored or stored.value.state is State.COPYING:
                await self._note(stored, stored.value.result, now)
        except WrongSequence:
            await self._store.records.fetch(job)

    def waits_for_target(self, record: JobRecord) -> bool:
        """Whether a copy that is behind would not find its target's service: then it is not even tried."""
        if not places.is_behind(record, self._settings.max_attempts):
            return False
        return not self._store.roster.is_alive("target", places.place_of(record).target, self._clock())

    async def _look(self, record: JobRecord, one: StoredAt) -> StoredAt:
        if one.state not in UNSETTLED:
            return one
        copy = self._store.records.get(one.job) or await self._store.records.fetch(one.job)
        if record.state is State.CANCELLED:
            return await self._give_up(record, one, copy)
        if copy is None:
            copy = await self._follow(record, one)
        return places.seen(one, copy.value, attempt_limit(record, self._settings.max_attempts))

    async def _give_up(self, record: JobRecord, one: StoredAt, copy: StoredJob | None) -> StoredAt:
        """Who cancels a backup wants no copies of it."""
        if copy is not None:
            await self._stopper.stop_if_active(one.job, by=record.cancel)
        return msgspec.structs.replace(one, state="failed", reason=f"job {record.id} was cancelled")

    async def _follow(self, record: JobRecord, one: StoredAt) -> StoredJob:
        """Open the job that copies; in the line it stands where the backup stood."""
        command = places.copy_of(record, one)
        copy = JobRecord(
            id=one.job,
            kind="copy",
            submitter=record.submitter,
            state=State.QUEUED,
            command=msgspec.to_builtins(command),
            source=record.source,
            created=self._clock(),
            follows=record.id,
        )
        copy = msgspec.structs.replace(with_rules(copy, command), since=record.since)
        stored = await self._ledger.open(copy, Event.ACCEPTED)
        if is_due(stored.value, self._clock()):
            await self._calls.call(stored.value)
        return stored

    async def _note(self, stored: StoredJob, result: Result, now: list[StoredAt]) -> None:
        record, quorum = stored.value, places.quorum_of(stored.value.command)
        changes = {"result": msgspec.structs.replace(result, stored=now)}
        if record.state is State.COPYING and places.have_it(now) >= quorum:
            await self._ledger.transition(stored, Event.SUCCEEDED, **changes)
        elif record.state is State.COPYING and not places.may_reach(now, quorum):
            error: ErrorInfo = places.missed(record, now)
            await self._ledger.transition(stored, Event.FAILED, **changes, error=error)
        elif record.state is State.COPYING and places.have_it(now) > places.have_it(result.stored):
            await self._ledger.transition(stored, Event.STORED, **changes)
        elif now != result.stored:
            await self._ledger.note(stored, **changes)
