"""Follows attempts by what their workers report; believes a report only from the worker that holds the job."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from snappy import log
from snappy.bus.connection import Bus
from snappy.bus.pulling import again_soon
from snappy.bus.subjects import WorkerSubject, token
from snappy.errors import BusError, InternalError, UsageError, WrongSequence
from snappy.jobs.attempts import Attempts
from snappy.jobs.kinds import read
from snappy.jobs.ledger import Ledger
from snappy.jobs.line import Line
from snappy.jobs.messages import ErrorInfo, JobRecord, Report, Result
from snappy.jobs.places import is_spread
from snappy.jobs.refusals import Refusals
from snappy.jobs.repositories import Repositories
from snappy.jobs.rules import is_stopping
from snappy.jobs.spreading import Spreading
from snappy.jobs.states import Event
from snappy.jobs.store import JobStore, StoredJob

_log = log.get(__name__)

LAST = frozenset({"succeeded", "failed", "rejected", "cancelled"})
"""Reports that end an attempt."""
TEXT_LIMIT = 4096
DETAIL_BYTES = 128 << 10
"""The record and its event must fit into one message, whatever a worker reports."""

Detail = TypeVar("Detail")


class Reports:
    def __init__(
        self,
        bus: Bus,
        store: JobStore,
        ledger: Ledger,
        attempts: Attempts,
        line: Line,
        refusals: Refusals,
        repositories: Repositories,
        spreading: Spreading,
    ) -> None:
        self._bus = bus
        self._store = store
        self._ledger = ledger
        self._attempts = attempts
        self._line = line
        self._refusals = refusals
        self._repositories = repositories
        self._spreading = spreading
        self._kinds: dict[str, Callable[[StoredJob, Report], Awaitable[object]]] = {
            "started": self._started,
            "checkpoint": self._checkpoint,
            "succeeded": self._succeeded,
            "failed": self._failed,
            "rejected": self._rejected,
            "cancelled": self._cancelled,
        }

    async def receive(self, messages: list[Msg]) -> None:
        """Act on what the reports stream brought: one job's reports in order, several jobs at once."""
        by_job: dict[str, list[tuple[Msg, Report]]] = defaultdict(list)
        for message in messages:
            if report := await self._read(message):
                by_job[report.job].append((message, report))
        await asyncio.gather(*(self._follow(reports) for reports in by_job.values()))

    async def _read(self, message: Msg) -> Report | None:
        """None for what is no report: it is told, and taken from the queue."""
        try:
            report = read(message.data, Report)
            token(report.job)
        except (msgspec.DecodeError, UsageError) as error:
            worker = self._bus.subjects.parse_worker(message.subject)
            await self._refusals.tell(message, worker.service, f"not a report: {error}")
            with suppress(NatsError, OSError):
                await message.ack()
            return None
        return report

    async def _follow(self, reports: list[tuple[Msg, Report]]) -> None:
        try:
            for message, report in reports:
                await self._act_once(message, report)
                await message.ack()  # should it be lost, the repeat finds its attempt over
        except (BusError, NatsError, OSError) as error:
            _log.warning("a report will come again", job=reports[0][1].job, error=str(error))
            for message, _ in reports:
                await again_soon(message)

    async def _act_once(self, message: Msg, report: Report) -> None:
        """A report on which the core itself fails is told, and not tried for ever."""
        try:
            await self._act(message, report)
        except (BusError, NatsError, OSError):
            raise
        except Exception:
            _log.exception("a report could not be handled", job=report.job, report=report.kind)
            service = self._bus.subjects.parse_worker(message.subject).service
            await self._refusals.tell(message, service, "the core failed on this report")

    async def _act(self, message: Msg, report: Report) -> None:
        worker = self._bus.subjects.parse_worker(message.subject)
        stored = self._store.records.get(report.job)
        while True:
            if stored is None or not self._attempts.is_current(stored.value, worker, report.attempt):
                stored = await self._store.records.fetch(report.job)
            if stored is None or not self._attempts.is_current(stored.value, worker, report.attempt):
                await self._refuse(message, worker, report, stored.value if stored else None)
                return
            try:
                if report.kind in ("succeeded", "failed"):
                    await self._repositories.note(stored.value, report.result, report.error, report.at)
                await self._kinds[report.kind](stored, report)
                if report.kind in LAST:
                    await self._line.move_up(stored.value)
                    await self._spreading.settle(stored.value.follows)
                return
            except WrongSequence:
                stored = await self._store.records.fetch(report.job)

    async def _refuse(self, message: Msg, worker: WorkerSubject, report: Report, record: JobRecord | None) -> None:
        """An attempt's own worker may be late, or repeat itself; anybody else never had a reason to report."""
        number = report.attempt
        given = record.attempts[number - 1] if record and 0 < number <= len(record.attempts) else None
        if given and (given.service, given.replica) == (worker.service, worker.replica):
            _log.info("a report of an attempt that is over", job=report.job, attempt=number, report=report.kind)
        else:
            await self._refusals.tell(message, worker.service, f"a report of an attempt at {report.job} it never had")

    async def _started(self, stored: StoredJob, report: Report) -> None:
        """The record says so since the claim."""

    async def _checkpoint(self, stored: StoredJob, report: Report) -> None:
        if len(msgspec.json.encode(report.checkpoint)) <= DETAIL_BYTES:
            await self._ledger.note(stored, checkpoint=report.checkpoint)

    async def _succeeded(self, stored: StoredJob, report: Report) -> None:
        result = _short(report.result or Result())
        if is_spread(stored.value):
            await self._spreading.begin(stored, result)
            return
        await self._attempts.finished(stored, Event.SUCCEEDED, result=result, error=None)

    async def _failed(self, stored: StoredJob, report: Report) -> None:
        changes = {"result": _short(report.result)} if report.result else {}
        await self._attempts.failed(stored, _error(report), **changes)

    async def _rejected(self, stored: StoredJob, report: Report) -> None:
        await self._attempts.finished(stored, Event.REJECTED, error=_error(report))

    async def _cancelled(self, stored: StoredJob, report: Report) -> None:
        """Only if that was asked for; a worker that stops on its own has failed."""
        if is_stopping(stored.value):
            await self._attempts.stopped(stored, report.error)
        else:
            await self._attempts.failed(stored, _error(report))


def _error(report: Report) -> ErrorInfo:
    if report.error is None:
        return ErrorInfo.of(InternalError(f"the worker reported {report.kind} without a reason"))
    message, hint = report.error.message[:TEXT_LIMIT], report.error.hint[:TEXT_LIMIT]
    return msgspec.structs.replace(report.error, message=message, hint=hint)


def _short(result: Result) -> Result:
    """The same with fewer warnings, findings, faults and paths, if they would not fit."""
    drill = result.drill and msgspec.structs.replace(result.drill, faults=_fitting(result.drill.faults))
    return msgspec.structs.replace(
        result,
        warnings=_fitting(result.warnings),
        findings=_fitting(result.findings),
        paths=_fitting(result.paths),
        drill=drill,
    )


def _fitting(details: list[Detail]) -> list[Detail]:
    details = details[:100]
    while details and len(msgspec.json.encode(details)) > DETAIL_BYTES:
        details = details[: len(details) // 2]
    return details
