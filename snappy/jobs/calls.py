"""Calls workers. A call names no job: whoever hears it claims, and the core chooses then."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from snappy import log
from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.errors import BusError
from snappy.jobs.messages import Control, JobRecord

_log = log.get(__name__)

AGAIN_SECONDS = 5.0


class Calls:
    """Remembers when it called for which job; another core's calls it finds in the stream."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._called: dict[str, float] = {}

    async def prepare(self, service: str) -> None:
        """Make the consumer from which the replicas of a source service hear their calls."""
        await streams.ensure_work_consumer(self._bus, service)

    async def call(self, record: JobRecord) -> None:
        """Call for the next attempt at a job; once, however often it is asked within two minutes."""
        self._called[record.id] = self._clock()
        await self._publish(record.source, f"{record.id}/{len(record.attempts) + 1}")

    async def call_again(self, waiting: Iterable[JobRecord]) -> None:
        """See to it that each service that jobs wait for has as many calls before it as jobs."""
        now, waiting = self._clock(), list(waiting)
        self._called = {record.id: self._called[record.id] for record in waiting if record.id in self._called}
        overdue = [record for record in waiting if now - self._called.get(record.id, 0.0) > AGAIN_SECONDS]
        if not overdue:
            return
        pending = await self._pending()
        for service, jobs in Counter(record.source for record in overdue).items():
            for _ in range(jobs - pending[service]):
                await self._publish(service, None)
        self._called |= {record.id: now for record in overdue}

    async def call_once_more(self, record: JobRecord) -> None:
        """Call for a job that was called for when nobody could take it."""
        self._called[record.id] = self._clock()
        await self._publish(record.source, None)

    async def cancel(self, record: JobRecord) -> None:
        """Tell the workers of a service that a job is to stop; who did not hear it learns it with its next renewal."""
        control = Control(verb="cancel", job=record.id)
        await self._bus.publish(self._bus.subjects.control(record.source), msgspec.json.encode(control))

    def forget(self, job: str) -> None:
        self._called.pop(job, None)

    async def _publish(self, service: str, message_id: str | None) -> None:
        try:
            await self._bus.store(self._bus.subjects.work(service), b'{"v":1}', message_id=message_id)
        except BusError as error:
            _log.warning("a call will be made again", service=service, error=str(error))

    async def _pending(self) -> Counter[str]:
        subjects = self._bus.subjects
        body = json.dumps({"subjects_filter": subjects.work("*")}).encode()
        answer = json.loads(await self._bus.request(f"$JS.API.STREAM.INFO.{subjects.work_stream}", body, timeout=5.0))
        found = answer.get("state", {}).get("subjects") or {}
        return Counter({subject.rpartition(".")[2]: count for subject, count in found.items()})
