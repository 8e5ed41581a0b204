"""Accepts jobs: from the stream of commands, and for the API. Each becomes one record, however often it comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import config, log
from snappy.bus.connection import Bus
from snappy.bus.pulling import again_soon
from snappy.bus.subjects import REQUEST, TOKEN
from snappy.errors import (
    BusError,
    Duplicate,
    InvalidCommand,
    Rejected,
    SnappyError,
    SourceError,
    UnknownService,
    WrongSequence,
)
from snappy.jobs import places, rights, vetting
from snappy.jobs.calls import Calls
from snappy.jobs.identity import job_id_of, new_job_id
from snappy.jobs.kinds import COMMANDS, AnyCommand, parse_command
from snappy.jobs.ledger import Ledger
from snappy.jobs.messages import ErrorInfo, JobRecord
from snappy.jobs.place_words import TargetKey
from snappy.jobs.refusals import Refusals
from snappy.jobs.rules import is_due, with_rules
from snappy.jobs.states import Event, State
from snappy.jobs.store import JobStore, StoredJob
from snappy.jobs.twins import Twins

_log = log.get(__name__)

SCHEDULED = "Nats-Scheduler"
UNKNOWN_KIND = "unknown"


class Reception:
    """``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        ledger: Ledger,
        calls: Calls,
        refusals: Refusals,
        twins: Twins,
        settings: config.Core,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._calls = calls
        self._refusals = refusals
        self._twins = twins
        self._settings = settings
        self._clock = clock

    async def receive(self, messages: list[Msg]) -> None:
        """Accept what the commands stream brought; each message is acknowledged once its record is kept."""
        await asyncio.gather(*(self._receive_one(message) for message in messages))

    async def _receive_one(self, message: Msg) -> None:
        try:
            await self._accept_message(message)
            await message.ack()  # should it be lost, the repeat finds the record
        except (BusError, NatsError, OSError) as error:
            _log.warning("a command will come again", subject=message.subject, error=str(error))
            await again_soon(message)
        except Exception:
            _log.exception("a command could not be handled", subject=message.subject)
            await self._refusals.tell(message, "", "the core failed on this command")
            with suppress(NatsError, OSError):
                await message.ack()

    async def _accept_message(self, message: Msg) -> None:
        kind, submitter = self._bus.subjects.parse_command(message.subject)
        if SCHEDULED in (message.headers or {}):
            await self._refusals.tell(message, submitter, "a schedule of somebody's own made this command")
            return
        metadata = message.metadata
        stored_ns = int(metadata.timestamp.timestamp() * 1e6) * 1000
        job = job_id_of(metadata.stream, metadata.sequence.stream, stored_ns)
        await self.accept(kind, submitter, message.data, job=job, created=stored_ns / 1e9)

    async def submit(self, kind: str, submitter: str, body: bytes) -> JobRecord:
        """Accept a command that came by the API."""
        now = self._clock()
        return await self.accept(kind, submitter, body, job=new_job_id(now), created=now)

    async def accept(
        self, kind: str, submitter: str, body: bytes, *, job: str, created: float, not_before: float = 0.0
    ) -> JobRecord:
        """The job's record: queued, or rejected with the reason. A repeat gets the record that there is.

        No worker gets the job before ``not_before`` (Unix seconds). One that deletes may have to wait for hours from
        now on, whenever it was sent: only now it is announced. Raises BusError: then nothing is promised, and the
        caller tries again.
        """
        record = JobRecord(
            id=job,
            kind=kind if kind in COMMANDS else UNKNOWN_KIND,
            submitter=submitter,
            state=State.QUEUED,
            created=created,
            not_before=not_before,
        )
        try:
            command = await self.checked(kind, submitter, body)
        except (Rejected, SourceError) as error:
            return await self._open(_rejected(record, body, error), Event.REJECTED)
        fields: dict[str, Any] = msgspec.to_builtins(command)
        record = msgspec.structs.replace(record, command=fields, source=command.source, request=command.request)
        if wait := rights.delay(kind, command, submitter, self._settings):
            begins = max(not_before, self._clock() + wait)
            record = msgspec.structs.replace(record, not_before=begins, delay=wait)
        record = msgspec.structs.replace(with_rules(record, command), place=self._first_place(record))
        return await self._open(record, Event.ANNOUNCED if wait else Event.ACCEPTED)

    def _first_place(self, record: JobRecord) -> TargetKey | None:
        """Of several targets: the first whose service is alive, else the first."""
        if not places.is_spread(record):
            return None
        named, now = places.places_of(record.command), self._clock()
        return next((place for place in named if self._store.roster.is_alive("target", place.target, now)), named[0])

    async def checked(self, kind: str, submitter: str, body: bytes) -> AnyCommand:
        """The command, if the core has nothing against it. Raises Rejected or SourceError."""
        if not TOKEN.match(submitter):
            raise InvalidCommand(f"{submitter!r} is no submitter's name", hint="use a-z, 0-9 and '-'")
        command = parse_command(kind, body)
        vetting.check_secrets(command)
        rights.check_deletion(kind, command, submitter, self._settings)
        try:
            vetting.check_services(command, self._store.roster.beats)
        except UnknownService:
            await self._store.roster.sync()
            vetting.check_services(command, self._store.roster.beats)
        vetting.check_plugin(kind, command, self._store.roster.replicas("source", command.source))
        return command

    async def _open(self, record: JobRecord, event: Event) -> JobRecord:
        if record.request and TOKEN.match(record.submitter):
            owner = await self._store.reserve(record.submitter, record.request, record.id)
            record = msgspec.structs.replace(record, id=owner)
        try:
            stored = await self._open_unless_twin(record, event)
        except WrongSequence:
            stored = await self._repeated(record)
        if stored.value.state is State.QUEUED:
            await self._twins.end_replaced(stored.value)
            if is_due(stored.value, self._clock()):
                await self._calls.call(stored.value)
        return stored.value

    async def _open_unless_twin(self, record: JobRecord, event: Event) -> StoredJob:
        if event is not Event.REJECTED:
            try:
                await self._twins.refuse_second(record)
            except Duplicate as error:
                record = msgspec.structs.replace(record, error=ErrorInfo.of(error))
                return await self._ledger.open(record, Event.REJECTED)
        return await self._ledger.open(record, event)

    async def _repeated(self, record: JobRecord) -> StoredJob:
        """The job that is there already; its first event may have been lost with a core."""
        stored = await self._store.records.fetch(record.id)
        if stored is None:
            raise WrongSequence(f"job {record.id} was removed meanwhile")
        await self._ledger.confirm(record.id)
        return stored


def _rejected(record: JobRecord, body: bytes, error: SnappyError) -> JobRecord:
    """What is kept of a command that is not valid: its names alone, for a field that does not belong there may hold
    a secret."""
    names = _names(body)
    return msgspec.structs.replace(
        record,
        command=names,
        source=names.get("source", ""),
        request=names.get("request"),
        error=ErrorInfo.of(error),
    )


def _names(body: bytes) -> dict[str, str]:
    try:
        given = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(given, dict):
        return {}
    patterns = {"source": TOKEN, "target": TOKEN, "key": TOKEN, "request": REQUEST}
    return {
        name: given[name]
        for name, pattern in patterns.items()
        if isinstance(given.get(name), str) and pattern.match(given[name])
    }
