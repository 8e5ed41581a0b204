"""What the core answers to users: submit, get, list, cancel, and which services there are.

A caller sees and cancels its own jobs, and others' that delete where it may have things deleted. With authentication
off everybody is the same caller, and sees all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.subjects import REQUEST, TOKEN
from snappy.errors import InvalidCommand, JobError, JobNotFound, WrongSequence
from snappy.jobs.answering import Handler
from snappy.jobs.api_words import (
    CancelRequest,
    GetRequest,
    ListRequest,
    Reply,
    ServicesRequest,
    SubmitRequest,
)
from snappy.jobs.commands import Reception
from snappy.jobs.messages import Beat, JobRecord
from snappy.jobs.repositories import Repositories
from snappy.jobs.rights import is_keepers
from snappy.jobs.roster import key_of
from snappy.jobs.states import FINAL, State
from snappy.jobs.stopping import Stopper
from snappy.jobs.store import JobStore, StoredJob
from snappy.jobs.verbs import JOB_CANCEL, JOB_GET, JOB_LIST, JOB_SUBMIT, REPOSITORIES_LIST, SERVICES_LIST, Verb

ENVELOPE_BYTES = 64 << 10

Told = TypeVar("Told", bound=msgspec.Struct)


class Endpoints:
    """``private``: authentication is on. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        reception: Reception,
        stopper: Stopper,
        repositories: Repositories,
        settings: config.Core,
        *,
        private: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._reception = reception
        self._stopper = stopper
        self._repositories = repositories
        self._settings = settings
        self._private = private
        self._clock = clock

    def handlers(self) -> list[tuple[Verb, Handler]]:
        return [
            (JOB_SUBMIT, self.submit),
            (JOB_GET, self.get),
            (JOB_LIST, self.list_jobs),
            (JOB_CANCEL, self.cancel),
            (SERVICES_LIST, self.services),
            (REPOSITORIES_LIST, self.repositories),
        ]

    async def submit(self, caller: str, request: msgspec.Struct) -> Reply:
        assert isinstance(request, SubmitRequest)
        return Reply(job=await self._reception.submit(request.kind, caller, bytes(request.command)))

    async def get(self, caller: str, request: msgspec.Struct) -> Reply:
        assert isinstance(request, GetRequest)
        job = request.job or await self._of_request(caller, request.request)
        return Reply(job=(await self._visible(caller, job)).value)

    async def list_jobs(self, caller: str, request: msgspec.Struct) -> Reply:
        """The newest first."""
        assert isinstance(request, ListRequest)
        await self._store.records.sync()
        records = [kept.value for kept in self._store.records.kept.values()]
        found = sorted((record for record in records if self._listed(record, caller, request)), key=_age)
        jobs = self._that_fit(found[: request.limit])
        return Reply(jobs=jobs, more=len(jobs) < len(found))

    async def cancel(self, caller: str, request: msgspec.Struct) -> Reply:
        """A job that waits is cancelled at once; a worker is told to stop, and reports when it has."""
        assert isinstance(request, CancelRequest)
        while True:
            stored = await self._visible(caller, request.job)
            try:
                return Reply(job=(await self._cancel(caller, stored)).value)
            except WrongSequence:
                continue

    async def services(self, caller: str, request: msgspec.Struct) -> Reply:
        assert isinstance(request, ServicesRequest)
        await self._store.roster.sync()
        beats = [beat for beat in self._store.roster.beats if key_of(beat) > request.after]
        named = [beat for beat in beats if request.role in ("", beat.role) and request.service in ("", beat.service)]
        told = self._that_fit(self._told(beat, whole=bool(request.service)) for beat in named)
        return Reply(services=told, more=len(told) < len(named))

    def _told(self, beat: Beat, *, whole: bool) -> Beat:
        beat = self._store.roster.with_plugins(beat)
        return beat if whole else msgspec.structs.replace(beat, plugins={name: {} for name in beat.plugins})

    async def repositories(self, caller: str, request: msgspec.Struct) -> Reply:
        return Reply(repositories=await self._repositories.all())

    async def _cancel(self, caller: str, stored: StoredJob) -> StoredJob:
        record = stored.value
        if record.state in FINAL:
            raise JobError(f"job {record.id} is over: it {_ENDINGS[record.state]}")
        return await self._stopper.stop(stored, by=caller)

    async def _of_request(self, caller: str, request: str) -> str:
        if not (REQUEST.match(request) and TOKEN.match(caller)):
            raise InvalidCommand("give the job's id or your own request id")
        job = await self._store.reserved(caller, request)
        if job is None:
            raise JobNotFound(f"there is no job of the request {request!r}")
        return job

    async def _visible(self, caller: str, job: str) -> StoredJob:
        """Another's job does not exist for a caller."""
        stored = await self._store.records.fetch(job) if TOKEN.match(job) else None
        if stored is None or not self._may_see(caller, stored.value):
            raise JobNotFound(f"there is no job {job!r}", hint="`snappy jobs list` shows yours")
        return stored

    def _may_see(self, caller: str, record: JobRecord) -> bool:
        return not self._private or record.submitter == caller or is_keepers(caller, record, self._settings)

    def _listed(self, record: JobRecord, caller: str, request: ListRequest) -> bool:
        return (
            self._may_see(caller, record)
            and (not request.states or record.state in request.states)
            and request.kind in ("", record.kind)
            and request.source in ("", record.source)
        )

    def _that_fit(self, told: Iterable[Told]) -> list[Told]:
        """The first of them that one message holds."""
        room, fitting = self._bus.nc.max_payload - ENVELOPE_BYTES, []
        for each in told:
            room -= len(msgspec.json.encode(each)) + 1
            if room < 0:
                break
            fitting.append(each)
        return fitting


_ENDINGS = {
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "was cancelled",
    State.REJECTED: "was rejected",
}


def _age(record: JobRecord) -> tuple[float, str]:
    return -record.created, record.id
