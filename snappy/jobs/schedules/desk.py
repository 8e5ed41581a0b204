"""What the core answers about schedules: add, list, get, pause, resume, remove, run-now.

A caller sees and changes its own schedules; with authentication off everybody is the same caller. The bucket is
written first: what a core that dies leaves undone in JetStream, :mod:`snappy.jobs.schedules.firing` makes good.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import msgspec

from snappy.bus.streams import COMMAND_BYTES
from snappy.errors import InvalidCommand, JobError, ScheduleNotFound, WrongSequence
from snappy.jobs.answering import Handler
from snappy.jobs.api_words import Reply
from snappy.jobs.commands import Reception
from snappy.jobs.kinds import AnyCommand
from snappy.jobs.protection import BACKUP, DRILL
from snappy.jobs.schedule_words import (
    Schedule,
    ScheduleAddRequest,
    ScheduleListRequest,
    ScheduleRequest,
    ScheduleRunRequest,
)
from snappy.jobs.schedules import plan
from snappy.jobs.schedules.book import ScheduleBook, StoredSchedule
from snappy.jobs.schedules.post import SchedulePost
from snappy.jobs.verbs import (
    SCHEDULE_ADD,
    SCHEDULE_GET,
    SCHEDULE_LIST,
    SCHEDULE_PAUSE,
    SCHEDULE_REMOVE,
    SCHEDULE_RESUME,
    SCHEDULE_RUN_NOW,
    Verb,
)

SCHEDULES_PER_OWNER = 1000
ENVELOPE_BYTES = 64 << 10
DEFINITION = ("owner", "kind", "command", "cron", "time_zone", "every", "at", "jitter", "missed", "max_age")
"""The fields that its owner chose."""


class ScheduleDesk:
    """``private``: authentication is on. ``largest`` gives the bytes of the largest message, ``clock`` Unix seconds."""

    def __init__(
        self,
        book: ScheduleBook,
        post: SchedulePost,
        reception: Reception,
        *,
        private: bool,
        largest: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._post = post
        self._reception = reception
        self._private = private
        self._largest = largest
        self._clock = clock

    def handlers(self) -> list[tuple[Verb, Handler]]:
        return [
            (SCHEDULE_ADD, self.add),
            (SCHEDULE_LIST, self.list_schedules),
            (SCHEDULE_GET, self.get),
            (SCHEDULE_PAUSE, self.pause),
            (SCHEDULE_RESUME, self.resume),
            (SCHEDULE_REMOVE, self.remove),
            (SCHEDULE_RUN_NOW, self.run_now),
        ]

    # ---- add -----------------------------------------------------------------------------------------------------

    async def add(self, caller: str, request: msgspec.Struct) -> Reply:
        """Harmless when repeated; a different one needs ``replace``."""
        assert isinstance(request, ScheduleAddRequest)
        schedule = await self._wanted(caller, request)
        known = await self._book.get(request.name)
        if known is None:
            await self._check_room(caller)
        if known and _definition(known.value) == _definition(schedule):
            return Reply(schedule=known.value)
        if known and not (request.replace and self._may_see(caller, known.value)):
            raise InvalidCommand(f"there is a schedule {request.name!r}", hint="take another name, or replace yours")
        return Reply(schedule=await self._keep(schedule, known))

    async def _wanted(self, caller: str, request: ScheduleAddRequest) -> Schedule:
        """The schedule that is asked for; its job is looked at as if it were submitted now."""
        now = self._clock()
        when: dict[str, Any] = plan.timing(request, now)
        command = await self._reception.checked(request.kind, caller, bytes(request.command))
        _check(command, len(request.command))
        if request.max_age and request.kind not in (BACKUP, DRILL):
            raise InvalidCommand(f"max_age says nothing of a {request.kind}", hint="it is for backups and drills")
        schedule = Schedule(
            name=request.name,
            id=uuid.uuid4().hex,
            owner=caller,
            kind=request.kind,
            command=msgspec.to_builtins(command),
            jitter=request.jitter,
            missed=request.missed,
            max_age=request.max_age,
            created=now,
            **when,
        )
        return self._started(schedule)

    async def _check_room(self, caller: str) -> None:
        owned = sum(kept.value.owner == caller for kept in await self._book.all())
        if owned >= SCHEDULES_PER_OWNER:
            raise InvalidCommand(f"{caller} has {owned} schedules, and may have no more", hint="remove some")

    def _started(self, schedule: Schedule) -> Schedule:
        now = self._clock()
        upcoming = plan.next_slot(schedule, now)
        return msgspec.structs.replace(
            schedule, state="active", since=now, next_slot=upcoming.at if upcoming else schedule.at
        )

    async def _keep(self, schedule: Schedule, known: StoredSchedule | None) -> Schedule:
        try:
            kept = await self._book.write(schedule, known.revision if known else 0)
        except WrongSequence as error:
            raise JobError(f"the schedule {schedule.name!r} was changed by somebody else just now") from error
        try:
            await self._post.stop(schedule.name)  # of another definition, a time of its own may still stand there
            await self._post.publish(schedule)
        except InvalidCommand:
            await self._put_back(kept, known)
            raise
        await self._post.tell("replaced" if known else "added", schedule)
        return schedule

    async def _put_back(self, kept: StoredSchedule, known: StoredSchedule | None) -> None:
        """The server did not take it: let there be what there was before."""
        if known is None:
            await self._book.remove(kept)
        else:
            await self._book.write(known.value, kept.revision)
            if known.value.state == "active":
                await self._post.publish(known.value)

    # ---- look ----------------------------------------------------------------------------------------------------

    async def list_schedules(self, caller: str, request: msgspec.Struct) -> Reply:
        """By name."""
        assert isinstance(request, ScheduleListRequest)
        found = [kept.value for kept in await self._book.all() if self._may_see(caller, kept.value)]
        fitting = self._that_fit(found)
        return Reply(schedules=fitting, more=len(fitting) < len(found))

    def _that_fit(self, schedules: list[Schedule]) -> list[Schedule]:
        """The first of them that one message holds."""
        sizes = accumulate(len(msgspec.json.encode(schedule)) + 1 for schedule in schedules)
        room = self._largest() - ENVELOPE_BYTES
        return [schedule for schedule, size in zip(schedules, sizes, strict=True) if size <= room]

    async def get(self, caller: str, request: msgspec.Struct) -> Reply:
        assert isinstance(request, ScheduleRequest)
        return Reply(schedule=(await self._visible(caller, request.name)).value)

    # ---- change --------------------------------------------------------------------------------------------------

    async def pause(self, caller: str, request: msgspec.Struct) -> Reply:
        """It fires no more until it is resumed. A job that it led to goes on."""
        assert isinstance(request, ScheduleRequest)
        kept = await self._visible(caller, request.name)
        if kept.value.state == "active":
            paused = msgspec.structs.replace(kept.value, state="paused", next_slot=0.0)
            kept = await self._change("paused", kept, paused)
        if kept.value.state == "paused":
            await self._post.stop(request.name)
        return Reply(schedule=kept.value)

    async def resume(self, caller: str, request: msgspec.Struct) -> Reply:
        """It fires again, from its next time on; an ``at`` that is past fires at once."""
        assert isinstance(request, ScheduleRequest)
        kept = await self._visible(caller, request.name)
        if kept.value.state == "done":
            raise JobError(f"the schedule {request.name!r} was for one run, and that was")
        if kept.value.state == "paused":
            kept = await self._change("resumed", kept, self._started(kept.value))
            await self._post.publish(kept.value)
        return Reply(schedule=kept.value)

    async def remove(self, caller: str, request: msgspec.Struct) -> Reply:
        """The schedule is gone; jobs that it led to go on."""
        assert isinstance(request, ScheduleRequest)
        kept = await self._visible(caller, request.name)
        while not await self._book.remove(kept):
            kept = await self._visible(caller, request.name)
        await self._post.stop(request.name)
        await self._post.tell("removed", kept.value)
        return Reply(schedule=kept.value)

    async def run_now(self, caller: str, request: msgspec.Struct) -> Reply:
        """Submit its job once, beside what it fires."""
        assert isinstance(request, ScheduleRunRequest)
        schedule = (await self._visible(caller, request.name)).value
        command = schedule.command | {"request": request.request}
        return Reply(job=await self._reception.submit(schedule.kind, schedule.owner, msgspec.json.encode(command)))

    async def _change(self, event: str, kept: StoredSchedule, changed: Schedule) -> StoredSchedule:
        """Raises JobError if somebody else was faster."""
        try:
            kept = await self._book.write(changed, kept.revision)
        except WrongSequence as error:
            raise JobError(f"the schedule {changed.name!r} was changed by somebody else just now") from error
        await self._post.tell(event, changed)
        return kept

    async def _visible(self, caller: str, name: str) -> StoredSchedule:
        """Another's schedule does not exist for a caller."""
        kept = await self._book.get(name)
        if kept is None or not self._may_see(caller, kept.value):
            raise ScheduleNotFound(f"there is no schedule {name!r}")
        return kept

    def _may_see(self, caller: str, schedule: Schedule) -> bool:
        return not self._private or schedule.owner == caller


def _check(command: AnyCommand, size: int) -> None:
    """Raises InvalidCommand for what has no meaning again and again."""
    for field in ("request", "not_before", "deadline"):
        if getattr(command, field) is not None:
            raise InvalidCommand(f"a job that is scheduled has no {field} of its own - at `$.command.{field}`", hint="")
    if size > COMMAND_BYTES:
        raise InvalidCommand(f"a command of {size} bytes; the largest is {COMMAND_BYTES}", hint="")


def _definition(schedule: Schedule) -> list[object]:
    return [getattr(schedule, field) for field in DEFINITION]
