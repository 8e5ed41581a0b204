"""Keeps what checks find of the repositories of targets, and the damage that drills meet; tells of it, and of its end.

It stands in the jobs bucket, one key a target, written by compare-and-set: it outlives every process, and all cores see
the same. Nothing is cached.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import BusError, Damaged, WrongSequence
from snappy.jobs import health
from snappy.jobs.bucket import Bucket
from snappy.jobs.kinds import read
from snappy.jobs.ledger import timestamp
from snappy.jobs.messages import ErrorInfo, JobRecord, Result
from snappy.jobs.mirror import Kept
from snappy.jobs.repository_words import RepositoryEvent, RepositoryState

START = "repository."
CHECK, DRILL = "check", "drill"

_log = log.get(__name__)


class Repositories:
    """``clock`` gives Unix seconds. Methods raise BusUnavailable when the bucket does not answer."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus, self._clock = bus, clock
        self._bucket = Bucket(bus, bus.subjects.jobs_bucket)

    async def get(self, target: str) -> RepositoryState:
        """What is known; of a repository that nobody checked that it is unknown."""
        return (await self._kept(target)).value

    async def all(self) -> list[RepositoryState]:
        """Of all repositories that were ever checked, by target."""
        entries = [entry async for entry in self._bucket.changes(0, f"{START}*") if entry.value]
        states = [_read(entry.value, entry.key.removeprefix(START)) for entry in entries]
        return sorted(states, key=lambda state: state.target)

    async def resolved(self, record: JobRecord) -> JobRecord:
        """The job as its worker is to see it: what is the next share is known now."""
        wanted = record.command.get("read_data_subset") or ""
        if not wanted.startswith(health.NEXT):
            return record
        share = health.next_share(await self.get(record.command["target"]), wanted)
        return msgspec.structs.replace(record, command={**record.command, "read_data_subset": share})

    async def note(self, record: JobRecord, result: Result | None, error: ErrorInfo | None, at: float) -> None:
        """Keep how a job ended, if it was a check that found out anything, or a drill that met damage. May be called
        again for one job. Raises BusError."""
        is_damaged = bool(error and error.code == Damaged.code)
        is_telling = is_damaged or (record.kind == CHECK and result and not error)
        if record.kind not in (CHECK, DRILL) or not is_telling:
            return
        target, at = record.command["target"], min(at, self._clock())
        while True:
            kept = await self._kept(target)
            state = _after(kept.value, record, result or Result(), is_damaged, at)
            try:
                await self._bucket.update(START + target, msgspec.json.encode(state), kept.revision)
                break
            except WrongSequence:
                continue
        if state.job == record.id:
            await self._tell(state)

    async def _kept(self, target: str) -> Kept[RepositoryState]:
        if (entry := await self._bucket.get(START + target)) is None:
            return Kept(RepositoryState(target=target), 0)
        return Kept(_read(entry.value, target), entry.revision)

    async def _tell(self, state: RepositoryState) -> None:
        """What cannot be told is logged, for the bucket is the truth."""
        subjects, event_id = self._bus.subjects, f"{state.job}/{state.state}"
        event = RepositoryEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type=f"io.snappy.repository.{state.state}",
            subject=state.target,
            time=timestamp(self._clock()),
            data=state,
        )
        subject = subjects.event("repository", state.state, state.target)
        try:
            await self._bus.store(subject, msgspec.json.encode(event), message_id=event_id)
        except BusError as error:
            _log.error("the state of a repository could not be told", target=state.target, error=str(error))


def _after(before: RepositoryState, record: JobRecord, result: Result, is_damaged: bool, at: float) -> RepositoryState:
    if record.kind == DRILL:
        return health.after_bad_drill(before, job=record.id, repository=result.repository, at=at)
    return health.after_check(
        before,
        job=record.id,
        portion=result.portion,
        is_damaged=is_damaged,
        repository=result.repository,
        at=at,
    )


def _read(value: bytes, target: str) -> RepositoryState:
    """What cannot be read (of a far newer core) is as if nothing were known: it must not stop a check."""
    try:
        return read(value, RepositoryState)
    except msgspec.DecodeError as error:
        _log.error("the state of a repository cannot be read", target=target, error=str(error))
        return RepositoryState(target=target)
