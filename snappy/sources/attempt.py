"""One attempt at a job: runs its task, tells how far it is, and reports how it ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import (
    AttemptOver,
    BadOptions,
    BusDenied,
    BusError,
    InternalError,
    Interrupted,
    JobCancelled,
    Rejected,
    SnappyError,
    TooLarge,
    UnknownPlugin,
)
from snappy.jobs.messages import ErrorInfo, Report, Result
from snappy.repository.progress import Progress
from snappy.sources.hold import Hold
from snappy.sources.meter import Meter

NEVER_RUN = (Rejected, UnknownPlugin, BadOptions)
"""What makes a job rejected rather than failed: the command itself cannot be carried out here."""
PROGRESS_SECONDS = 0.25
CHECKPOINT_SECONDS = 10.0
REPORT_SECONDS = 1.0
STOP_SECONDS = 20.0
"""How long the engine may take to notice that it has to stop."""

Work = Callable[[Hold, Progress], Awaitable[Result]]

_log = log.get(__name__)


class Attempt:
    """Runs ``work`` under ``hold``. The outcome is reported, never raised."""

    def __init__(self, bus: Bus, service: str, replica: str, hold: Hold, work: Work) -> None:
        self._bus, self._hold, self._work = bus, hold, work
        self._subject = bus.subjects.report(service, replica)
        self._progress = Progress()
        self._log = _log.bind(job=hold.job.id, attempt=hold.attempt, kind=hold.job.kind)

    async def run(self) -> None:
        """Until the attempt has ended and that was reported. Being cancelled gives the job back first."""
        helpers = [asyncio.create_task(each) for each in (self._hold.keep(), self._tell_progress())]
        work = asyncio.create_task(self._worked())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self._hold.end(Interrupted("the service stops"))
            await asyncio.wait({work}, timeout=STOP_SECONDS)
            raise
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _worked(self) -> None:
        try:
            result = await self._work(self._hold, self._progress)
        except Exception as error:
            await self._ended_by(self._hold.ended or error)
        else:
            self._log.info("job succeeded", snapshot=result.snapshot, warnings=result.warning_count)
            await self._report("succeeded", result=result)

    async def _ended_by(self, error: Exception) -> None:
        self._log.info("job ended", reason=str(error))
        if isinstance(error, Interrupted):
            await self._hold.release()
        elif isinstance(error, JobCancelled):
            await self._report("cancelled")
        elif isinstance(error, AttemptOver) and self._hold.ended:
            self._log.warning("the attempt is over; what it stored stays for the next one")
        else:
            result = error.details.get("result") if isinstance(error, SnappyError) else None
            kind = "rejected" if isinstance(error, NEVER_RUN) else "failed"
            await self._report(kind, error=self._info(error), result=result)

    def _info(self, error: Exception) -> ErrorInfo:
        if isinstance(error, AttemptOver):
            return msgspec.structs.replace(ErrorInfo.of(error), retryable=True)
        if isinstance(error, SnappyError):
            return ErrorInfo.of(error)
        self._log.error("unexpected error", exc_info=error)
        return ErrorInfo.of(InternalError(f"unexpected {type(error).__name__} in the source service"))

    async def _report(self, kind: Any, **fields: Any) -> None:
        """Store a report, however long the bus is away; not for longer than the attempt lasts."""
        report = Report(job=self._hold.job.id, attempt=self._hold.attempt, kind=kind, at=time.time(), **fields)
        body, message = msgspec.json.encode(report), secrets.token_hex(16)
        first = True
        while not isinstance(self._hold.ended, AttemptOver):
            try:
                acknowledged = await self._bus.store(self._subject, body, message_id=message, attempts=1)
            except (BusDenied, TooLarge) as error:
                self._log.error("a report was refused", reason=error.message)
                if isinstance(error, TooLarge) and kind != "failed":
                    await self._report("failed", error=ErrorInfo.of(error))
                elif isinstance(error, TooLarge) and fields.get("result"):
                    await self._report(kind, error=fields.get("error"))
                return
            except BusError as error:
                self._log.warning("a report was not stored yet", reason=error.message)
                await asyncio.sleep(REPORT_SECONDS)
                first = False
                continue
            if not (first and acknowledged.duplicate):
                return
            self._log.error("a new report's id was taken already; sending it with another")
            message = secrets.token_hex(16)

    async def _tell_progress(self) -> None:
        meter = Meter(self._progress, self._hold.job.id, self._hold.attempt)
        subject = self._bus.subjects.progress(self._hold.job.id)
        next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            seen = meter.read()
            if seen is None:
                continue
            try:
                await self._bus.publish(subject, msgspec.json.encode(seen))
            except BusError as error:
                self._log.debug("progress was not told", reason=error.message)
            if time.monotonic() >= next_checkpoint:
                next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
                await self._report("checkpoint", checkpoint={"files": seen.files, "bytes": seen.bytes})
