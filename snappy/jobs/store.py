"""What the core keeps, all of it in buckets: job records, holds, and who is alive.

A :class:`Mirror` is a bucket seen through memory. It is a cache and nothing more: each write is a compare-and-set
against the bucket, and :meth:`Mirror.sync` brings what other cores wrote.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import BusUnavailable, WrongSequence
from snappy.jobs.bucket import Bucket, Entry
from snappy.jobs.kinds import read
from snappy.jobs.messages import ALIVE_SECONDS, Beat, Hold, JobRecord
from snappy.jobs.places import is_unsettled
from snappy.jobs.rules import WAITING, twin_key
from snappy.jobs.states import FINAL
from snappy.jobs.waiting import Waiting

_log = log.get(__name__)

SYNC_TRIES = 20
SYNC_SECONDS = 0.05
NO_KEY = "none"
"""A key that nothing has: no job is called so."""

Value = TypeVar("Value", bound=msgspec.Struct)


class Kept(NamedTuple, Generic[Value]):
    """A value, and the revision of the bucket that wrote it."""

    value: Value
    revision: int


StoredJob = Kept[JobRecord]


class Mirror(Generic[Value]):
    """The keys of a bucket that begin with ``start``; keys are given and told without it."""

    def __init__(self, bucket: Bucket, schema: type[Value], start: str = "", pattern: str = ">") -> None:
        self._bucket = bucket
        self._schema = schema
        self._start = start
        self._pattern = pattern
        self._synced = 0
        self.kept: dict[str, Kept[Value]] = {}

    async def sync(self) -> list[str]:
        """See what changed in the bucket since the last time; the keys whose values are news to this process."""
        news = []
        async for entry in self._bucket.changes(self._synced, self._start + self._pattern):
            key = entry.key.removeprefix(self._start)
            if self._is_news(key, entry.revision) and entry.value and self._read(key, entry):
                news.append(key)
            self._synced = entry.revision
        return news

    async def sync_to(self, revision: int) -> None:
        """See at least what was written up to ``revision``: a replica that is behind may answer. Raises
        BusUnavailable if none has it soon."""
        for _ in range(SYNC_TRIES):
            await self.sync()
            if self._synced >= revision:
                return
            await asyncio.sleep(SYNC_SECONDS)
        raise BusUnavailable("the bucket's replicas are behind")

    @property
    def synced(self) -> int:
        """The revision up to which all is known."""
        return self._synced

    def start_over(self) -> None:
        """Forget all: the bucket was made anew, and counts from the beginning."""
        for key in list(self.kept):
            self.forget(key)
        self._synced = 0

    def get(self, key: str) -> Kept[Value] | None:
        """As this process knows it."""
        return self.kept.get(key)

    async def fetch(self, key: str) -> Kept[Value] | None:
        """As the bucket has it now."""
        entry = await self._bucket.get(self._start + key)
        if entry is None:
            self.forget(key)
            return None
        if self._is_news(key, entry.revision):
            self._read(key, entry)
        return self.kept.get(key)

    async def confirm_leader(self) -> None:
        """Raises BusUnavailable where nobody leads the bucket: its copies can be read then, but nothing written."""
        await self._bucket.get(self._start + NO_KEY)

    async def write(self, key: str, value: Value, revision: int) -> Kept[Value]:
        """Replace the value of ``revision`` (0: there is none). Raises WrongSequence if it has changed."""
        new = await self._bucket.update(self._start + key, msgspec.json.encode(value), revision)
        return self._keep(key, Kept(value, new))

    async def put(self, key: str, value: Value) -> Kept[Value]:
        """Whatever is there."""
        return self._keep(key, Kept(value, await self._bucket.put(self._start + key, msgspec.json.encode(value))))

    async def remove(self, key: str) -> None:
        """Take it away, unless another core changed it meanwhile."""
        if (kept := self.kept.get(key)) is not None:
            await self._bucket.remove(self._start + key, kept.revision)
            self.forget(key)

    def _read(self, key: str, entry: Entry) -> bool:
        """A value that cannot be read (of a far newer core, of a hand at the bucket) must not stop all others."""
        try:
            value = read(entry.value, self._schema)
        except msgspec.DecodeError as error:
            _log.error("a value in a bucket cannot be read", key=self._start + key, error=str(error))
            return False
        self._keep(key, Kept(value, entry.revision))
        return True

    def _is_news(self, key: str, revision: int) -> bool:
        known = self.kept.get(key)
        return known is None or known.revision < revision

    def _keep(self, key: str, kept: Kept[Value]) -> Kept[Value]:
        if self._is_news(key, kept.revision):
            self.kept[key] = kept
        return kept

    def forget(self, key: str) -> None:
        """In this process; the bucket keeps it."""
        self.kept.pop(key, None)


class Records(Mirror[JobRecord]):
    """The job records; those that are not final also stand by their source service."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket, JobRecord, "job.", "*")
        self.active: dict[str, dict[str, None]] = {}
        self._waiting: defaultdict[str, Waiting] = defaultdict(Waiting)
        self._unsettled: dict[str, None] = {}

    def unsettled(self) -> list[StoredJob]:
        """Backups of which more is to be heard: some of their targets may get them yet."""
        return [self.kept[job] for job in self._unsettled]

    def waiting(self, source: str, now: float, ageing: float) -> Iterator[StoredJob]:
        """The jobs of a source service that wait, the one to be tried first before others. To be used up, or
        dropped, before the next change."""
        return (self.kept[job] for job in self._waiting[source].in_order(now, ageing))

    def sources_waited_for(self) -> list[str]:
        """The source services that jobs wait for."""
        return [source for source, waiting in self._waiting.items() if waiting]

    def unfinished(self) -> Iterator[StoredJob]:
        for jobs in list(self.active.values()):
            yield from [self.kept[job] for job in jobs]

    def _keep(self, key: str, kept: StoredJob) -> StoredJob:
        super()._keep(key, kept)
        record = self.kept[key].value
        if record.state in WAITING:
            self._waiting[record.source].add(key, record.priority, record.since or record.created)
        else:
            self._waiting[record.source].discard(key)
        if record.state in FINAL:
            self.active.get(record.source, {}).pop(key, None)
        else:
            self.active.setdefault(record.source, {})[key] = None
        if is_unsettled(record):
            self._unsettled[key] = None
        else:
            self._unsettled.pop(key, None)
        return kept

    def forget(self, key: str) -> None:
        if (kept := self.kept.get(key)) is not None:
            self.active.get(kept.value.source, {}).pop(key, None)
            self._waiting[kept.value.source].discard(key)
            self._unsettled.pop(key, None)
        super().forget(key)


class JobStore:
    """The three buckets. Methods raise BusUnavailable when JetStream does not answer."""

    def __init__(self, bus: Bus) -> None:
        subjects = bus.subjects
        self._jobs = Bucket(bus, subjects.jobs_bucket)
        self.records = Records(self._jobs)
        self.holds: Mirror[Hold] = Mirror(Bucket(bus, subjects.holds_bucket), Hold)
        self.beats: Mirror[Beat] = Mirror(Bucket(bus, subjects.services_bucket), Beat)

    async def sync(self) -> list[str]:
        """Bring all three up to date; the ids of the jobs that other cores changed."""
        await self.holds.sync()
        await self.beats.sync()
        changed = await self.records.sync()
        for job in changed:
            if (kept := self.records.get(job)) and kept.value.state in FINAL:
                self.holds.forget(job)  # its removal leaves no trace in the bucket
        return changed

    async def confirm_leaders(self) -> None:
        """Raises BusUnavailable unless a hold could be renewed now."""
        await self.records.confirm_leader()
        await self.holds.confirm_leader()

    async def start_over(self) -> None:
        """Read all three buckets anew."""
        for mirror in (self.records, self.holds, self.beats):
            mirror.start_over()
        await self.sync()

    # (submitter, request) -> job id, so that a repeat finds the job

    async def reserve(self, submitter: str, request: str, job: str) -> str:
        """The id of the job that (submitter, request) stands for: ``job``, unless it was reserved before."""
        return await self._reserve(_request_key(submitter, request), job)

    async def _reserve(self, key: str, job: str) -> str:
        try:
            await self._jobs.update(key, job.encode(), 0)
        except WrongSequence:
            entry = await self._jobs.get(key)
            return entry.value.decode() if entry else await self._reserve(key, job)
        return job

    async def reserved(self, submitter: str, request: str) -> str | None:
        entry = await self._jobs.get(_request_key(submitter, request))
        return entry.value.decode() if entry else None

    async def forget(self, job: str) -> None:
        """Remove a finished job's record and its request."""
        kept = self.records.get(job)
        if kept is None:
            return
        await self.records.remove(job)
        await self.holds.remove(job)
        if kept.value.command.get("duplicates") == "skip":
            await self.release_twin(twin_key(kept.value), job)
        if kept.value.request:
            await self._release(_request_key(kept.value.submitter, kept.value.request), job)

    async def _release(self, key: str, job: str) -> None:
        entry = await self._jobs.get(key)
        if entry and entry.value.decode() == job:
            await self._jobs.remove(key, entry.revision)

    # of twins, the one that passes

    async def reserve_twin(self, name: str, job: str) -> str:
        """The id of the job that passes under the name that twins share: ``job``, unless another came before."""
        return await self._reserve(_twin_key(name), job)

    async def release_twin(self, name: str, job: str) -> None:
        """Let another pass, if ``job`` was the one."""
        await self._release(_twin_key(name), job)

    # who is alive

    def is_alive(self, role: str, name: str, now: float) -> bool:
        """Whether any replica of the service was heard of lately; ``now`` is Unix seconds."""
        beats = (kept.value for kept in self.beats.kept.values())
        return any((beat.role, beat.service) == (role, name) and now - beat.seen < ALIVE_SECONDS for beat in beats)

    def services(self, role: str) -> set[str]:
        """The names of the services of a role that were ever seen."""
        return {kept.value.service for kept in self.beats.kept.values() if kept.value.role == role}


def _request_key(submitter: str, request: str) -> str:
    return f"request.{submitter}.{request}"


def _twin_key(name: str) -> str:
    return f"twin.{name}"
