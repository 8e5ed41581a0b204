"""The audit service: each event of the stream once, in order, in a log that only grows.

An entry is ``{"epoch", "sequence", "time", "subject", "event"}``: the sequence and the time (Unix seconds) are the
stream's, an epoch is one life of it, from 1; ``"late"`` marks an event after its turn. What the stream cannot show
stands between as ``{"epoch", "sequence", "time", "alarm", ...}``: events that were gone before they were read, or a
stream that was made anew and counts from the beginning.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import __version__, log
from snappy.bus.connection import Bus
from snappy.bus.micro import MicroService
from snappy.bus.pulling import Puller, in_progress
from snappy.bus.streams import CORE_ACK_SECONDS
from snappy.errors import Denied, StorageError
from snappy.jobs.answering import answerer
from snappy.jobs.api_words import Reply
from snappy.jobs.audit_words import AuditExportRequest, AuditFilter, AuditQuery, Memory, RecallRequest
from snappy.jobs.auditlog import AuditLog
from snappy.jobs.following import Delivered, Follower, Stand
from snappy.jobs.kinds import read
from snappy.jobs.ledger import timestamp
from snappy.jobs.memory import LOST, recollected
from snappy.jobs.verbs import AUDIT_EXPORT, AUDIT_QUERY, AUDIT_RECALL, AUDIT_VERIFY

_log = log.get(__name__)

SERVICE = "snappy-audit"
QUEUE = "audit"
BATCH = 256
RETRY_SECONDS = 1.0
EVERYBODY = "*"
ENVELOPE_BYTES = 128 << 10
CORE = "core"
"""The core's name on the bus; with another one, it must be among the readers."""
ALARMS = 1000
"""More are not counted."""


class AuditService:
    """One audit process; ``path`` is the log's folder.

    With ``private_inboxes``, a caller reads the entries of its own jobs; ``readers`` (``*``: everybody) read all.
    Raises UsageError if another process writes that log, Corrupt if it does not hold together.
    """

    def __init__(
        self,
        bus: Bus,
        path: str | os.PathLike[str],
        *,
        private_inboxes: bool = True,
        readers: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bus = bus
        self.log = AuditLog(path)
        self.ready = asyncio.Event()
        self._private = private_inboxes
        self._readers = readers
        self._unacknowledged: dict[int, Msg] = {}
        self._follower = Follower(_stand(self.log), self._is_kept, clock)

    async def run(self) -> None:
        """Until it is cancelled. Sets ``ready`` when it answers."""
        service = await self._answer_users()
        puller = Puller(self.bus, self.bus.subjects.events_stream, self.bus.subjects.audit_durable, batch=BATCH)
        try:
            self.ready.set()
            async for batch in puller.batches():
                async with in_progress(batch, CORE_ACK_SECONDS / 3):
                    await self._keep(batch)
        finally:
            self.ready.clear()
            with suppress(NatsError, OSError):
                await asyncio.shield(service.stop())

    def close(self) -> None:
        self.log.close()

    async def _keep(self, messages: list[Msg]) -> None:
        """Write what is new, and only then acknowledge. While the log cannot be written nothing more is read."""
        self._unacknowledged |= {_sequence(message): message for message in messages}
        entries, done = await asyncio.to_thread(self._follower.take, [_delivered(message) for message in messages])
        if entries:
            await self._append(entries)
        for sequence in done:
            with suppress(NatsError, OSError):
                await self._unacknowledged.pop(sequence).ack()

    async def _append(self, entries: list[dict[str, Any]]) -> None:
        while True:
            try:
                await asyncio.to_thread(self.log.append, entries)
                return
            except StorageError as error:
                _log.error("the audit log cannot be written; the events wait", error=error.message)
            await asyncio.sleep(RETRY_SECONDS)

    def _is_kept(self, event: Delivered) -> bool:
        """Whether this very event is in the log; the newest entries are looked at first."""
        name = str(event.event.get("id", ""))
        return bool(self.log.newest(1, lambda entry: entry.get("event") == event.event, containing=name))

    # ---- answers -------------------------------------------------------------------------------------------------

    async def _answer_users(self) -> MicroService:
        subjects = self.bus.subjects
        service = MicroService(self.bus, SERVICE, __version__, description="keeps every event, and shows them")
        await service.begin()
        reading = ((AUDIT_QUERY, self.query), (AUDIT_VERIFY, self.verify), (AUDIT_EXPORT, self.export))
        for verb, handler in (*reading, (AUDIT_RECALL, self.recall)):
            answer = answerer(self.bus, verb, handler, private=self._private, refuse=_refuse)
            await service.add(verb.name, subjects.api(verb.noun, verb.verb, "*"), answer, queue=QUEUE)
        return service

    async def query(self, caller: str, request: msgspec.Struct) -> Reply:
        """The newest first."""
        assert isinstance(request, AuditQuery)
        matches = self._matcher(caller, request)
        found = await asyncio.to_thread(self.log.newest, request.limit + 1, matches, containing=request.job)
        entries = self._that_fit([{"entry": entry.doc_id, **entry} for entry in found[: request.limit]])
        return Reply(entries=entries, more=len(entries) < len(found))

    async def export(self, caller: str, request: msgspec.Struct) -> Reply:
        """The oldest first, a part at a time."""
        assert isinstance(request, AuditExportRequest)
        matches, room = self._matcher(caller, request), self.bus.nc.max_payload - ENVELOPE_BYTES
        return Reply(extract=await asyncio.to_thread(self.log.export, request.first, matches, room=room))

    async def verify(self, caller: str, request: msgspec.Struct) -> Reply:
        state = await asyncio.to_thread(self.log.verify)
        alarms = await asyncio.to_thread(self.log.newest, ALARMS, _is_alarm)
        newest = _sentence(alarms[0]) if alarms else ""
        return Reply(audit=msgspec.structs.replace(state, alarms=len(alarms), alarm=newest))

    async def recall(self, caller: str, request: msgspec.Struct) -> Reply:
        """What the log remembers, for a core whose server came back with less. Raises Denied."""
        assert isinstance(request, RecallRequest)
        if self._private and caller != CORE and not self._readers & {caller, EVERYBODY}:
            raise Denied("only the core recalls jobs")
        memory = _memory(self.log)
        if not request.records:
            return Reply(memory=memory)
        found = await asyncio.to_thread(recollected, self.log, frozenset(request.jobs))
        rest = {key: found[key] for key in sorted(found) if key > request.after}
        kept = dict(list(rest.items())[: len(self._that_fit(list(rest.values())))])
        return Reply(memory=msgspec.structs.replace(memory, kept=kept, more=len(kept) < len(rest)))

    def _matcher(self, caller: str, wanted: AuditFilter) -> Callable[[Mapping[str, Any]], bool]:
        """A caller who is no reader sees its own jobs' entries."""
        own = self._private and not self._readers & {caller, EVERYBODY}
        return matcher(msgspec.structs.replace(wanted, submitter=caller) if own else wanted)

    def _that_fit(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        room, fitting = self.bus.nc.max_payload - ENVELOPE_BYTES, []
        for entry in entries:
            room -= len(msgspec.json.encode(entry)) + 1
            if room < 0:
                break
            fitting.append(entry)
        return fitting


def matcher(wanted: AuditFilter) -> Callable[[Mapping[str, Any]], bool]:
    """Whether an entry is one of those."""

    def matches(entry: Mapping[str, Any]) -> bool:
        event = entry.get("event", {})
        return (
            (not wanted.submitter or event.get("submitter") == wanted.submitter)
            and (not wanted.job or event.get("subject") == wanted.job)
            and (not wanted.kind or _kind(entry) == wanted.kind)
            and entry.get("time", 0.0) >= wanted.since
            and (not wanted.until or entry.get("time", 0.0) < wanted.until)
        )

    return matches


def _kind(entry: Mapping[str, Any]) -> str:
    """An event's type is ``io.snappy.<kind>.<event>``."""
    if "alarm" in entry:
        return "alarm"
    return ".".join(str(entry.get("event", {}).get("type", "")).split(".")[2:-1])


async def _refuse(message: Msg, caller: str, reason: str) -> None:
    _log.warning("a message was refused", subject=message.subject, reply=message.reply, reason=reason)


def _stand(audit: AuditLog) -> Stand:
    """Where the log's newest event stands. Alarms, and events that came late, stand beside the count."""
    for entry in audit.newest(1, lambda entry: "event" in entry and "late" not in entry):
        return Stand(entry["epoch"], entry["sequence"], entry["time"])
    return Stand()


def _memory(audit: AuditLog) -> Memory:
    for entry in audit.newest(1, lambda entry: "event" in entry and "late" not in entry):
        event = entry["event"]
        data = event.get("data") or {}
        record = data if "event_number" in data else {}
        return Memory(epoch=entry["epoch"], sequence=entry["sequence"], event=str(event.get("id", "")), record=record)
    return Memory(epoch=1)


def _is_alarm(entry: Mapping[str, Any]) -> bool:
    return "alarm" in entry or entry.get("event", {}).get("type") == LOST


def _sentence(entry: Mapping[str, Any]) -> str:
    said = entry.get("alarm") or entry["event"]["data"]["reason"]
    return f"{said} ({timestamp(entry['time'])})"


def _sequence(message: Msg) -> int:
    sequence: int = message.metadata.sequence.stream
    return sequence


def _delivered(message: Msg) -> Delivered:
    metadata = message.metadata
    return Delivered(
        sequence=metadata.sequence.stream,
        time=metadata.timestamp.timestamp(),
        subject=message.subject,
        event=_decoded(message.data),
        first=metadata.sequence.consumer == 1,
    )


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return read(body, dict[str, Any])
    except msgspec.DecodeError:
        return {"undecodable": body.decode(errors="replace")}
