"""A target as its caller sees it: questions and frames, asked again where that is safe, errors as our own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import TypeVar

import msgspec
import structlog

from snappy.bus import jitter
from snappy.bus.connection import Bus
from snappy.bus.direct import Dialer
from snappy.bus.failures import from_wire
from snappy.bus.pieces import Payload
from snappy.bus.protocol import (
    CLOCK_MARGIN,
    Answer,
    Frame,
    Kind,
    OpenAnswer,
    Request,
    decode,
    pack_frame,
    parse_frame,
    seal,
    unseal,
)
from snappy.bus.replies import PROBE_SECONDS
from snappy.errors import BusError, BusUnavailable, ClockSkew, SnappyError, Unavailable

log = structlog.get_logger(module=__name__)

ABORT_SECONDS = 2.0
NO_TRANSFER = "none"
"""A transfer token that no target ever gives out."""

Grant = str | Callable[[], str]
Result = TypeVar("Result", bound=Answer)


class Patience(msgspec.Struct, frozen=True):
    """How long to wait, in seconds, and how often to ask. Delays double up to ``longest``, less a random part."""

    answer: float = 20.0
    frame: float = 20.0
    commit: float = 300.0
    attempts: int = 5
    delay: float = 0.25
    longest: float = 2.0

    async def pause(self, failures: int) -> None:
        """Before the next attempt, after ``failures``."""
        await asyncio.sleep(min(self.longest, self.delay * 2 ** (failures - 1)) * jitter.between(0.5, 1.0))

    async def tries(self) -> AsyncIterator[int]:
        """Counts the attempts, with a pause before each but the first."""
        for attempt in range(self.attempts):
            if attempt:
                await self.pause(attempt)
            yield attempt


class Remote:
    """One target, over one connection that is made when first needed."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Bus]],
        target: str,
        grant: Grant = "",
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
        direct: bool = True,
    ) -> None:
        self.target, self.patience = target, patience or Patience()
        self.direct = Dialer(direct)
        self._connect, self._grant, self._clock = connect, grant, clock
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()

    async def bus(self) -> Bus:
        async with self._connecting:
            if self._bus is None:
                self._bus = await self._connect()
            return self._bus

    async def close(self) -> None:
        async with self._connecting:
            bus, self._bus = self._bus, None
        if bus is not None:
            await bus.drain()

    def grant(self) -> str:
        """The grant as it is now; it is renewed while transfers run."""
        return self._grant if isinstance(self._grant, str) else self._grant()

    async def max_payload(self) -> int:
        return (await self.bus()).nc.max_payload

    # ---- control operations

    async def ask(self, operation: str, request: Request, kind: type[Result]) -> Result:
        """The answer. An error that came after a first attempt whose answer was lost has ``details["repeated"]``."""
        repeated = False
        async for attempt in self.patience.tries():
            try:
                return await self._ask_once(operation, request, kind)
            except (BusUnavailable, Unavailable) as error:
                if attempt + 1 == self.patience.attempts:
                    raise
                repeated = repeated or isinstance(error, BusUnavailable)
            except SnappyError as error:
                error.details["repeated"] = repeated
                raise
        raise BusUnavailable("nothing was asked")

    async def _ask_once(self, operation: str, request: Request, kind: type[Result]) -> Result:
        bus = await self.bus()
        body = seal(msgspec.structs.replace(request, grant=self.grant()))
        sent = self._clock()
        raw = await bus.request(bus.subjects.fs(self.target, operation, bus.user), body, timeout=self.patience.answer)
        answer = unseal(raw, kind)
        self._judge(answer, sent)
        return answer

    def _judge(self, answer: Answer, sent: float) -> None:
        skew = max(sent - answer.clock, answer.clock - self._clock())
        if skew > CLOCK_MARGIN:
            raise ClockSkew(f"the clock of target {self.target!r} differs from ours by {skew:.1f} s")
        if answer.failure is not None:
            raise from_wire(answer.failure)

    # ---- bytes

    async def dial(self, answer: OpenAnswer) -> socket.socket | None:
        """A line for the bytes of a transfer; None where they go in frames."""
        seconds = self.patience.frame * self.patience.attempts
        return await self.direct.dial(answer.direct, answer.user, answer.transfer, seconds)

    async def send(self, subject: str, kind: Kind, offset: int, rest: bytes | memoryview = b"") -> Frame:
        """A frame's answer. Every kind of frame may be repeated, so a lost answer is asked for again.

        Where nobody is there to answer, that is known soon; a target at work is given time.
        """
        payload = pack_frame(kind, offset, rest)
        seconds = self.patience.commit if kind is Kind.COMMIT else self.patience.frame * self.patience.attempts
        deadline, refused = monotonic() + seconds, 0
        while True:
            asked = monotonic()
            try:
                return await self._send_once(subject, payload)
            except BusUnavailable:
                refused += monotonic() - asked < self.patience.frame / 2
                if refused >= self.patience.attempts or monotonic() >= deadline:
                    raise
            await self.patience.pause(refused + 1)

    async def abort(self, subject: str) -> None:
        """Tell the target to forget a transfer. Where it does not hear of that, it finds out by itself."""
        try:
            await (await self.bus()).request(subject, pack_frame(Kind.ABORT, 0), timeout=ABORT_SECONDS)
        except BusError as error:
            log.info("the target was not told to forget a transfer", reason=error.message)

    async def _probe(self, bus: Bus, subject: str) -> None:
        """Raises BusUnavailable if nobody serves the replica of ``subject``: nobody else could answer a frame to it.

        A replica that lives answers for a transfer it does not know; one that is only slow to answer is not gone.
        """
        asked = monotonic()
        try:
            await bus.request(f"{subject.rpartition('.')[0]}.{NO_TRANSFER}", b"", timeout=PROBE_SECONDS)
        except BusUnavailable:
            if monotonic() - asked < PROBE_SECONDS / 2:
                raise

    async def _send_once(self, subject: str, payload: Payload) -> Frame:
        bus, sent = await self.bus(), self._clock()
        answer = await bus.request(
            subject, payload, timeout=self.patience.frame, probe=lambda: self._probe(bus, subject)
        )
        frame = parse_frame(answer)
        if frame.kind is Kind.ANSWER:
            self._judge(decode(frame.rest, Answer), sent)
        return frame
