"""Keeps what is known of the sources that are protected, and tells when a promise is broken, and when it holds again.

It stands in the jobs bucket, one key a source, written by compare-and-set, and follows from the records of jobs: a
core that died before it wrote leaves no gap, for another reads the same records. An event is told once: its number is
written first, it is published with the source's last event expected, and then it is marked as told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec.structs import replace

from snappy import config, log
from snappy.bus.connection import Bus
from snappy.errors import BusError, WrongSequence
from snappy.jobs import protection
from snappy.jobs.backlog import Backlog
from snappy.jobs.bucket import EXPECTED, Bucket
from snappy.jobs.ledger import EXPECTED_SUBJECT, newest_event, timestamp
from snappy.jobs.messages import JobRecord
from snappy.jobs.mirror import Kept, Mirror
from snappy.jobs.promises import Promises
from snappy.jobs.protection import Promise, Protections
from snappy.jobs.protection_words import Protection, ProtectionEvent
from snappy.jobs.schedule_words import Schedule
from snappy.jobs.schedules.book import ScheduleBook
from snappy.jobs.states import FINAL, State
from snappy.jobs.store import JobStore

_log = log.get(__name__)

START = "protection."
DAY = 86400.0
AT_ONCE = 100


class Freshness:
    """``is_passing`` knows source services that lived for one command: nothing is kept of them. ``is_watching`` says
    whether this core has been looking at its jobs without a pause for a while. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        book: ScheduleBook,
        settings: config.Core,
        is_passing: Callable[[str], bool],
        is_watching: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._book = book
        self._settings = settings
        self._is_passing = is_passing
        self._backlog = Backlog(bus, is_watching)
        self._keep_seconds = settings.keep_jobs_days * DAY + DAY
        self._clock = clock
        self._kept: Mirror[Protection] = Mirror(Bucket(bus, bus.subjects.jobs_bucket), Protection, START, "*")
        self._noted = 0

    async def run(self, interval: float) -> None:
        """Look for ever, and first after a while: a core of one command never does."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.look()
            except BusError as error:
                _log.warning("the core cannot look at what is protected", error=str(error))
            except Exception:
                _log.exception("the core failed in looking at what is protected")

    async def look(self) -> None:
        """Note what jobs did, and tell what follows. Raises BusError."""
        accuse, reached, now = await self._backlog.is_read(), self._store.records.synced, self._clock()
        known, promises = await self.view()
        expected = promises.expected(known.values())
        settled = []
        for place, (name, source) in enumerate(known.items()):
            if place % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # of very many sources: workers wait for answers meanwhile
            promise = promises.of(source)
            if name not in expected and protection.is_idle(source, promise, now - self._keep_seconds):
                await self._kept.remove(name)
            else:
                settled.append(await self._settle(source, promise, now, accuse=accuse))
        if all(settled):
            self._noted = reached

    async def view(self) -> tuple[Protections, Promises]:
        """What is known of all sources now, whether it is written yet or not, and what is promised. Raises BusError."""
        records = self._store.records
        if records.synced < self._noted:  # the bucket was made anew
            self._noted = 0
            self._kept.start_over()
        await self._kept.sync()
        schedules = [kept.value for kept in await self._book.all()]
        promises, now = Promises(self._settings.promises, schedules), self._clock()
        known = {name: kept.value for name, kept in self._kept.kept.items()}
        for record in (*self._news(), *self._refused(schedules)):
            protection.note(known, record)
        expected = promises.expected(known.values())
        return {name: replace(source, seen=now) for name, source in expected.items()} | known, promises

    async def restore(self, remembered: Protection) -> None:
        """Put back what the audit remembers of a source. Raises WrongSequence if another core does so as well."""
        if self._is_passing(remembered.source):
            return
        kept = await self._kept.fetch(remembered.id)
        if kept is None:
            await self._kept.write(remembered.id, remembered, 0)
        elif (both := protection.merged(kept.value, remembered)) != kept.value:
            await self._kept.write(remembered.id, both, kept.revision)

    def _news(self) -> Iterable[JobRecord]:
        changed = (kept.value for kept in self._store.records.kept.values() if kept.revision > self._noted)
        found = (each for each in changed if each.kind in protection.KINDS and not self._is_passing(each.source))
        told = (each for each in found if each.state in FINAL or each.result)
        return sorted(told, key=lambda each: each.updated)

    def _refused(self, schedules: Iterable[Schedule]) -> Iterator[JobRecord]:
        """The newest jobs of schedules that were rejected before they ran: of their commands only names are kept."""
        for schedule in schedules:
            kept = self._store.records.get(schedule.last_job)
            if kept and kept.value.state is State.REJECTED and not kept.value.attempts:
                yield replace(kept.value, command=schedule.command)

    # ---- what is written and told --------------------------------------------------------------------------------

    async def _settle(self, draft: Protection, promise: Promise, now: float, *, accuse: bool) -> bool:
        """Whether what is drafted stands in the bucket."""
        kept = self._kept.get(draft.id)
        try:
            judged = protection.judged(draft, promise, now, may_accuse=accuse)
            if kept is None or judged != kept.value:
                kept = await self._kept.write(draft.id, judged, kept.revision if kept else 0)
            if not kept.value.told:
                await self._tell(kept)
        except WrongSequence:
            _log.debug("another core noted what happened to a source", source=draft.id)
            await self._kept.fetch(draft.id)
            return False
        return True

    async def _tell(self, kept: Kept[Protection]) -> None:
        """Publish the newest event, unless it stands in the stream, and mark it as told."""
        source = kept.value
        newest = await newest_event(self._bus, source.id)
        if newest is None or newest.number < source.event_number:
            await self._publish(source, newest.sequence if newest else 0)
        await self._kept.write(source.id, replace(source, told=True), kept.revision)

    async def _publish(self, source: Protection, last: int) -> None:
        subjects, event_id = self._bus.subjects, f"{source.id}/{source.event_number}"
        event = ProtectionEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type=f"io.snappy.source.{source.event}",
            subject=source.id,
            time=timestamp(source.since),
            data=source,
        )
        headers = {EXPECTED: str(last), EXPECTED_SUBJECT: subjects.events_of(source.id)}
        subject = subjects.event("source", source.event, source.id)
        await self._bus.store(subject, msgspec.json.encode(event), message_id=event_id, headers=headers)
