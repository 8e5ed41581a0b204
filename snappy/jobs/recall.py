"""A NATS server that came back with less than the audit remembers is found, said, and given what it lost.

The audit knows the newest event's place in its stream, and how often that stream began anew (the epoch). A core asks
at its start and after each outage; the bucket notes the epoch up to which state is known to be whole. Where the note,
the event or its job's record is not as remembered, unfinished jobs, schedules and what is known of sources are put back
from the audit.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from snappy import config, log
from snappy.bus.connection import Bus
from snappy.decoding import converted, from_json
from snappy.errors import BusError, InternalError, SnappyError, WrongSequence
from snappy.jobs.api_words import Reply
from snappy.jobs.audit_words import Loss, LossEvent, Memory, RecallRequest
from snappy.jobs.bucket import Bucket
from snappy.jobs.ledger import Ledger, timestamp
from snappy.jobs.messages import JobRecord, read_answer
from snappy.jobs.protection_words import Protection
from snappy.jobs.rules import twin_key
from snappy.jobs.schedule_words import Schedule
from snappy.jobs.schedules.book import ScheduleBook
from snappy.jobs.states import FINAL
from snappy.jobs.store import JobStore
from snappy.jobs.verbs import AUDIT_RECALL

_log = log.get(__name__)

NOTE = "recalled"
LOOK_SECONDS = 2.0
ANSWER_SECONDS = 300.0
"""The audit reads its whole log."""
ASKED_FOR = 1000
JOB, SCHEDULE, PROTECTION = "job.", "schedule.", "protection."


class _PutBack(NamedTuple):
    jobs: int = 0
    schedules: int = 0


class Recall:
    """``afterwards`` is awaited when jobs were put back, ``restore`` for what is remembered of each source; ``clock``
    gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        ledger: Ledger,
        book: ScheduleBook,
        settings: config.Core,
        afterwards: Callable[[], Awaitable[None]],
        restore: Callable[[Protection], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._book = book
        self._settings = settings
        self._afterwards = afterwards
        self._restore_source = restore
        self._clock = clock
        self._bucket = Bucket(bus, bus.subjects.jobs_bucket)

    async def run(self, interval: float = LOOK_SECONDS) -> None:
        """For ever: look once after each time that the connection came up. Without an audit there is no memory."""
        looked = -1
        while True:
            connection = int(self._bus.nc.stats["reconnects"])
            try:
                if connection != looked:
                    await self.look()
                    looked = connection
            except SnappyError as error:
                _log.debug("the audit cannot be asked yet", error=error.message)
            except Exception:
                _log.exception("the core failed in recalling jobs")
            await asyncio.sleep(interval)

    async def look(self) -> Loss | None:
        """What was found missing, once it is put back. Raises BusError when somebody does not answer."""
        memory = await self._ask(RecallRequest())
        noted = await self._bucket.get(NOTE)
        found = await self._last_sequence()
        began_anew = noted is not None and noted.value != b"%d" % memory.epoch  # which the audit has said
        reason = await self._missing_event(memory, found) or await self._missing_record(memory)
        if noted and not began_anew and not reason:
            return None
        back = await self._put_back(everything=began_anew or bool(reason))
        loss = None
        if reason or any(back):
            what = reason or "records were missing"
            loss = Loss(reason=what, remembered=memory.sequence, found=found, jobs=back.jobs, schedules=back.schedules)
            await self._tell(loss)
        await self._bucket.put(NOTE, b"%d" % memory.epoch)
        return loss

    # ---- what is missing -----------------------------------------------------------------------------------------

    async def _last_sequence(self) -> int:
        answer = await self._jetstream("STREAM.INFO", {})
        last: int = answer["state"]["last_seq"]
        return last

    async def _missing_event(self, memory: Memory, last: int) -> str:
        """The oldest events leave when the stream is full: only what is newer than remembered proves nothing."""
        if last < memory.sequence:
            return "the stream of events is shorter than the audit remembers"
        try:
            answer = await self._jetstream("STREAM.MSG.GET", {"seq": memory.sequence}) if memory.sequence else {}
        except BusError:
            return ""
        body = base64.b64decode(answer["message"]["data"]) if answer else b""
        other = body and from_json(body).get("id") != memory.event
        return "the stream of events is another than the audit remembers" if other else ""

    async def _missing_record(self, memory: Memory) -> str:
        """The newest event's job must be kept as that event says, or be newer."""
        if not memory.record:
            return ""
        record = converted(memory.record, JobRecord)
        kept = await self._store.records.fetch(record.id)
        if kept is None and (record.state not in FINAL or not self._is_old(record)):
            return "a job's record is missing"
        older = kept is not None and kept.value.event_number < record.event_number
        return "a job's record is older than the audit remembers" if older else ""

    def _is_old(self, record: JobRecord) -> bool:
        return record.updated < self._clock() - self._settings.keep_jobs_days * 86400

    # ---- what is put back ----------------------------------------------------------------------------------------

    async def _put_back(self, *, everything: bool) -> _PutBack:
        """Harmless when repeated, or done by several cores. Unless ``everything`` was lost, old records stay away:
        their end may be what the audit never saw."""
        if everything:
            self._ledger.start_over()
            await self._store.start_over()
        known = [stored.value.id for stored in self._store.records.unfinished()]
        jobs = schedules = 0
        for place in range(0, max(1, len(known)), ASKED_FOR):
            back = await self._put_back_parts(known[place : place + ASKED_FOR], everything)
            jobs, schedules = jobs + back.jobs, schedules + back.schedules
        if jobs:
            await self._afterwards()
        return _PutBack(jobs, schedules)

    async def _put_back_parts(self, jobs: list[str], everything: bool) -> _PutBack:
        done: list[str] = []
        memory = Memory(epoch=0, more=True)
        while memory.more:
            after = max(memory.kept, default="")
            memory = await self._ask(RecallRequest(records=True, jobs=jobs, after=after))
            if not memory.kept:
                break
            done += [key for key, value in memory.kept.items() if await self._restore(key, value, everything)]
        return _PutBack(sum(key.startswith(JOB) for key in done), sum(key.startswith(SCHEDULE) for key in done))

    async def _restore(self, key: str, value: dict[str, Any], everything: bool) -> bool:
        """Whether it was missing."""
        try:
            if key.startswith(SCHEDULE):
                return await self._restore_schedule(converted(value, Schedule))
            if key.startswith(PROTECTION):
                await self._restore_source(converted(value, Protection))
                return True
            record = converted(value, JobRecord)
            return (everything or not self._is_old(record)) and await self._restore_job(record)
        except WrongSequence:
            return False  # another core was faster
        except msgspec.ValidationError as error:
            _log.error("what the audit remembers cannot be read", key=key, error=str(error))
            return False

    async def _restore_schedule(self, schedule: Schedule) -> bool:
        """JetStream gets its message when the core next looks at its schedules."""
        if await self._book.get(schedule.name) is not None:
            return False
        await self._book.write(schedule, 0)
        return True

    async def _restore_job(self, record: JobRecord) -> bool:
        kept = await self._store.records.fetch(record.id)
        if kept is not None and kept.value.event_number >= record.event_number:
            return False
        if kept is None and record.state in FINAL:
            return False
        await self._store.records.write(record.id, record, kept.revision if kept else 0)
        self._ledger.unconfirmed.add(record.id)
        if record.request:
            await self._store.reserve(record.submitter, record.request, record.id)
        if record.command.get("duplicates") == "skip" and record.state not in FINAL:
            await self._store.reserve_twin(twin_key(record), record.id)
        return True

    # ---- how it is asked and told --------------------------------------------------------------------------------

    async def _tell(self, loss: Loss) -> None:
        _log.error("the NATS server came back with less than it had", **msgspec.structs.asdict(loss))
        subjects, event_id = self._bus.subjects, str(uuid.uuid4())
        event = LossEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type="io.snappy.server.lost-state",
            subject=subjects.events_stream,
            time=timestamp(self._clock()),
            data=loss,
        )
        await self._bus.store(subjects.event("server", "lost-state", event_id), msgspec.json.encode(event))

    async def _ask(self, request: RecallRequest) -> Memory:
        verb, subjects = AUDIT_RECALL, self._bus.subjects
        subject = subjects.api(verb.noun, verb.verb, self._bus.user)
        answer = await self._bus.request(subject, msgspec.json.encode(request), timeout=ANSWER_SECONDS)
        reply = read_answer(answer, Reply)
        if reply.error is not None:
            raise reply.error.to_error()
        if reply.memory is None:
            raise InternalError("the audit's answer does not hold what was asked for")
        return reply.memory

    async def _jetstream(self, call: str, body: dict[str, int]) -> dict[str, Any]:
        subject = f"$JS.API.{call}.{self._bus.subjects.events_stream}"
        answer: dict[str, Any] = json.loads(await self._bus.request(subject, json.dumps(body).encode(), timeout=5.0))
        if "error" in answer:
            raise BusError(f"the events cannot be read: {answer['error'].get('description', '')}")
        return answer
