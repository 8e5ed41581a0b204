"""The typed client: everything that a command line, a dashboard or a program of one's own asks of Snappy.

Each method is one row of :mod:`snappy.jobs.verbs`; what it raises is what the service answered, as one of
:mod:`snappy.errors`, or BusUnavailable.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from time import monotonic
from typing import Any, TypeVar

import msgspec
from nats.aio.msg import Msg

from snappy.bus.connection import Bus
from snappy.decoding import converted, from_json
from snappy.errors import BusUnavailable, InternalError
from snappy.frontend.hearing import each_heard, heard
from snappy.frontend.schedules import Schedules
from snappy.frontend.subscriptions import Subscriptions
from snappy.jobs import verbs
from snappy.jobs.api_words import (
    BlobKind,
    BlobRequest,
    CancelRequest,
    GetRequest,
    ListRequest,
    LocateRequest,
    Place,
    Reply,
    RepositoriesRequest,
    ServicesRequest,
    SnapshotsRequest,
    SubmitRequest,
    TreesRequest,
)
from snappy.jobs.audit_words import AuditExportRequest, AuditFilter, AuditQuery, AuditState, AuditVerifyRequest
from snappy.jobs.command import Command
from snappy.jobs.messages import (
    Beat,
    CloudEvent,
    JobRecord,
    Progress,
    read_answer,
)
from snappy.jobs.protection_words import Status, StatusRequest
from snappy.jobs.repository_words import RepositoryState
from snappy.jobs.states import FINAL, State
from snappy.jobs.verbs import Verb

SUBMIT_TRIES = 3
RETRY_SECONDS = 1.0
OUTAGE_SECONDS = 120.0
SOURCE_SECONDS = 60.0
"""The source service opens the repository, and reads all snapshots or the index, before it answers."""
AUDIT_SECONDS = 600.0
"""A long log is read for as long as it takes."""

Beats = list[Beat]
Conditions = list[RepositoryState]
Documents = list[dict[str, Any]]
Places = list[Place | None]
Trees = list[bytes]
Records = list[JobRecord]
States = list[State]
Value = TypeVar("Value")


class Client:
    """Speaks as the bus's user. ``timeout`` is for one answer, in seconds. Schedules: ``client.schedules``; events
    that wait until they are read: ``client.subscriptions``."""

    def __init__(self, bus: Bus, *, timeout: float = 10.0) -> None:
        self.bus = bus
        self.timeout = timeout
        self.schedules = Schedules(self._call)
        self.subscriptions = Subscriptions(bus, self._call)

    # ---- jobs ----------------------------------------------------------------------------------------------------

    async def submit(self, kind: str, command: Command | Mapping[str, Any]) -> JobRecord:
        """The job's record: queued, or rejected with its reason. It is kept once this returns.

        A command without ``request`` gets one, so that asking again after a lost answer makes no second job.
        """
        fields = msgspec.to_builtins(command) if isinstance(command, Command) else dict(command)
        fields["request"] = fields.get("request") or uuid.uuid4().hex
        request = SubmitRequest(kind=kind, command=msgspec.Raw(msgspec.json.encode(fields)))
        for _ in range(SUBMIT_TRIES - 1):
            with suppress(BusUnavailable):
                return _present((await self._call(verbs.JOB_SUBMIT, request)).job)
        return _present((await self._call(verbs.JOB_SUBMIT, request)).job)

    async def get(self, job: str = "", *, request: str = "") -> JobRecord:
        """By the job's id, or by one's own request id. Raises JobNotFound."""
        return _present((await self._call(verbs.JOB_GET, GetRequest(job=job, request=request))).job)

    async def list(
        self, *, states: States | None = None, kind: str = "", source: str = "", limit: int = 100
    ) -> Records:
        """One's own jobs, the newest first; fewer than ``limit`` if they do not fit into one message."""
        request = ListRequest(states=states or [], kind=kind, source=source, limit=limit)
        return _present((await self._call(verbs.JOB_LIST, request)).jobs)

    async def cancel(self, job: str) -> JobRecord:
        """Ask for a job's end. A running one ends when its worker has stopped: see :meth:`wait`. Raises JobNotFound,
        or JobError if it is over."""
        return _present((await self._call(verbs.JOB_CANCEL, CancelRequest(job=job))).job)

    async def wait(self, job: str, *, poll: float = 5.0, patience: float = OUTAGE_SECONDS) -> JobRecord:
        """The record of a job once it is over. Events are heard at once; the record is looked at every ``poll``
        seconds too, since an event is told at most once to who is not a durable consumer. An outage of the core or of
        NATS is waited out for ``patience`` seconds: the job does not end by it."""
        async with heard(self.bus, self.bus.subjects.events_of(job)) as told:
            while (record := await self._outlasting(job, patience)).state not in FINAL:
                with suppress(TimeoutError):
                    async with asyncio.timeout(poll):
                        await told.get()
            return record

    async def _outlasting(self, job: str, patience: float) -> JobRecord:
        deadline = monotonic() + patience
        while True:
            try:
                return await self.get(job)
            except BusUnavailable:
                if monotonic() >= deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def events(self, job: str = "", *, request: str = "") -> AsyncIterator[CloudEvent]:
        """The events of a job, by its id or by one's own request id, from now until it is over."""
        subjects = self.bus.subjects
        async with heard(self.bus, subjects.events_of(job or "*")) as told:
            while True:
                event = _job_event(await told.get())
                if event is None or (request and (event.request, event.submitter) != (request, self.bus.user)):
                    continue
                yield event
                if event.data.state in FINAL:
                    return

    def live(
        self, kind: str = "*", event: str = "*", job: str = "*"
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """Events of a kind, ``*`` for any, from the moment the context is entered, for ever. None is told again: see
        :attr:`subscriptions` for those that wait until they are read."""
        return each_heard(self.bus, self.bus.subjects.event(kind, event, job))

    async def progress(self, job: str) -> AsyncIterator[Progress]:
        """How far a job is, some times a second while it runs, for ever."""
        async with heard(self.bus, self.bus.subjects.progress(job)) as told:
            while True:
                yield from_json((await told.get()).data, Progress)

    # ---- services, snapshots, audit ------------------------------------------------------------------------------

    async def repositories(self) -> Conditions:
        """What checks found of the repositories that were ever checked."""
        return _present((await self._call(verbs.REPOSITORIES_LIST, RepositoriesRequest())).repositories)

    async def status(self) -> Status:
        """What is protected, how fresh and how proven it is, and what is wrong."""
        status = _present((reply := await self._call(verbs.STATUS_GET, StatusRequest())).status)
        while reply.more:
            reply = await self._call(verbs.STATUS_GET, StatusRequest(after=status.sources[-1].known.id))
            more = _present(reply.status).sources
            status = msgspec.structs.replace(status, sources=[*status.sources, *more])
        return status

    async def services(self, role: str = "", service: str = "") -> Beats:
        """The replicas that were seen, dead ones too: look at ``seen``. ``role`` is source, target or both. Of the
        plug-ins the names; with the schemas of their options for one ``service`` alone."""
        request = converted({"role": role, "service": service}, ServicesRequest)
        found = _present((reply := await self._call(verbs.SERVICES_LIST, request)).services)
        while reply.more and found:
            last = found[-1]
            after = f"{last.role}.{last.service}.{last.replica}"
            reply = await self._call(verbs.SERVICES_LIST, msgspec.structs.replace(request, after=after))
            found += _present(reply.services)
        return found

    async def snapshots(self, service: str, target: str, key: str = "default") -> Documents:
        """All snapshots in the repository at ``target``, as the source service that holds its key sees them, the
        oldest first. Raises SnapshotNotFound if one is removed meanwhile."""
        found: Documents = []
        more = True
        while more:
            before = found[0]["id"] if found else ""
            request = SnapshotsRequest(target=target, key=key, before=before)
            reply = await self._ask_source(service, verbs.SNAPSHOTS_LIST, request)
            found = _present(reply.snapshots) + found
            more = reply.more
        return found

    async def locate(self, service: str, target: str, key: str, kind: BlobKind, blobs: Sequence[str]) -> Places:
        """Where blobs, by their ids, lie in the repository at ``target``; at most ``MOST_LOCATED`` at a time."""
        request = LocateRequest(target=target, key=key, kind=kind, blobs=list(blobs))
        return _present((await self._ask_source(service, verbs.BLOBS_LOCATE, request)).places)

    async def blob(self, service: str, target: str, key: str, kind: BlobKind, blob: str) -> bytes:
        """The plain bytes of a blob."""
        data = bytearray()
        while True:
            request = BlobRequest(target=target, key=key, kind=kind, blob=blob, offset=len(data))
            piece = _present((await self._ask_source(service, verbs.BLOBS_GET, request)).piece)
            data += piece.data
            if len(data) >= piece.size:
                return bytes(data)
            if not piece.data:
                raise InternalError("the service's answer holds nothing of what is left of a blob")

    async def trees(self, service: str, target: str, key: str, trees: Sequence[str]) -> Trees:
        """The plain bytes of trees, of as many of the first as one message holds: of none if the very first is too
        large; at most ``MOST_TREES`` at a time."""
        request = TreesRequest(target=target, key=key, trees=list(trees))
        return _present((await self._ask_source(service, verbs.TREES_GET, request)).trees)

    async def audit(
        self,
        *,
        job: str = "",
        submitter: str = "",
        kind: str = "",
        since: float = 0.0,
        until: float = 0.0,
        limit: int = 100,
    ) -> Documents:
        """Entries of the audit log, the newest first. ``since`` and ``until`` (0: no end) are Unix seconds."""
        fields = {"job": job, "submitter": submitter, "kind": kind, "since": since, "until": until, "limit": limit}
        return _present((await self._call(verbs.AUDIT_QUERY, converted(fields, AuditQuery))).entries)

    async def audit_export(self, wanted: AuditFilter | None = None) -> AsyncIterator[str]:
        """The audit log's entries, the oldest first, as lines that :func:`snappy.jobs.extract.check` checks."""
        fields = msgspec.structs.asdict(wanted or AuditFilter())
        following = 1
        while following:
            request = AuditExportRequest(**fields, first=following)
            extract = _present((await self._call(verbs.AUDIT_EXPORT, request, timeout=AUDIT_SECONDS)).extract)
            for line in extract.lines:
                yield line
            following = extract.following

    async def audit_verify(self) -> AuditState:
        """Have the whole log's chain checked."""
        return _present((await self._call(verbs.AUDIT_VERIFY, AuditVerifyRequest(), timeout=AUDIT_SECONDS)).audit)

    # ---- how it is asked -----------------------------------------------------------------------------------------

    async def _call(self, verb: Verb, request: msgspec.Struct, *, timeout: float | None = None) -> Reply:
        return await self._ask(self.bus.subjects.api(verb.noun, verb.verb, self.bus.user), request, timeout)

    async def _ask_source(self, service: str, verb: Verb, request: msgspec.Struct) -> Reply:
        subject = self.bus.subjects.ask(service, verb.noun, verb.verb, self.bus.user)
        return await self._ask(subject, request, SOURCE_SECONDS)

    async def _ask(self, subject: str, request: msgspec.Struct, timeout: float | None = None) -> Reply:
        body = await self.bus.request(subject, msgspec.json.encode(request), timeout=timeout or self.timeout)
        reply = read_answer(body, Reply)
        if reply.error is not None:
            raise reply.error.to_error()
        return reply


def _present(value: Value | None) -> Value:
    if value is None:
        raise InternalError("the service's answer does not hold what was asked for")
    return value


def _job_event(message: Msg) -> CloudEvent | None:
    """None for events that are of no job."""
    try:
        return from_json(message.data, CloudEvent)
    except msgspec.ValidationError:
        return None
