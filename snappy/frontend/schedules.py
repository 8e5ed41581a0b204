"""The client's questions about schedules: ``client.schedules.add(...)`` and so on, one method a verb."""

from __future__ import annotations

import builtins
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec

from snappy.errors import InternalError
from snappy.jobs import verbs
from snappy.jobs.api_words import Reply
from snappy.jobs.command import Command
from snappy.jobs.messages import JobRecord
from snappy.jobs.schedule_words import (
    Missed,
    Schedule,
    ScheduleAddRequest,
    ScheduleListRequest,
    ScheduleRequest,
    ScheduleRunRequest,
)
from snappy.jobs.verbs import Verb

Ask = Callable[[Verb, msgspec.Struct], Awaitable[Reply]]
Value = TypeVar("Value")


class Schedules:
    """Every method but :meth:`list` and :meth:`add` raises ScheduleNotFound; asked again after a lost answer, each
    does no harm."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def add(
        self,
        name: str,
        kind: str,
        command: Command | Mapping[str, Any],
        *,
        cron: str | None = None,
        time_zone: str = "",
        every: int | None = None,
        at: str | None = None,
        jitter: int = 0,
        missed: Missed = "run-once",
        max_age: int = 0,
        replace: bool = False,
    ) -> Schedule:
        """Submit ``command`` whenever ``cron`` (five fields) says, ``every`` so many seconds, or once, ``at`` an RFC
        3339 time; each run waits a part of ``jitter`` seconds. ``max_age`` promises that the newest good
        backup, or drill, is no older. Raises what it is refused for."""
        request = ScheduleAddRequest(
            name=name,
            kind=kind,
            command=msgspec.Raw(msgspec.json.encode(command if isinstance(command, Command) else dict(command))),
            cron=cron,
            time_zone=time_zone,
            every=every,
            at=at,
            jitter=jitter,
            missed=missed,
            max_age=max_age,
            replace=replace,
        )
        return _present((await self._ask(verbs.SCHEDULE_ADD, request)).schedule)

    async def list(self) -> builtins.list[Schedule]:
        """One's own, by name."""
        return _present((await self._ask(verbs.SCHEDULE_LIST, ScheduleListRequest())).schedules)

    async def get(self, name: str) -> Schedule:
        return _present((await self._ask(verbs.SCHEDULE_GET, ScheduleRequest(name=name))).schedule)

    async def pause(self, name: str) -> Schedule:
        """It fires no more until :meth:`resume`."""
        return _present((await self._ask(verbs.SCHEDULE_PAUSE, ScheduleRequest(name=name))).schedule)

    async def resume(self, name: str) -> Schedule:
        return _present((await self._ask(verbs.SCHEDULE_RESUME, ScheduleRequest(name=name))).schedule)

    async def remove(self, name: str) -> Schedule:
        """What was removed. Jobs that it led to go on."""
        return _present((await self._ask(verbs.SCHEDULE_REMOVE, ScheduleRequest(name=name))).schedule)

    async def run_now(self, name: str, *, request: str = "") -> JobRecord:
        """Submit its job once, beside what it fires."""
        asked = ScheduleRunRequest(name=name, request=request or uuid.uuid4().hex)
        return _present((await self._ask(verbs.SCHEDULE_RUN_NOW, asked)).job)


def _present(value: Value | None) -> Value:
    if value is None:
        raise InternalError("the service's answer does not hold what was asked for")
    return value
