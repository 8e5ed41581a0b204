"""Knows which locks in repositories nobody holds any more: those of attempts that are over and whose grants ran out.

A worker that meets a lock of a job asks; only the core knows, and what it lets be removed it tells, so that the audit
keeps the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.bus.grants import CLOCK_MARGIN, WRITE
from snappy.bus.subjects import token
from snappy.errors import BusError, InvalidCommand, UsageError
from snappy.jobs.ledger import timestamp
from snappy.jobs.messages import Hold, JobRecord, LockEvent, LockRef, LockRemoval
from snappy.jobs.states import FINAL, State
from snappy.jobs.store import JobStore

_log = log.get(__name__)

KIND, EVENT = "lock", "removable"
ASKED_AT_ONCE = 16
"""A grant that names locks has to fit into each request that carries it."""
STALE_SECONDS = 1800.0
"""A lock is refreshed every five minutes; restic takes it for dead when that did not happen for so long. It is what
holds for jobs that this core does not know: it forgot them, or they are another installation's."""


class DeadLocks:
    """``clock`` gives Unix seconds."""

    def __init__(self, bus: Bus, store: JobStore, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._store = store
        self._clock = clock

    async def among(self, locks: list[LockRef], record: JobRecord, hold: Hold, rights: str) -> list[str]:
        """The names of those that the attempt of ``hold`` may take for gone; with the right to write it may remove
        them too, which the audit is told before. Raises InvalidCommand for too many."""
        if len(locks) > ASKED_AT_ONCE:
            raise InvalidCommand(f"more than {ASKED_AT_ONCE} locks at once")
        found = []
        for lock in locks:
            reason = await self._reason(record, hold, lock)
            if reason and (WRITE not in rights or await self._told(record, hold, lock, reason)):
                found.append(lock.name)
        return found

    async def _told(self, record: JobRecord, hold: Hold, lock: LockRef, reason: str) -> bool:
        """Nothing is removed untold."""
        _log.info("a lock may be removed", lock=lock.name, of=lock.job, by=record.id, reason=reason)
        try:
            await self._publish(record, hold, lock, reason)
        except BusError as error:
            _log.warning("a lock stays, for its removal could not be told", lock=lock.name, reason=error.message)
            return False
        return True

    async def _reason(self, record: JobRecord, hold: Hold, lock: LockRef) -> str:
        """Empty: somebody may hold it."""
        if (lock.job, lock.attempt) == (record.id, hold.attempt):
            return "its own attempt lets go of it"
        writer = await self._writer(lock)
        if writer is None:
            age = self._clock() - lock.refreshed
            return "its job is not known here, and it was not refreshed for 30 minutes" if age > STALE_SECONDS else ""
        if _deletes_packs(record) and _goes_on(writer):
            return ""
        if not _is_over(writer, lock.attempt) or self._clock() < await self._granted_until(writer, lock.attempt):
            return ""
        return f"attempt {lock.attempt} is over, and its grant ran out"

    async def _writer(self, lock: LockRef) -> JobRecord | None:
        """The job that wrote it, if that attempt at it is known."""
        try:
            stored = await self._store.records.fetch(token(lock.job))
        except UsageError:
            return None
        return stored.value if stored and 0 < lock.attempt <= len(stored.value.attempts) else None

    async def _granted_until(self, record: JobRecord, attempt: int) -> float:
        kept = await self._store.holds.fetch(record.id)
        deadline = kept.value.deadline if kept and kept.value.attempt == attempt else 0.0
        return max(deadline, record.attempts[attempt - 1].until) + CLOCK_MARGIN

    async def _publish(self, record: JobRecord, hold: Hold, lock: LockRef, reason: str) -> None:
        subjects, event_id = self._bus.subjects, f"{lock.name}/{record.id}/{hold.attempt}"
        event = LockEvent(
            id=event_id,
            source=f"/{subjects.prefix}/core",
            type=f"io.snappy.{KIND}.{EVENT}",
            subject=lock.name,
            time=timestamp(self._clock()),
            data=LockRemoval(
                lock=lock,
                reason=reason,
                target=hold.target,
                job=record.id,
                attempt=hold.attempt,
                service=hold.service,
                replica=hold.replica,
            ),
        )
        await self._bus.store(subjects.event(KIND, EVENT, lock.name), msgspec.json.encode(event), message_id=event_id)


def _deletes_packs(record: JobRecord) -> bool:
    return record.kind == "prune" or bool(record.command.get("prune"))


def _goes_on(record: JobRecord) -> bool:
    """Whether a next attempt will take up what the last one stored, to which no snapshot leads yet."""
    return record.kind in ("backup", "copy") and record.state not in FINAL and record.state is not State.COPYING


def _is_over(record: JobRecord, attempt: int) -> bool:
    return record.state in FINAL or attempt < len(record.attempts) or record.attempts[attempt - 1].ended is not None
