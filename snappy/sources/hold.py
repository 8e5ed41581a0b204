"""A worker's hold on a job: the core's grant, kept fresh, and the one place that the engine asks whether to go on.

A hold that runs out pauses the work, for the core or NATS may be away for a while; it ends only when the core says
that the attempt is over, when the job is cancelled, or when this process stops.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager

import msgspec

from snappy import log
from snappy.bus.connection import Bus
from snappy.errors import AttemptOver, BusError, InternalError, JobCancelled, SnappyError
from snappy.jobs.messages import HoldAnswer, HoldRequest, LockRef, read_answer
from snappy.sources.permit import Permit

RENEWALS = 3
"""How often a hold is renewed before it would run out."""
RETRY_SECONDS = 1.0
ANSWER_SECONDS = 5.0
LEAST_ANSWER_SECONDS = 1.0
NAMING_SECONDS = 3 * ANSWER_SECONDS
"""A renewal may be under way when another is wanted at once."""

_log = log.get(__name__)


class Hold(Permit):
    """One attempt's right to work. ``claimed`` is the core's answer to the claim that was sent at ``asked``, by
    ``clock`` (monotonic seconds). :meth:`check` and :meth:`grant` may be called from any thread."""

    def __init__(
        self,
        bus: Bus,
        service: str,
        replica: str,
        claimed: HoldAnswer,
        asked: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        assert claimed.job is not None
        self.job = claimed.job
        self.attempt = claimed.attempt
        self._bus = bus
        self._subject = bus.subjects.hold("renew", service, replica)
        self._release_subject = bus.subjects.hold("release", service, replica)
        self._seconds = RETRY_SECONDS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._renewing = asyncio.Lock()
        self._naming = threading.Lock()
        self._locks: list[LockRef] = []
        self._removable: set[str] = set()
        self._extend(claimed, asked)

    @contextmanager
    def removing(self, locks: Sequence[LockRef]) -> Iterator[set[str]]:
        """The names of those of ``locks`` that nobody holds any more, as far as the core knows and answers; meanwhile
        each grant allows to remove them. Not for the event loop's own thread."""
        with self._naming:
            self._locks = list(locks)
            try:
                yield self._removable & {lock.name for lock in locks} if self._renew_now() else set()
            finally:
                self._locks = []

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]:
        """The same for a lock of this very attempt."""
        return self.removing([LockRef(name=lock, job=self.job.id, attempt=self.attempt, refreshed=time.time())])

    async def keep(self) -> None:
        """Renew until the attempt is over; one that was cancelled still needs a grant to leave no lock behind."""
        try:
            self._loop = asyncio.get_running_loop()
            wait = self._seconds / RENEWALS
            while not isinstance(self._ended, AttemptOver):
                await asyncio.sleep(wait)
                wait = self._seconds / RENEWALS if await self._renew() else min(RETRY_SECONDS, self._seconds / RENEWALS)
        except Exception as error:
            self.end(InternalError(f"the hold could not be kept: {type(error).__name__}"))
            raise

    async def release(self) -> None:
        """Give the job back: its next attempt begins when the newest grant has run out, without a wait for silence.
        Best effort: a hold also runs out."""
        try:
            await self._bus.request(self._release_subject, self._request(), timeout=ANSWER_SECONDS)
        except BusError as error:
            _log.warning("the job could not be given back", job=self.job.id, reason=error.message)

    def _renew_now(self) -> bool:
        if self._loop is None:
            return False
        renewal = asyncio.run_coroutine_threadsafe(self._renew(), self._loop)
        try:
            return renewal.result(NAMING_SECONDS)
        except (TimeoutError, CancelledError):
            renewal.cancel()
            return False

    async def _renew(self) -> bool:
        """One at a time: the answer to an older question must not take the place of a newer one's."""
        async with self._renewing:
            return await self._renew_once()

    async def _renew_once(self) -> bool:
        asked = self._clock()
        try:
            body = await self._bus.request(self._subject, self._request(), timeout=self._patience())
            answer = read_answer(body, HoldAnswer)
        except BusError as error:
            _log.warning("the hold was not renewed", job=self.job.id, reason=str(error))
            return False
        if answer.error:
            return self._refused(answer.error.to_error())
        if answer.cancel:
            self.end(JobCancelled())
        self._extend(answer, asked)
        return True

    def _patience(self) -> float:
        """Seconds to wait for an answer: short enough to ask again where one of several cores has stopped."""
        return min(ANSWER_SECONDS, max(LEAST_ANSWER_SECONDS, self._seconds / 10))

    def _refused(self, error: SnappyError) -> bool:
        if isinstance(error, AttemptOver):
            self.end(error)
        _log.warning("the hold was not renewed", job=self.job.id, reason=error.message)
        return False

    def _extend(self, answer: HoldAnswer, asked: float) -> None:
        """Count from when the question was sent: the answer's way may have taken long."""
        self._seconds = max(0.0, answer.deadline - answer.clock)
        self._removable = set(answer.locks)
        self.extend(answer.grant, asked + self._seconds)

    def _request(self) -> bytes:
        return msgspec.json.encode(HoldRequest(job=self.job.id, attempt=self.attempt, locks=self._locks))
