"""The audit service: each event of the stream once, in order, in a log that only grows.

An entry is ``{"epoch", "sequence", "time", "subject", "event"}``: the sequence and the time (Unix seconds) are the
stream's, an epoch is one life of it, from 1. What the stream cannot show stands between as
``{"epoch", "sequence", "time", "alarm", ...}``: events that were gone before they were read, or a stream that was made
anew and counts from the beginning.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import __version__, log
from snappy.bus.connection import Bus
from snappy.bus.micro import MicroService
from snappy.bus.pulling import Puller, again_soon
from snappy.errors import StorageError
from snappy.jobs.answering import answerer
from snappy.jobs.auditlog import AuditLog
from snappy.jobs.messages import AuditQuery, Reply
from snappy.jobs.verbs import AUDIT_QUERY, AUDIT_VERIFY

_log = log.get(__name__)

SERVICE = "snappy-audit"
QUEUE = "audit"
BATCH = 256
EVERYBODY = "*"


class Stand(NamedTuple):
    """How far the log has followed the stream: the epoch, and the sequence of the newest event."""

    epoch: int
    sequence: int


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
        self._clock = clock
        self._stand = _stand(self.log)

    async def run(self) -> None:
        """Until it is cancelled. Sets ``ready`` when it answers."""
        service = await self._answer_users()
        puller = Puller(self.bus, self.bus.subjects.events_stream, self.bus.subjects.audit_durable, batch=BATCH)
        try:
            self.ready.set()
            async for batch in puller.batches():
                await self._keep(batch)
        finally:
            self.ready.clear()
            with suppress(NatsError, OSError):
                await asyncio.shield(service.stop())

    def close(self) -> None:
        self.log.close()

    async def _keep(self, messages: list[Msg]) -> None:
        """Append what is new, in one write, and only then acknowledge."""
        messages.sort(key=_sequence)
        try:
            entries, stand = await asyncio.to_thread(self._new_entries, messages)
            if entries:
                await asyncio.to_thread(self.log.append, entries)
        except StorageError as error:
            _log.error("the audit log cannot be written; its events wait in the stream", error=str(error))
            await asyncio.gather(*(again_soon(message) for message in messages))
            return
        self._stand = stand
        for message in messages:
            with suppress(NatsError, OSError):
                await message.ack()

    def _new_entries(self, messages: list[Msg]) -> tuple[list[dict[str, Any]], Stand]:
        """The entries of a batch in the stream's order, and where the log stands once they are in it."""
        epoch, last = self._stand
        entries: list[dict[str, Any]] = []
        for message in messages:
            sequence = _sequence(message)
            if sequence <= last and self._is_kept(message):
                continue
            if sequence <= last:
                entries.append(self._alarm(epoch + 1, sequence, "the events stream was made anew", remembered=last))
                epoch, last = epoch + 1, sequence - 1
            if sequence > last + 1:
                entries.append(self._alarm(epoch, sequence, "events are missing", first=last + 1, last=sequence - 1))
            entries.append(_entry(epoch, message))
            last = sequence
        return entries, Stand(epoch, last)

    def _is_kept(self, message: Msg) -> bool:
        """Whether this very event is in the log: it was delivered again."""
        event = _decoded(message.data)
        name = str(event.get("id", ""))
        return bool(self.log.newest(1, lambda entry: entry.get("event") == event, containing=name))

    def _alarm(self, epoch: int, sequence: int, alarm: str, **details: int) -> dict[str, Any]:
        _log.error("audit alarm", alarm=alarm, **details)
        return {"epoch": epoch, "sequence": sequence, "time": self._clock(), "alarm": alarm, **details}

    # ---- answers -------------------------------------------------------------------------------------------------

    async def _answer_users(self) -> MicroService:
        subjects = self.bus.subjects
        service = MicroService(self.bus, SERVICE, __version__, description="keeps every event, and shows them")
        await service.begin()
        for verb, handler in ((AUDIT_QUERY, self.query), (AUDIT_VERIFY, self.verify)):
            answer = answerer(self.bus, verb, handler, private=self._private, refuse=_refuse)
            await service.add(verb.name, subjects.api(verb.noun, verb.verb, "*"), answer, queue=QUEUE)
        return service

    async def query(self, caller: str, request: msgspec.Struct) -> Reply:
        """The newest first."""
        assert isinstance(request, AuditQuery)
        own = self._private and not self._readers & {caller, EVERYBODY}
        submitter = caller if own else request.submitter

        def matches(entry: Mapping[str, Any]) -> bool:
            event = entry.get("event", {})
            return (not submitter or event.get("submitter") == submitter) and (
                not request.job or event.get("subject") == request.job
            )

        found = await asyncio.to_thread(self.log.newest, request.limit + 1, matches, containing=request.job)
        entries = self._that_fit([{"entry": entry.doc_id, **entry} for entry in found[: request.limit]])
        return Reply(entries=entries, more=len(entries) < len(found))

    async def verify(self, caller: str, request: msgspec.Struct) -> Reply:
        return Reply(audit=await asyncio.to_thread(self.log.verify))

    def _that_fit(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        room, fitting = self.bus.nc.max_payload - (64 << 10), []
        for entry in entries:
            room -= len(msgspec.json.encode(entry)) + 1
            if room < 0:
                break
            fitting.append(entry)
        return fitting


async def _refuse(message: Msg, caller: str, reason: str) -> None:
    _log.warning("a message was refused", subject=message.subject, reply=message.reply, reason=reason)


def _stand(audit: AuditLog) -> Stand:
    """An alarm stands before the event that raised it, whose sequence it names."""
    for entry in audit.newest(1):
        return Stand(entry["epoch"], entry["sequence"] - ("alarm" in entry))
    return Stand(1, 0)


def _sequence(message: Msg) -> int:
    sequence: int = message.metadata.sequence.stream
    return sequence


def _entry(epoch: int, message: Msg) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "sequence": _sequence(message),
        "time": message.metadata.timestamp.timestamp(),
        "subject": message.subject,
        "event": _decoded(message.data),
    }


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"undecodable": body.decode(errors="replace")}
