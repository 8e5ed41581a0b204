"""Schedules at work: each message on ``snappy.due.<name>`` becomes one job of the schedule's owner.

What is run is what the bucket says; the message says only that it is time. Nothing that happens to a job ends its
schedule.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import log
from snappy.bus.connection import Bus
from snappy.bus.pulling import again_soon
from snappy.errors import BusError, SnappyError, WrongSequence
from snappy.jobs.commands import Reception
from snappy.jobs.identity import job_id_of
from snappy.jobs.refusals import Refusals
from snappy.jobs.schedule_words import Schedule
from snappy.jobs.schedules import plan
from snappy.jobs.schedules.book import ScheduleBook, StoredSchedule
from snappy.jobs.schedules.plan import DEFINITION, SCHEDULER, Firing
from snappy.jobs.schedules.post import MOVED, SchedulePost
from snappy.jobs.schedules.slots import Slot

_log = log.get(__name__)

LOOK_SECONDS = 60.0
"""Between two looks at whether every schedule still has its message."""


class ScheduleFiring:
    """``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        book: ScheduleBook,
        post: SchedulePost,
        reception: Reception,
        refusals: Refusals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self.book = book
        self.post = post
        self._reception = reception
        self._refusals = refusals
        self._clock = clock

    # ---- what is due ---------------------------------------------------------------------------------------------

    async def receive(self, messages: list[Msg]) -> None:
        """Submit what is due; each message is acknowledged once its job is kept."""
        await asyncio.gather(*(self._receive_one(message) for message in messages))

    async def _receive_one(self, message: Msg) -> None:
        try:
            await self._act(message)
            await message.ack_sync(timeout=5.0)
        except (BusError, NatsError, OSError, TimeoutError) as error:
            _log.warning("a schedule's message will come again", subject=message.subject, error=str(error))
            await again_soon(message)
        except Exception:
            _log.exception("a schedule's message could not be handled", subject=message.subject)
            await self._refusals.tell(message, "", "the core failed on this message")
            with suppress(NatsError, OSError):
                await message.ack()

    async def _act(self, message: Msg) -> None:
        name, headers = message.subject.rpartition(".")[2], message.headers or {}
        kept = await self.book.get(name)
        if kept is not None and headers.get(DEFINITION) == kept.value.id:
            if kept.value.state == "paused":
                await self.post.stop(name)
            else:
                await self._run(kept, message, Firing.read(message.metadata.timestamp.timestamp(), headers))
        elif SCHEDULER in headers:  # which nobody but the server can put there
            await self._mend(name, kept.value if kept else None)
        else:
            await self._refusals.tell(message, "", "no message of the schedule as it is now")

    async def _mend(self, name: str, schedule: Schedule | None) -> None:
        """What fired is no longer the schedule: a core died in the middle of removing or replacing it."""
        _log.warning("a schedule's message was of another definition", schedule=name)
        await self.post.stop(name)
        if schedule is not None and schedule.state == "active":
            await self.post.publish(schedule)

    async def _run(self, kept: StoredSchedule, message: Msg, firing: Firing) -> None:
        schedule = kept.value
        slot, now = plan.slot_of(schedule, firing), self._clock()
        upcoming = plan.next_slot(schedule, max(now, firing.at))
        await self.post.help(schedule, upcoming, firing.following)
        job = schedule.last_job
        if slot.at > schedule.last_slot:
            job = await self._submit(schedule, slot, message, now)
        due_next = firing.following if schedule.every else upcoming.at if upcoming else None
        await self._note(kept, last_slot=slot.at, last_job=job, next_slot=due_next or 0.0)

    async def _submit(self, schedule: Schedule, slot: Slot, message: Msg, now: float) -> str:
        """The id of the job; the newest one's if this run is skipped."""
        if plan.is_missed(schedule, slot, now):
            await self.post.tell("skipped", schedule)
            return schedule.last_job
        metadata = message.metadata
        stored_ns = int(metadata.timestamp.timestamp() * 1e6) * 1000
        record = await self._reception.accept(
            schedule.kind,
            schedule.owner,
            msgspec.json.encode(schedule.command | {"request": plan.request_of(schedule, slot)}),
            job=job_id_of(metadata.stream, metadata.sequence.stream, stored_ns),
            created=now,
            not_before=slot.at + plan.jitter(schedule) if schedule.jitter else 0.0,
        )
        return record.id

    async def _note(self, before: StoredSchedule, *, last_slot: float, last_job: str, next_slot: float) -> None:
        """Keep what happened, unless it is another definition by now, or more has happened."""
        kept: StoredSchedule | None = before
        while kept is not None and kept.value.id == before.value.id and kept.value.last_slot <= last_slot:
            state = "done" if kept.value.at else kept.value.state
            next_slot = next_slot if state == "active" else 0.0
            noted = msgspec.structs.replace(
                kept.value, last_slot=last_slot, last_job=last_job, next_slot=next_slot, state=state
            )
            try:
                await self.book.write(noted, kept.revision)
                return
            except WrongSequence:
                kept = await self.book.get(before.value.name)

    # ---- what is missing -----------------------------------------------------------------------------------------

    async def run(self, interval: float = LOOK_SECONDS) -> None:
        """See to it for ever, and first at once, that every schedule has its message."""
        while True:
            try:
                await self.look()
            except SnappyError as error:
                _log.warning("the core cannot look at its schedules", error=str(error))
            except Exception:
                _log.exception("the core failed in looking at its schedules")
            await asyncio.sleep(interval)

    async def look(self) -> None:
        """Publish what is missing: a core died before it did, or the server came back with less."""
        kept, present = await self.book.all(), await self.post.present()
        for schedule in (each.value for each in kept if each.value.state == "active"):
            if schedule.name not in present:
                await self._publish_again(schedule.name)
            elif schedule.cron and schedule.name + MOVED not in present:
                now = self._clock()
                await self.post.help(schedule, plan.next_slot(schedule, now), None)

    async def _publish_again(self, name: str) -> None:
        fresh = await self.book.get(name)
        if fresh is None or fresh.value.state != "active":
            return
        _log.warning("a schedule had no message, and gets it again", schedule=name)
        try:
            await self.post.publish(fresh.value)
        except SnappyError as error:
            _log.error("a schedule cannot be published", schedule=name, error=str(error))
