"""Answers workers: claim, renew, release, read and beat.

A hold is written before its record changes and before its grant is given, so that three things are true: no grant
outlives the deadline in the holds bucket; attempt n+1 begins only when n's deadline and the clock margin are past;
and a late renewal of n fails against the hold of n+1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from nats.aio.msg import Msg

from snappy import config, log
from snappy.bus.connection import Bus
from snappy.bus.grants import CLOCK_MARGIN, RIGHTS_READ, Grant, SigningKey
from snappy.bus.subjects import WorkerSubject, token
from snappy.errors import (
    AttemptOver,
    BusUnavailable,
    InternalError,
    Interrupted,
    InvalidCommand,
    SnappyError,
    UnknownService,
    WrongSequence,
)
from snappy.jobs.answering import FORGED_REPLY
from snappy.jobs.attempts import Attempts
from snappy.jobs.calls import Calls
from snappy.jobs.dead_locks import DeadLocks
from snappy.jobs.kinds import read
from snappy.jobs.ledger import Ledger
from snappy.jobs.limits import Limits
from snappy.jobs.line import Line
from snappy.jobs.messages import Attempt, ErrorInfo, Hold, HoldAnswer, HoldRequest, JobRecord
from snappy.jobs.mirror import Kept
from snappy.jobs.places import at_place, out_of_any, place_of
from snappy.jobs.refusals import Refusals
from snappy.jobs.repositories import Repositories
from snappy.jobs.rights import deletes_of, rights_of
from snappy.jobs.rules import is_stopping
from snappy.jobs.states import Event
from snappy.jobs.store import JobStore, StoredJob

_log = log.get(__name__)

READ_SECONDS = 60.0
AMID = "a core is amid that claim"


class HoldDesk:
    """``private``: each service has an inbox of its own. ``clock`` gives Unix seconds."""

    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        ledger: Ledger,
        attempts: Attempts,
        calls: Calls,
        line: Line,
        limits: Limits,
        repositories: Repositories,
        refusals: Refusals,
        signing_key: SigningKey,
        settings: config.Core,
        *,
        private: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._attempts = attempts
        self._calls = calls
        self._line = line
        self._limits = limits
        self._limited = asyncio.Lock()
        self._refusals = refusals
        self._repositories = repositories
        self._key = signing_key
        self._settings = settings
        self._private = private
        self._clock = clock
        self._being_claimed: set[str] = set()
        self._being_answered: set[tuple[str, str, str]] = set()
        self._dead_locks = DeadLocks(bus, store, clock)
        self._verbs: dict[str, Callable[[WorkerSubject, HoldRequest], Awaitable[HoldAnswer]]] = {
            "claim": self.claim,
            "renew": self.renew,
            "release": self.release,
            "read": self.read,
            "beat": self.beat,
        }

    async def answer(self, message: Msg) -> None:
        """One request on ``snappy.hold.<verb>.<service>.<replica>``."""
        worker = self._bus.subjects.parse_worker(message.subject)
        if not self._bus.reply_allowed(message, worker.service, self._private):
            await self._refusals.tell(message, worker.service, FORGED_REPLY)
            return
        await self._bus.respond(message, msgspec.json.encode(await self._reply(worker, message.data)))

    async def _reply(self, worker: WorkerSubject, body: bytes) -> HoldAnswer:
        try:
            token(worker.service)
            token(worker.replica)
            return await self._verb(worker.verb)(worker, _request(body))
        except SnappyError as error:
            return HoldAnswer(clock=self._clock(), error=ErrorInfo.of(error))
        except Exception:
            _log.exception("a worker's request failed", verb=worker.verb, service=worker.service)
            return HoldAnswer(clock=self._clock(), error=ErrorInfo.of(InternalError()))

    def _verb(self, name: str) -> Callable[[WorkerSubject, HoldRequest], Awaitable[HoldAnswer]]:
        if name not in self._verbs:
            raise InvalidCommand(f"a hold has no verb {name!r}", hint=f"known are: {', '.join(self._verbs)}")
        return self._verbs[name]

    # ---- claim ---------------------------------------------------------------------------------------------------

    async def claim(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        """The job that comes first of those that wait for this service; none is an answer too. Raises BusUnavailable
        where the same was asked before and is not answered yet, as by a core that was stopped and goes on."""
        if not request.nonce:
            return await self._claim(worker, request)
        asked = (worker.service, worker.replica, request.nonce)
        if asked in self._being_answered:
            raise BusUnavailable(AMID)
        self._being_answered.add(asked)
        try:
            return await self._claim(worker, request)
        finally:
            self._being_answered.discard(asked)

    async def _claim(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        if request.again:
            await self._store.holds.sync()
        if request.nonce and (repeated := await self._claimed_before(worker, request.nonce)):
            return repeated
        for _ in range(2):
            tried: set[str] = set()
            while stored := self._line.first(worker.service, tried | self._being_claimed):
                tried.add(stored.value.id)
                if answer := await self._try_claim(stored, worker, request.nonce):
                    return answer
            await self._store.sync()  # another core may have accepted what was called for, or ended what was in its way
        return HoldAnswer(clock=self._clock())

    async def _claimed_before(self, worker: WorkerSubject, nonce: str) -> HoldAnswer | None:
        for job, kept in list(self._store.holds.kept.items()):
            hold = kept.value
            if (hold.nonce, hold.service, hold.replica) == (nonce, worker.service, worker.replica) and not hold.over:
                if hold.attempt > len((await self._record(job)).value.attempts):
                    raise BusUnavailable(AMID)
                answer = await self.renew(worker, HoldRequest(job=job, attempt=hold.attempt))
                record = (await self._record(job)).value
                return msgspec.structs.replace(answer, job=await self._for_worker(record))
        return None

    async def _try_claim(self, stored: StoredJob, worker: WorkerSubject, nonce: str) -> HoldAnswer | None:
        """None if there is no room for the job, or somebody else was faster."""
        job = stored.value.id
        self._being_claimed.add(job)
        try:
            if not self._limits.apply_to(stored.value):
                return await self._take(stored, worker, nonce)
            async with self._limited:
                return await self._take(stored, worker, nonce) if self._limits.have_room(stored.value) else None
        except WrongSequence:
            await self._store.holds.fetch(job)
            await self._store.records.fetch(job)
            return None
        finally:
            self._being_claimed.discard(job)

    async def _take(self, stored: StoredJob, worker: WorkerSubject, nonce: str) -> HoldAnswer | None:
        record, now = stored.value, self._clock()
        before = self._store.holds.get(record.id)  # if that is not the newest, the write fails
        if before and now < before.value.deadline + CLOCK_MARGIN:
            return None
        hold = self._hold(record, worker, len(record.attempts) + 1, nonce)
        held = await self._store.holds.write(record.id, hold, before.revision if before else 0)
        try:
            if self._limits.apply_to(record) and not await self._limits.have_room_after(record, held):
                await self._give_back(record.id, held)
                return None
            running = await self._start(stored, hold, now)
        except WrongSequence:
            await self._give_back(record.id, held)
            raise
        return self._granted(await self._for_worker(running), hold)

    async def _for_worker(self, record: JobRecord) -> JobRecord:
        """What the command leaves open is known now."""
        if record.follows and (backup := self._store.records.get(record.follows)):
            return out_of_any(record, backup.value)
        return await self._repositories.resolved(at_place(record))

    def _hold(self, record: JobRecord, worker: WorkerSubject, attempt: int, nonce: str) -> Hold:
        place = place_of(record)
        return Hold(
            attempt=attempt,
            service=worker.service,
            replica=worker.replica,
            deadline=self._clock() + self._settings.hold_seconds,
            target=place.target,
            key=place.key or "",
            nonce=nonce,
        )

    async def _start(self, stored: StoredJob, hold: Hold, now: float) -> JobRecord:
        record = stored.value
        attempt = Attempt(
            number=hold.attempt, service=hold.service, replica=hold.replica, started=now, target=hold.target
        )
        changes = {"attempts": [*record.attempts, attempt], "error": None}
        running = await self._ledger.transition(stored, Event.STARTED, **changes)
        self._calls.forget(record.id)
        return running.value

    async def _give_back(self, job: str, held: Kept[Hold]) -> None:
        """The job changed under a claim: no grant was given, so the next claim need not wait for this hold's end."""
        await self._store.holds.write(job, msgspec.structs.replace(held.value, deadline=0.0, over=True), held.revision)

    # ---- renew, release ------------------------------------------------------------------------------------------

    async def renew(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        """A new deadline and grant, whether or not the last ran out, as long as the core has not ended the attempt,
        nor told its worker to stop a good while ago. It names those of the locks asked for that nobody holds."""
        record = (await self._held_by(worker, request)).value
        if 0.0 < record.stop_by < self._clock():
            raise AttemptOver()
        kept = await self._store.holds.fetch(request.job)
        if kept and (kept.value.over or kept.value.attempt != request.attempt):
            raise AttemptOver()
        hold = self._hold(record, worker, request.attempt, kept.value.nonce if kept else "")
        try:
            await self._store.holds.write(request.job, hold, kept.revision if kept else 0)
        except WrongSequence:
            return await self.renew(worker, request)
        locks = await self._dead_locks.among(request.locks, record, hold, rights_of(record, self._settings))
        return msgspec.structs.replace(self._granted(record, hold, locks), job=None)

    async def release(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        """The worker gives the job back (its service is being stopped): another attempt follows."""
        stored = await self._held_by(worker, request)
        await self._attempts.failed(stored, Interrupted("the service gave the job back"))
        return HoldAnswer(clock=self._clock())

    async def _held_by(self, worker: WorkerSubject, request: HoldRequest) -> StoredJob:
        """The job, if that attempt at it is this worker's and goes on. Raises AttemptOver."""
        stored = await self._record(request.job)
        if not self._attempts.is_current(stored.value, worker, request.attempt):
            raise AttemptOver()
        return stored

    async def _record(self, job: str) -> StoredJob:
        """Raises AttemptOver, and BusUnavailable while the bucket does not answer: that ends no attempt."""
        try:
            name = token(job)
        except SnappyError as error:
            raise AttemptOver() from error
        stored = await self._store.records.fetch(name)
        if stored is None:
            raise AttemptOver()
        return stored

    # ---- read, beat ----------------------------------------------------------------------------------------------

    async def read(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        """A grant to browse a target, without a job."""
        if request.target not in self._store.roster.names("target"):
            raise UnknownService(f"no target service {request.target!r} was ever seen")
        deadline = self._clock() + READ_SECONDS
        grant = Grant("", 0, worker.service, request.target, RIGHTS_READ, deadline)
        return HoldAnswer(clock=self._clock(), deadline=deadline, grant=self._key.sign(grant))

    async def beat(self, worker: WorkerSubject, request: HoldRequest) -> HoldAnswer:
        """Note that a service lives, and tell it the time."""
        beat = request.beat
        if beat is None or (beat.service, beat.replica) != (worker.service, worker.replica):
            raise InvalidCommand("a beat names the service and the replica of its subject")
        if beat.role == "source":
            await self._calls.prepare(beat.service)
        beat = msgspec.structs.replace(beat, seen=self._clock())
        return HoldAnswer(clock=self._clock(), etag=await self._store.roster.heard(beat))

    def _granted(self, record: JobRecord, hold: Hold, locks: Sequence[str] = ()) -> HoldAnswer:
        grant = Grant(
            job=record.id,
            attempt=hold.attempt,
            caller=hold.service,
            target=hold.target,
            rights=rights_of(record, self._settings),
            expires=hold.deadline,
            locks=tuple(locks),
            bandwidth=record.command.get("bandwidth") or "",
            deletes=deletes_of(record),
        )
        return HoldAnswer(
            clock=self._clock(),
            job=record,
            attempt=hold.attempt,
            deadline=hold.deadline,
            grant=self._key.sign(grant),
            locks=list(locks),
            cancel=is_stopping(record),
        )


def _request(body: bytes) -> HoldRequest:
    try:
        return read(body or b"{}", HoldRequest)
    except msgspec.DecodeError as error:
        raise InvalidCommand(str(error)) from error
