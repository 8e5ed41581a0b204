"""What the core keeps, all of it in buckets: job records, holds, and who is alive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from snappy.bus.connection import Bus
from snappy.errors import WrongSequence
from snappy.jobs.bucket import Bucket
from snappy.jobs.messages import Hold, JobRecord
from snappy.jobs.mirror import Kept, Mirror
from snappy.jobs.places import is_unsettled
from snappy.jobs.roster import Roster
from snappy.jobs.rules import WAITING, twin_key
from snappy.jobs.states import FINAL
from snappy.jobs.waiting import Waiting

StoredJob = Kept[JobRecord]


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
        self.roster = Roster(bus)

    async def sync(self) -> list[str]:
        """Bring all three up to date; the ids of the jobs that other cores changed."""
        await self.holds.sync()
        await self.roster.sync()
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
        for mirror in (self.records, self.holds, self.roster):
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


def _request_key(submitter: str, request: str) -> str:
    return f"request.{submitter}.{request}"


def _twin_key(name: str) -> str:
    return f"twin.{name}"
