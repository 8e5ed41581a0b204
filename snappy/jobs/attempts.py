"""How an attempt ends, and what follows: the end of the job, or another attempt after a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from snappy import config
from snappy.bus import jitter
from snappy.bus.grants import CLOCK_MARGIN
from snappy.bus.subjects import WorkerSubject
from snappy.errors import SnappyError
from snappy.jobs import places
from snappy.jobs.ledger import Ledger
from snappy.jobs.messages import Attempt, ErrorInfo, JobRecord
from snappy.jobs.rules import attempt_limit, is_lost, is_stopping
from snappy.jobs.states import Event, State
from snappy.jobs.store import JobStore, StoredJob

FIRST_BACKOFF = 2.0
LONGEST_BACKOFF = 300.0
CATCH_UP_ATTEMPTS = 100
"""Of a copy that follows a backup to another of its targets: it is wanted there also after the backup has ended."""
LONGEST_CATCH_UP_BACKOFF = 900.0


class Attempts:
    """``clock`` gives Unix seconds, ``jitter`` a factor between 0.5 and 1 for each wait."""

    def __init__(
        self,
        store: JobStore,
        ledger: Ledger,
        settings: config.Core,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: jitter.between(0.5, 1.0),
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._jitter = jitter

    def is_current(self, record: JobRecord, worker: WorkerSubject, number: int) -> bool:
        """Whether attempt ``number`` goes on and is that worker's."""
        if record.state is not State.RUNNING:
            return False
        attempt = record.attempts[-1]
        return (attempt.number, attempt.service, attempt.replica) == (number, worker.service, worker.replica)

    async def finished(self, stored: StoredJob, event: Event, **changes: Any) -> StoredJob:
        """The attempt was the last one. Raises WrongSequence when the record has changed: read again."""
        job = stored.value.id
        error: ErrorInfo | None = changes.get("error")
        finished = await self._ledger.transition(stored, event, **changes, attempts=self._ended(stored, error))
        await self._store.holds.remove(job)
        return finished

    async def failed(self, stored: StoredJob, error: SnappyError | ErrorInfo, **changes: Any) -> StoredJob:
        """The attempt ended with ``error``: retry, fail (with ``changes``), or end as was asked for. Raises
        WrongSequence."""
        info = error if isinstance(error, ErrorInfo) else ErrorInfo.of(error)
        if is_stopping(stored.value):
            return await self.stopped(stored, info)
        await self._store.holds.fetch(stored.value.id)
        attempts = self._ended(stored, info)
        if places.is_spread(stored.value):
            return await self._failed_at_one(stored, info, attempts)
        if not info.retryable or self._is_exhausted(attempts, self._limit(stored.value)):
            return await self.finished(stored, Event.FAILED, error=info, **changes)
        return await self._again(stored, info, attempts)

    async def _failed_at_one(self, stored: StoredJob, info: ErrorInfo, attempts: list[Attempt]) -> StoredJob:
        """Of several targets: another one may take it."""
        limit = self._limit(stored.value)
        place = places.next_place(stored.value, attempts, limit)
        if place is not None and not self._is_exhausted(attempts, limit * len(places.places_of(stored.value.command))):
            return await self._again(stored, info, attempts, place=place)
        if isinstance(info.to_error(), places.OF_TARGETS):
            info, result = places.nowhere(stored.value, attempts)
            return await self.finished(stored, Event.FAILED, error=info, result=result)
        return await self.finished(stored, Event.FAILED, error=info)

    async def _again(self, stored: StoredJob, info: ErrorInfo, attempts: list[Attempt], **changes: Any) -> StoredJob:
        longest = LONGEST_CATCH_UP_BACKOFF if stored.value.follows else LONGEST_BACKOFF
        wait = min(longest, self._backoff(attempts)) * self._jitter()
        not_before = max(self._clock() + wait, attempts[-1].until + CLOCK_MARGIN)
        changes |= {"attempts": attempts, "error": info, "not_before": not_before}
        return await self._ledger.transition(stored, Event.RETRYING, **changes)

    def _limit(self, record: JobRecord) -> int:
        """How many attempts may end with an error."""
        return CATCH_UP_ATTEMPTS if record.follows else attempt_limit(record, self._settings.max_attempts)

    async def stopped(self, stored: StoredJob, error: ErrorInfo | None) -> StoredJob:
        """The worker of a job whose end was asked for has stopped, or is gone. Raises WrongSequence."""
        event = Event.FAILED if stored.value.cancel is None else Event.CANCELLED
        return await self.finished(stored, event, error=stored.value.ending or error)

    def _is_exhausted(self, attempts: list[Attempt], limit: int) -> bool:
        lost = sum(is_lost(attempt) for attempt in attempts)
        return lost >= self._settings.max_lost_attempts or len(attempts) - lost >= limit

    def _backoff(self, attempts: list[Attempt]) -> float:
        """Seconds; none after an attempt that was lost, since nothing says that the next would fail."""
        if is_lost(attempts[-1]):
            return 0.0
        errors = sum(not is_lost(attempt) for attempt in attempts)
        return FIRST_BACKOFF * 2.0 ** (errors - 1)

    def _ended(self, stored: StoredJob, error: ErrorInfo | None) -> list[Attempt]:
        """The attempts with the last one ended now."""
        record = stored.value
        hold = self._store.holds.get(record.id)
        last = msgspec.structs.replace(
            record.attempts[-1], ended=self._clock(), error=error, until=hold.value.deadline if hold else 0.0
        )
        return [*record.attempts[:-1], last]
