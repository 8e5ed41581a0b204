"""A schedule's messages in JetStream, which is what makes it fire, and the events that tell of it.

On ``snappy.schedule.<name>`` stands the pattern. Beside it, on ``<name>_moved``, may stand a single point in time: a
clock change skips some times of a pattern, and the server (2.15: ``server/cron.go``) then fires a day or more later.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import BusError, InvalidCommand
from snappy.jobs.ledger import timestamp
from snappy.jobs.schedule_words import Schedule, ScheduleEvent
from snappy.jobs.schedules import plan
from snappy.jobs.schedules.slots import Slot

_log = log.get(__name__)

MOVED = "_moved"
"""No schedule's name ends like that: an underscore does not belong there."""
API_SECONDS = 5.0
REFUSED = {
    10189: "the NATS server does not understand the pattern",
    10190: "the NATS server does not take the subject on which the schedule fires",
    10223: "the NATS server does not know the time zone",
}


class SchedulePost:
    """``clock`` gives Unix seconds. Methods raise BusUnavailable when JetStream does not answer."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock

    async def publish(self, schedule: Schedule) -> None:
        """Have it fire, from now on; what stood there before is replaced. Raises InvalidCommand with the reason if the
        server does not take it."""
        subjects = self._bus.subjects
        headers = plan.headers(schedule, subjects.due(schedule.name))
        try:
            await self._put(subjects.schedule(schedule.name), schedule, headers)
        except BusError as error:
            if reason := REFUSED.get(error.details.get("err_code", 0)):
                raise InvalidCommand(f"{reason} of {schedule.name!r}", hint="") from error
            raise
        await self.help(schedule, plan.next_slot(schedule, self._clock()), None)

    async def help(self, schedule: Schedule, upcoming: Slot | None, following: float | None) -> None:
        """Have it fire at ``upcoming`` as well, if the server, which fires next at ``following``, would not."""
        if upcoming and plan.needs_help(upcoming, following):
            subjects = self._bus.subjects
            headers = plan.headers_at(schedule, upcoming.at, subjects.due(schedule.name))
            await self._put(subjects.schedule(schedule.name + MOVED), schedule, headers)

    async def stop(self, name: str) -> None:
        """Have it fire no more."""
        subjects = self._bus.subjects
        for subject in (subjects.schedule(name), subjects.schedule(name + MOVED), subjects.due(name)):
            answer = await self._ask("STREAM.PURGE", {"filter": subject})
            if "error" in answer:
                raise BusError(f"a schedule cannot be stopped: {answer['error'].get('description', '')}")

    async def present(self) -> set[str]:
        """The names under which a message stands that will fire."""
        answer = await self._ask("STREAM.INFO", {"subjects_filter": self._bus.subjects.schedule("*")})
        if "error" in answer:
            raise BusError(f"the schedules cannot be read: {answer['error'].get('description', '')}")
        return {subject.rpartition(".")[2] for subject in answer["state"].get("subjects") or {}}

    async def tell(self, event: str, schedule: Schedule) -> None:
        """Publish what happened to a schedule; what cannot be told is logged, for the bucket is the truth."""
        subjects, event_id = self._bus.subjects, str(uuid.uuid4())
        body = ScheduleEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type=f"io.snappy.schedule.{event}",
            subject=schedule.name,
            time=timestamp(self._clock()),
            data=schedule,
            submitter=schedule.owner,
        )
        try:
            await self._bus.store(subjects.event("schedule", event, event_id), msgspec.json.encode(body))
        except BusError as error:
            _log.error("what happened to a schedule could not be told", schedule=schedule.name, error=str(error))

    async def _put(self, subject: str, schedule: Schedule, headers: dict[str, str]) -> None:
        await self._bus.store(subject, msgspec.json.encode(schedule.command), headers=headers)

    async def _ask(self, call: str, body: dict[str, str]) -> dict[str, dict[str, dict[str, int]]]:
        subject = f"$JS.API.{call}.{self._bus.subjects.schedules_stream}"
        answer = await self._bus.request(subject, json.dumps(body).encode(), timeout=API_SECONDS)
        decoded: dict[str, dict[str, dict[str, int]]] = json.loads(answer)
        return decoded
