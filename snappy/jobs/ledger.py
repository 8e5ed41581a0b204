"""The one pen of job state: a transition is a compare-and-set of the record, then its event.

Each event carries its number in the job, and is published with the job's last event's sequence expected. So a repeat
is refused however late it comes, and a core that finds a record whose event is missing publishes it.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.decoding import from_json
from snappy.errors import BusError, WrongSequence
from snappy.jobs.bucket import EXPECTED, NOT_FOUND
from snappy.jobs.messages import CloudEvent, JobRecord
from snappy.jobs.states import FINAL, Event, after
from snappy.jobs.store import JobStore, StoredJob

EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
REMEMBERED = 10_000

_log = log.get(__name__)


class Published(NamedTuple):
    """A job's newest event in the stream: its number in the job, its sequence in the stream."""

    number: int
    sequence: int


class Ledger:
    """``clock`` gives Unix seconds. Methods raise WrongSequence when another core was faster: read again."""

    def __init__(self, bus: Bus, store: JobStore, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock
        self._published: dict[str, Published] = {}
        self.unconfirmed: set[str] = set()
        """Jobs whose newest event may be missing from the stream."""

    async def open(self, record: JobRecord, event: Event) -> StoredJob:
        """Keep a job's first record, and tell of it. Raises WrongSequence if there is one."""
        first = msgspec.structs.replace(
            record, state=after(None, event), event=event, event_number=1, event_after=0, updated=self._clock()
        )
        stored = await self._store.records.write(first.id, first, 0)
        await self._tell(first)
        return stored

    async def transition(self, stored: StoredJob, event: Event, **changes: Any) -> StoredJob:
        """What follows when ``event`` happens to a job, with ``changes`` of other fields.

        The record is the truth once it is written: an event that cannot be published now is published later.
        """
        record = stored.value
        state = after(record.state, event)
        before = await self._sequence(record)
        changes |= {"event": event, "event_number": record.event_number + 1, "event_after": before}
        changed = msgspec.structs.replace(record, state=state, updated=self._clock(), **changes)
        kept = await self._store.records.write(record.id, changed, stored.revision)
        await self._tell(changed)
        return kept

    async def note(self, stored: StoredJob, **changes: Any) -> StoredJob:
        """Change fields of which no event tells (a checkpoint, a wish to cancel)."""
        record = msgspec.structs.replace(stored.value, updated=self._clock(), **changes)
        return await self._store.records.write(record.id, record, stored.revision)

    async def confirm(self, job: str) -> None:
        """See to it that the newest event of a job is in the stream."""
        stored = await self._store.records.fetch(job)
        if stored is not None:
            await self._sequence(stored.value)
        self.unconfirmed.discard(job)

    def start_over(self) -> None:
        """Look in the stream again for where events stand: it was made anew."""
        self._published.clear()

    async def _tell(self, record: JobRecord) -> None:
        try:
            await self._publish(record, record.event_after)
        except BusError as error:
            _log.warning("an event is late", job=record.id, event_name=record.event, error=str(error))
            self.unconfirmed.add(record.id)

    async def _sequence(self, record: JobRecord) -> int:
        """Where the record's event stands in the stream; it is published if it does not."""
        known = self._published.get(record.id)
        if known is None or known.number < record.event_number:
            known = await newest_event(self._bus, record.id)
        if known is None or known.number < record.event_number:
            known = await self._publish(record, known.sequence if known else 0)
        return known.sequence

    async def _publish(self, record: JobRecord, last: int) -> Published:
        subjects = self._bus.subjects
        headers = {EXPECTED: str(last), EXPECTED_SUBJECT: subjects.events_of(record.id)}
        event = cloud_event(record, subjects.prefix)
        subject = subjects.event(record.kind, record.event, record.id)
        try:
            ack = await self._bus.store(subject, msgspec.json.encode(event), message_id=event.id, headers=headers)
        except WrongSequence:
            found = await newest_event(self._bus, record.id)
            if found is None or found.number < record.event_number:
                raise
            return found
        return self._remember(record, Published(record.event_number, ack.seq))

    def _remember(self, record: JobRecord, published: Published) -> Published:
        if record.state in FINAL:
            self._published.pop(record.id, None)
        else:
            self._published[record.id] = published
        if len(self._published) > REMEMBERED:
            self._published.pop(next(iter(self._published)))
        return published


class _Identified(msgspec.Struct):
    id: str


async def newest_event(bus: Bus, subject: str) -> Published | None:
    """The last event in the stream of a job, or of what else counts its events, whatever its kind."""
    subjects = bus.subjects
    body = json.dumps({"last_by_subj": subjects.events_of(subject)}).encode()
    call = f"$JS.API.STREAM.MSG.GET.{subjects.events_stream}"
    answer = json.loads(await bus.request(call, body, timeout=5.0))
    if answer.get("error", {}).get("err_code") == NOT_FOUND:
        return None
    if "error" in answer:
        raise BusError(f"the events cannot be read: {answer['error'].get('description', '')}")
    event = from_json(base64.b64decode(answer["message"]["data"]), _Identified)
    return Published(int(event.id.rpartition("/")[2]), answer["message"]["seq"])


def cloud_event(record: JobRecord, prefix: str) -> CloudEvent:
    """The event that tells of a record's newest transition."""
    return CloudEvent(
        id=f"{record.id}/{record.event_number}",
        source=f"/{prefix}/core",
        type=f"io.snappy.{record.kind}.{record.event}",
        subject=record.id,
        time=timestamp(record.updated),
        data=record,
        request=record.request,
        submitter=record.submitter,
    )


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
