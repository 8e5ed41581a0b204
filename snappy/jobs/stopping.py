"""Ends jobs before they are done: on request, for a deadline or a time limit, or for a newer one in their place."""

from __future__ import annotations

import time
from collections.abc import Callable

from snappy.errors import SnappyError, WrongSequence
from snappy.jobs.calls import Calls
from snappy.jobs.ledger import Ledger
from snappy.jobs.messages import ErrorInfo
from snappy.jobs.states import FINAL, Event, State
from snappy.jobs.store import JobStore, StoredJob

STOP_SECONDS = 60.0
"""A worker that goes on for so long after it was told to stop loses its hold."""


class Stopper:
    """``clock`` gives Unix seconds."""

    def __init__(self, store: JobStore, ledger: Ledger, calls: Calls, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._ledger = ledger
        self._calls = calls
        self._clock = clock

    async def stop(self, stored: StoredJob, *, by: str | None = None, reason: SnappyError | None = None) -> StoredJob:
        """A job that waits ends at once; a worker is told to stop, and reports when it has.

        It ends as cancelled if somebody asked for it (``by``), else as failed for the ``reason``. Raises
        WrongSequence when the record has changed: read again.
        """
        error = ErrorInfo.of(reason) if reason else None
        if stored.value.state is not State.RUNNING:
            return await self._end(stored, by, error)
        stored = await self._note(stored, by, error)
        await self._calls.cancel(stored.value)
        return stored

    async def stop_if_active(self, job: str, *, by: str | None = None, reason: SnappyError | None = None) -> None:
        """The same, whatever state it has come to meanwhile."""
        while (stored := await self._store.records.fetch(job)) and stored.value.state not in FINAL:
            try:
                await self.stop(stored, by=by, reason=reason)
                return
            except WrongSequence:
                continue

    async def _end(self, stored: StoredJob, by: str | None, error: ErrorInfo | None) -> StoredJob:
        event = Event.CANCELLED if by else Event.FAILED
        ended = await self._ledger.transition(stored, event, cancel=by, error=error or stored.value.error)
        await self._store.holds.remove(stored.value.id)
        return ended

    async def _note(self, stored: StoredJob, by: str | None, error: ErrorInfo | None) -> StoredJob:
        """The first wish counts, but that a user's comes before a rule's."""
        record = stored.value
        if record.cancel is not None or (by is None and record.ending is not None):
            return stored
        stop_by = record.stop_by or self._clock() + STOP_SECONDS
        return await self._ledger.note(stored, cancel=by, ending=error or record.ending, stop_by=stop_by)
