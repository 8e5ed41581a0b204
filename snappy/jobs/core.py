"""The core: accepts jobs, assigns them, follows them, retries them. The only writer of job state.

Any number of cores run side by side. All they keep is in the buckets; what they hold in memory is a copy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from snappy import __version__, config, log
from snappy.bus import streams
from snappy.bus.connection import Bus, serve
from snappy.bus.grants import SigningKey
from snappy.bus.micro import MicroService
from snappy.bus.pulling import Puller, in_progress
from snappy.errors import Interrupted, WrongSequence
from snappy.jobs.answering import Handler, answerer
from snappy.jobs.attempts import Attempts
from snappy.jobs.calls import Calls
from snappy.jobs.commands import Reception
from snappy.jobs.endpoints import Endpoints
from snappy.jobs.freshness import Freshness
from snappy.jobs.holds import HoldDesk
from snappy.jobs.ledger import Ledger
from snappy.jobs.limits import Limits
from snappy.jobs.line import Line
from snappy.jobs.messages import ErrorInfo, JobRecord
from snappy.jobs.observers import Observers
from snappy.jobs.recall import Recall
from snappy.jobs.refusals import Refusals
from snappy.jobs.reports import Reports
from snappy.jobs.repositories import Repositories
from snappy.jobs.schedules.book import ScheduleBook
from snappy.jobs.schedules.desk import ScheduleDesk
from snappy.jobs.schedules.firing import ScheduleFiring
from snappy.jobs.schedules.post import SchedulePost
from snappy.jobs.spreading import Spreading
from snappy.jobs.states import FINAL, Event
from snappy.jobs.status import StatusDesk
from snappy.jobs.stopping import Stopper
from snappy.jobs.store import JobStore, StoredJob
from snappy.jobs.sweep import Sweep
from snappy.jobs.twins import Twins
from snappy.jobs.verbs import Verb

_log = log.get(__name__)

QUEUE = "core"
SERVICE = "snappy-core"
HOLDS_AT_ONCE = 64
RECENT_SECONDS = 3600.0
LOOKS = 15
"""The sweep looks so often between two looks at what is protected."""


class Core:
    """One core process. ``private_inboxes``: the NATS server authenticates, and each user has an inbox of its own.

    ``clock`` gives Unix seconds; ``sweep_seconds`` is the time between two looks at what is due.
    """

    def __init__(
        self,
        bus: Bus,
        settings: config.Core,
        signing_key: SigningKey,
        *,
        private_inboxes: bool = True,
        clock: Callable[[], float] = time.time,
        sweep_seconds: float = 1.0,
    ) -> None:
        self.bus = bus
        self.ready = asyncio.Event()
        self._settings = settings
        self._sweep_seconds = sweep_seconds
        self._private = private_inboxes
        self._gone: Callable[[str], bool] | None = None
        self.store = JobStore(bus)
        self.ledger = Ledger(bus, self.store, clock)
        self._refusals = Refusals(bus, clock)
        calls = Calls(bus, clock)
        attempts = Attempts(self.store, self.ledger, settings, clock)
        limits = Limits(settings.limits, self.store, clock)
        stopper = Stopper(self.store, self.ledger, calls, clock)
        spreading = Spreading(self.store, self.ledger, attempts, calls, stopper, settings, clock)
        line = Line(self.store, calls, limits, settings.ageing_seconds, clock, spreading.waits_for_target)
        twins = Twins(self.store, stopper, clock)
        self.reception = Reception(bus, self.store, self.ledger, calls, self._refusals, twins, settings, clock)
        repositories = Repositories(bus, clock)
        self._reports = Reports(bus, self.store, self.ledger, attempts, line, self._refusals, repositories, spreading)
        self._endpoints = Endpoints(
            bus, self.store, self.reception, stopper, repositories, settings, private=private_inboxes, clock=clock
        )
        self._observers = Observers(bus)
        book, post = ScheduleBook(bus), SchedulePost(bus, clock)
        self._schedule_desk = ScheduleDesk(
            book, post, self.reception, private=private_inboxes, largest=lambda: bus.nc.max_payload, clock=clock
        )
        self.schedules = ScheduleFiring(bus, book, post, self.reception, self._refusals, clock)
        self.sweep = Sweep(bus, self.store, self.ledger, attempts, calls, line, stopper, spreading, settings, clock)
        watching = self.sweep.may_judge
        self.freshness = Freshness(bus, self.store, book, settings, self._is_gone, watching, clock)
        put_back = self.freshness.restore
        self.recall = Recall(bus, self.store, self.ledger, book, settings, self._end_gone, put_back, clock)
        self._status = StatusDesk(bus, self.store, self.freshness, repositories, clock)
        self._desk = HoldDesk(
            bus,
            self.store,
            self.ledger,
            attempts,
            calls,
            line,
            limits,
            repositories,
            self._refusals,
            signing_key,
            settings,
            private=private_inboxes,
            clock=clock,
        )

    async def run(self) -> None:
        """Until it is cancelled. Sets ``ready`` when it answers. Raises StreamMismatch, BusDenied, BusUnavailable."""
        await self.prepare()
        service = await self._answer_users()
        holds = self.bus.subjects.hold("*", "*", "*")
        workers = await serve(self.bus, holds, QUEUE, self._desk.answer, limit=HOLDS_AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._consume(self.bus.subjects.commands_stream, self.reception.receive))
                group.create_task(self._consume(self.bus.subjects.reports_stream, self._reports.receive))
                group.create_task(self._consume(self.bus.subjects.schedules_stream, self.schedules.receive))
                group.create_task(self.schedules.run())
                group.create_task(self.recall.run())
                group.create_task(self.sweep.run(self._sweep_seconds))
                group.create_task(self.freshness.run(LOOKS * self._sweep_seconds))
                self.ready.set()
        finally:
            self.ready.clear()
            await asyncio.shield(self._stop_listening(service, workers))

    async def prepare(self) -> None:
        """Make the streams and buckets, read them, and finish what a crash left half done."""
        await streams.ensure(self.bus, self._settings.replicas)
        await self.store.sync()
        self.ledger.unconfirmed |= self._perhaps_untold()
        _log.info("the core knows its jobs", jobs=len(self.store.records.kept))

    async def end_leftovers(self, of: Callable[[str], bool] = lambda _source: True) -> list[JobRecord]:
        """Fail each job that is not over and whose source ``of`` knows to be gone for good: those of stacks that lived
        for one command; after :meth:`prepare`."""
        self._gone = of
        leftovers = [stored for stored in self.store.records.unfinished() if of(stored.value.source)]
        return [(await self._interrupt(stored)).value for stored in leftovers]

    def _is_gone(self, source: str) -> bool:
        return self._gone is not None and self._gone(source)

    async def _end_gone(self) -> None:
        """Of what was put back, end what :meth:`end_leftovers` would have."""
        if self._gone is not None:
            await self.end_leftovers(self._gone)

    async def _interrupt(self, stored: StoredJob) -> StoredJob:
        error = ErrorInfo.of(Interrupted())
        try:
            return await self.ledger.transition(stored, Event.FAILED, error=error)
        except WrongSequence:
            fresh = await self.store.records.fetch(stored.value.id) or stored
            return fresh if fresh.value.state in FINAL else await self._interrupt(fresh)

    def _perhaps_untold(self) -> set[str]:
        """Jobs whose newest event a core that died may not have published: those that changed shortly before."""
        records = [kept.value for kept in self.store.records.kept.values()]
        newest = max((record.updated for record in records), default=0.0)
        recent = newest - RECENT_SECONDS
        return {record.id for record in records if record.state not in FINAL or record.updated >= recent}

    async def _stop_listening(self, service: MicroService, workers: Subscription) -> None:
        with suppress(NatsError, OSError):
            await workers.unsubscribe()
            await service.stop()

    async def _answer_users(self) -> MicroService:
        subjects = self.bus.subjects
        service = MicroService(self.bus, SERVICE, __version__, description="accepts, assigns and follows jobs")
        await service.begin()
        for verb, handler in self._handlers():
            answer = answerer(self.bus, verb, handler, private=self._private, refuse=self._refusals.tell)
            await service.add(verb.name, subjects.api(verb.noun, verb.verb, "*"), answer, queue=QUEUE)
        return service

    def _handlers(self) -> list[tuple[Verb, Handler]]:
        desks = (self._endpoints, self._schedule_desk, self._observers, self._status)
        return [handler for desk in desks for handler in desk.handlers()]

    async def _consume(self, stream: str, receive: Callable[[list[Msg]], Awaitable[None]]) -> None:
        puller = Puller(self.bus, stream, self.bus.subjects.core_durable, repair=self._repair)
        async for batch in puller.batches():
            async with in_progress(batch, streams.CORE_ACK_SECONDS / 3):
                try:
                    await receive(batch)
                except Exception:
                    _log.exception("messages could not be handled; they come again", stream=stream)

    async def _repair(self) -> None:
        await streams.ensure(self.bus, self._settings.replicas)
