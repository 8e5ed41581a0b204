"""What no message brings: holds that ran out, attempts that are due, events that are late, jobs that are old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from snappy import config, log
from snappy.bus.connection import Bus
from snappy.errors import AttemptLost, BusError, WrongSequence
from snappy.jobs.attempts import Attempts
from snappy.jobs.calls import Calls
from snappy.jobs.ledger import Ledger
from snappy.jobs.line import Line
from snappy.jobs.messages import Hold, JobRecord
from snappy.jobs.mirror import Kept
from snappy.jobs.rules import is_stopping, overdue
from snappy.jobs.spreading import Spreading
from snappy.jobs.states import FINAL, State
from snappy.jobs.stopping import Stopper
from snappy.jobs.store import JobStore, StoredJob

_log = log.get(__name__)

LATE_SECONDS = 5.0
"""So long after a change another core's event should be in the stream."""
BLIND_SECONDS = 5.0
"""A core that did not look for so long may have been stopped, and must not judge at once."""
STALL_SECONDS = 1.5
"""The same, as far as it is known that it wanted to look earlier, or did and had no answer."""
RETURN_SECONDS = 8.0
"""So long after an outage a worker renews again at the latest: two seconds between tries to connect, five for one, and
one until it asks."""
LEAST_REST = 0.1
"""Seconds between two looks at least, however much becomes due."""
KEPT_JOBS = 100_000
CLEAN_SECONDS = 60.0


class Sweep:
    """``clock`` gives Unix seconds; a tick does all that is due."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        ledger: Ledger,
        attempts: Attempts,
        calls: Calls,
        line: Line,
        stopper: Stopper,
        spreading: Spreading,
        settings: config.Core,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._attempts = attempts
        self._calls = calls
        self._line = line
        self._stopper = stopper
        self._spreading = spreading
        self._settings = settings
        self._clock = clock
        self._watching_since: float | None = None
        self._last_tick = 0.0
        self._reconnects = -1
        self._last_clean = 0.0
        self._doubtful: dict[str, float] = {}

    async def run(self, interval: float = 1.0) -> None:
        """For ever: every ``interval`` seconds, and when a hold runs out or an attempt may begin in between."""
        while True:
            try:
                await self.tick()
            except BusError as error:
                _log.warning("the core cannot look at its jobs", error=str(error))
                self._watching_since = None
            except Exception:
                _log.exception("the core failed in looking at its jobs")
                self._watching_since = None
            await self._sleep(self._rest(interval))

    async def _sleep(self, seconds: float) -> None:
        began = self._clock()
        await asyncio.sleep(seconds)
        self._doubt_if_late(began + seconds)

    def _doubt_if_late(self, expected: float) -> None:
        """What took much longer than it should was stopped, or waited for a server that was: there may be renewals
        that wait to be read."""
        if self._clock() > expected + STALL_SECONDS:
            self._watching_since = None

    def _rest(self, interval: float) -> float:
        """Seconds until something becomes due, ``interval`` at most."""
        now = self._clock()
        waits = (self._next_moment(stored.value) - now for stored in self._store.records.unfinished())
        nearest = min((wait for wait in waits if wait > 0.0), default=interval)
        return min(interval, max(LEAST_REST, nearest))

    def _next_moment(self, record: JobRecord) -> float:
        """When a hold runs out unless it is renewed, or the next attempt may begin; in Unix seconds."""
        if record.state is not State.RUNNING:
            return record.not_before
        kept = self._store.holds.get(record.id)
        return kept.value.deadline if kept else 0.0

    async def tick(self) -> None:
        """Raises BusError when a bucket does not answer."""
        asked = self._clock()
        await self._store.confirm_leaders()
        changed = await self._store.sync()
        self._doubt_if_late(asked)
        self._watch()
        now = self._clock()
        self._doubtful |= dict.fromkeys(changed, now)
        await self._end_lost_attempts()
        await self._end_overdue()
        await self._remind_of_cancels()
        await self._spreading.settle_all()
        await self._line.call()
        await self._confirm_events()
        if now - self._last_clean > CLEAN_SECONDS:
            await self._clean()
            self._last_clean = now

    # ---- holds that ran out ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Note since when this core has seen the buckets without a pause: renewals may be waiting elsewhere."""
        now, reconnects = self._clock(), int(self._bus.nc.stats["reconnects"])
        if now - self._last_tick > BLIND_SECONDS or reconnects != self._reconnects:
            self._watching_since = None
        self._last_tick, self._reconnects = now, reconnects
        if self._watching_since is None:
            self._watching_since = now

    def may_judge(self) -> bool:
        """Whether this core has seen its buckets for a whole hold without a pause."""
        since = self._watching_since
        return since is not None and self._clock() - since >= max(self._settings.hold_seconds, RETURN_SECONDS)

    async def _end_lost_attempts(self) -> None:
        if not self.may_judge():
            return
        for stored in self._store.records.unfinished():
            if stored.value.state is State.RUNNING and self._ran_out(stored.value):
                await self._end_lost(stored)

    def _ran_out(self, record: JobRecord) -> bool:
        kept, attempt = self._store.holds.get(record.id), record.attempts[-1]
        if kept is None or kept.value.attempt != attempt.number:
            return self._clock() > attempt.started + self._settings.hold_seconds
        return kept.value.over or self._clock() > kept.value.deadline

    async def _end_lost(self, stored: StoredJob) -> None:
        """Close the hold first, so that a renewal that comes at the same moment either wins or is refused."""
        job, attempt = stored.value.id, stored.value.attempts[-1]
        try:
            kept = self._store.holds.get(job)
            if kept is not None and not kept.value.over:
                await self._close(job, kept)
            reason = AttemptLost(f"{attempt.service}.{attempt.replica} fell silent in attempt {attempt.number}")
            await self._attempts.failed(stored, reason)
            await self._line.move_up(stored.value)
        except WrongSequence:
            await self._store.holds.fetch(job)
            await self._store.records.fetch(job)

    async def _close(self, job: str, kept: Kept[Hold]) -> None:
        await self._store.holds.write(job, msgspec.structs.replace(kept.value, over=True), kept.revision)

    async def _end_overdue(self) -> None:
        """Stop what is past its deadline, or takes longer than its time limit."""
        for stored in self._store.records.unfinished():
            if not is_stopping(stored.value) and (reason := overdue(stored.value, self._clock())):
                try:
                    await self._stopper.stop(stored, reason=reason)
                except WrongSequence:
                    await self._store.records.fetch(stored.value.id)

    async def _remind_of_cancels(self) -> None:
        """The word to stop is told at most once each time, and a worker may not have heard it."""
        for stored in self._store.records.unfinished():
            if is_stopping(stored.value):
                await self._calls.cancel(stored.value)

    # ---- calls, events, old jobs -----------------------------------------------------------------------------

    async def _confirm_events(self) -> None:
        late = self._clock() - LATE_SECONDS
        jobs = [job for job, since in self._doubtful.items() if since <= late]
        for job in {*jobs, *self._ledger.unconfirmed}:
            try:
                await self._ledger.confirm(job)
            except WrongSequence:
                _log.debug("an event changed while it was looked for", job=job)
            self._doubtful.pop(job, None)

    async def _clean(self) -> None:
        """Remove what finished too long ago, and the oldest of too many."""
        finished = [kept.value for kept in self._store.records.kept.values() if kept.value.state in FINAL]
        finished.sort(key=lambda record: record.updated)
        oldest = self._clock() - self._settings.keep_jobs_days * 86400
        surplus = len(finished) - KEPT_JOBS
        for place, record in enumerate(finished):
            if record.updated < oldest or place < surplus:
                await self._store.forget(record.id)
