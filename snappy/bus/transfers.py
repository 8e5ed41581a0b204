"""The target's end of a transfer: frames in, an object made; or an object open, frames out.

A transfer belongs to one caller and lives until it is closed, fails or idles too long; a put that is not committed
by then leaves nothing. Frames of a put may overtake one another within :data:`MAX_EARLY` and may be repeated: a
repeat is answered and changes nothing. A line of the direct way (:mod:`snappy.bus.direct`) takes the place of the
frames that carry bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, wait
from typing import Any

import msgspec
import structlog

from snappy.bus.direct import NOBODY, hang_up, peer_user, send_file
from snappy.bus.failures import Failure, to_wire
from snappy.bus.pieces import Payload
from snappy.bus.protocol import (
    Answer,
    Commit,
    Frame,
    Kind,
    decode,
    encode,
    pack_frame,
    parse_frame,
    parse_length,
)
from snappy.bus.throttle import Pace
from snappy.errors import BusError, Corrupt, Garbled, SnappyError, Unavailable
from snappy.targets.guarded import GuardedDraft

log = structlog.get_logger(module=__name__)

MAX_EARLY = 16
"""Frames that may wait for one before them; also how many a transfer holds unanswered."""

MAX_BACKLOG = 8
"""Frames of a put that may wait to be hashed and written."""

LINE_PIECE = 256 << 10
"""Bytes of a put that are hashed and written at a time: they are still in the processor's cache."""

Publish = Callable[[str, Payload], Awaitable[None]]
Message = tuple[bytes, str]
"""A frame as it came, and where its answer goes."""


class Transfer(ABC):
    """What both directions share: a bounded queue, one task that empties it, and an end."""

    _pace: Pace

    def __init__(self, caller: str, path: str, publish: Publish, pool: Executor, clock: Callable[[], float]) -> None:
        self.caller, self.path = caller, path
        self._publish, self._pool, self._clock = publish, pool, clock
        self._queue: asyncio.Queue[Message | socket.socket] = asyncio.Queue(MAX_EARLY)
        self._line: socket.socket | None = None
        self._user = NOBODY
        self._work: Future[Any] | None = None
        self._over = False
        self.outcome: Payload | None = None
        """The answer to whatever comes after the end, from then on: what is held may take a while to let go of."""

    def feed(self, raw: bytes, reply: str) -> bool:
        """Queue a frame; False where the caller has more under way than the window allows."""
        try:
            self._queue.put_nowait((raw, reply))
        except asyncio.QueueFull:
            return False
        return True

    def offer_line(self, user: int) -> bool:
        """Whether the bytes may go to a line of that user. What is held to a rate goes in frames."""
        if self._pace.is_free:
            self._user = user
        return self._user != NOBODY

    def take_line(self, line: socket.socket) -> bool:
        """Queue a line that carries the bytes, and own it; False where it is not the one that was offered, there was
        one already, or frames are under way."""
        if self._user == NOBODY or peer_user(line) != self._user:
            return False
        if self._line is not None or self._over or not self._queue.empty():
            return False
        self._queue.put_nowait(line)
        self._line = line
        return True

    async def run(self, idle: float) -> None:
        """Serve frames until the transfer ends, or ``idle`` seconds bring none."""
        try:
            await self._serve_all(idle)
            await self._serve_late()
        finally:
            if self._line is not None:
                hang_up(self._line)
            loop = asyncio.get_running_loop()
            await asyncio.shield(loop.run_in_executor(self._pool, self._release_after_work))

    async def _serve_all(self, idle: float) -> None:
        try:
            while not self._over:
                async with asyncio.timeout(idle):
                    message = await self._queue.get()
                if isinstance(message, socket.socket):
                    await self._serve_line(message)
                else:
                    await self._serve(*message)
        except TimeoutError:
            log.warning("transfer idle, given up", caller=self.caller, path=self.path)
            self.outcome = self._fail(Unavailable("the target does not know this transfer any more: it was idle"))

    @abstractmethod
    def release(self) -> None:
        """Let go of what is held; an object that is not complete goes with it."""

    @abstractmethod
    async def handle(self, frame: Frame, reply: str) -> Payload | None:
        """Do what the frame says; the answer, or None where it comes later."""

    @abstractmethod
    def carry(self, line: socket.socket) -> bool:
        """Move the bytes over the line, in a thread; whether the transfer is over then."""

    def answer(self, failure: Failure | None = None) -> Payload:
        return answer_frame(Answer(clock=self._clock(), failure=failure))

    async def _serve(self, raw: bytes, reply: str) -> None:
        try:
            answer = await self.handle(parse_frame(raw), reply)
        except Garbled as error:  # it comes again
            answer = self.answer(to_wire(error, self.path))
        except Exception as error:
            answer = self._fail(error)
        if self._over:
            self.outcome = answer
        if answer is not None:
            await self._publish(reply, answer)

    async def _serve_line(self, line: socket.socket) -> None:
        try:
            self._over = await self._in_thread(self.carry, line)
        except (ConnectionError, BlockingIOError) as error:  # the caller is gone, or stands still
            self.outcome = self._fail(Unavailable(f"the direct way broke: {error}"))
        except Exception as error:
            self.outcome = self._fail(error)
        finally:
            hang_up(line)

    def _fail(self, error: Exception) -> Payload:
        self._over = True
        if not isinstance(error, SnappyError):
            log.exception("transfer failed", caller=self.caller, path=self.path)
        return self.answer(to_wire(error, self.path))

    async def _serve_late(self) -> None:
        while not self._queue.empty() and self.outcome is not None:
            message = self._queue.get_nowait()
            if not isinstance(message, socket.socket):
                await self._publish(message[1], given_again(self.outcome, self._clock()))

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        self._work = self._pool.submit(work, *args)
        return await asyncio.wrap_future(self._work)

    def _release_after_work(self) -> None:
        """A cancelled transfer may still have a thread at work on what is about to be released."""
        if self._work is not None:
            wait([self._work])
        if self._line is not None:
            self._line.close()
        self.release()


class PutTransfer(Transfer):
    """An object on its way in.

    A frame is answered when it has its place in a short backlog; one thread works that off, so that hashing and
    writing never wait for the bus, nor the bus for them. What fails there is told to the next frame or the commit.
    """

    def __init__(self, draft: GuardedDraft, renew: Callable[[str], None], pace: Pace, *common: Any) -> None:
        super().__init__(*common)
        self._draft, self._renew, self._pace = draft, renew, pace
        self._received = 0
        self._early: dict[int, tuple[memoryview, str]] = {}
        self._backlog: deque[memoryview] = deque()

    async def handle(self, frame: Frame, reply: str) -> Payload | None:
        if frame.kind is Kind.WRITE:
            await self._pace.take(len(frame.rest))
            return await self._write(frame.offset, frame.rest, reply)
        self._over = True
        if frame.kind is Kind.COMMIT:
            await self._commit(decode(frame.rest, Commit))
        elif frame.kind is not Kind.ABORT:
            raise BusError(f"a put has no frame of kind {frame.kind.name}")
        return self.answer()

    def release(self) -> None:
        self._draft.discard()

    def carry(self, line: socket.socket) -> bool:
        """To the line's end, which the commit must know to be that of the object."""
        piece = memoryview(bytearray(LINE_PIECE))
        while count := line.recv_into(piece, 0, socket.MSG_WAITALL):
            self._draft.write(piece[:count])
            self._received += count
        return False

    async def _write(self, offset: int, data: memoryview, reply: str) -> Payload | None:
        if offset > self._received:
            self._keep(offset, data, reply)
            return None
        if offset == self._received:
            await self._accept(data)
            await self._accept_early()
        return self.answer()

    async def _accept_early(self) -> None:
        while waiting := self._early.pop(self._received, None):
            data, reply = waiting
            await self._accept(data)
            await self._publish(reply, self.answer())

    def _keep(self, offset: int, data: memoryview, reply: str) -> None:
        if len(self._early) >= MAX_EARLY:
            raise BusError("too many frames arrived before their turn")
        self._early[offset] = (data, reply)

    async def _accept(self, data: memoryview) -> None:
        if len(self._backlog) >= MAX_BACKLOG:
            await self._worked_off()
        self._received += len(data)
        self._backlog.append(data)
        if self._work is None or self._work.done():
            await self._worked_off(wait=False)

    async def _worked_off(self, *, wait: bool = True) -> None:
        """See to it that a thread writes the backlog. Raises what the one before met."""
        if self._work is not None:
            if self._work.done():
                self._work.result()
            elif wait:
                await asyncio.wrap_future(self._work)
        if self._backlog:
            self._work = self._pool.submit(self._work_off)
            if wait:
                await asyncio.wrap_future(self._work)

    def _work_off(self) -> None:
        while self._backlog:
            self._draft.write(self._backlog[0])
            self._backlog.popleft()

    async def _commit(self, commit: Commit) -> None:
        await self._worked_off()
        if commit.size != self._draft.size:
            raise Corrupt(f"{self._draft.size} of {commit.size} bytes of {self.path!r} arrived")
        if commit.sha256 != self._draft.sha256():
            raise Corrupt(f"the bytes of {self.path!r} were damaged on their way")
        self._renew(commit.grant)
        await self._in_thread(self._draft.commit)


class GetTransfer(Transfer):
    """A range of an object on its way out: ``start`` to ``start + size`` of ``handle``, an open file.

    ``digests`` is off for a caller that has a proof of its own for what it reads.
    """

    def __init__(self, handle: Any, start: int, size: int, frame: int, digests: bool, pace: Pace, *common: Any) -> None:
        super().__init__(*common)
        self._handle, self._start, self._size, self._frame = handle, start, size, frame
        self._digests, self._pace = digests, pace
        self._hash = hashlib.sha256()
        self._hashed = 0

    async def handle(self, frame: Frame, reply: str) -> Payload | None:
        if frame.kind is Kind.FETCH:
            made: Payload = await self._in_thread(self._fetch, frame.offset, parse_length(frame.rest))
            await self._pace.take(len(made))
            return made
        self._over = True
        if frame.kind is Kind.CLOSE:
            digest: Payload = await self._in_thread(self._digest)
            return digest
        if frame.kind is Kind.ABORT:
            return self.answer()
        raise BusError(f"a get has no frame of kind {frame.kind.name}")

    def release(self) -> None:
        self._handle.close()

    def carry(self, line: socket.socket) -> bool:
        """A file goes as it lies there, if nobody wants a digest of it."""
        handle = -1 if self._digests else _descriptor(self._handle)
        if handle < 0:
            for offset in range(0, self._size, self._frame):
                line.sendall(self._take(offset, self._frame))
        elif send_file(line, handle, self._start, self._size) < self._size:
            raise Corrupt(f"{self.path!r} ended early")
        return not self._digests

    def _fetch(self, offset: int, length: int) -> Payload:
        return pack_frame(Kind.DATA, offset, self._take(offset, length))

    def _take(self, offset: int, length: int) -> bytes:
        data = self._read(offset, min(length, self._frame, self._size - offset))
        if self._digests and offset == self._hashed:
            self._hash.update(data)
            self._hashed += len(data)
        return data

    def _read(self, offset: int, length: int) -> bytes:
        if length <= 0:
            raise BusError("a fetch frame asks for bytes outside the transfer")
        self._handle.seek(self._start + offset)
        data: bytes = self._handle.read(length)
        if len(data) != length:
            raise Corrupt(f"{self.path!r} ended early")
        return data

    def _digest(self) -> Payload:
        while self._digests and self._hashed < self._size:
            self._fetch(self._hashed, self._frame)
        return pack_frame(Kind.DIGEST, self._size, self._hash.digest() if self._digests else b"")


def _descriptor(handle: Any) -> int:
    """Of an open file on a disk; -1 for any other."""
    try:
        return int(handle.fileno())
    except (AttributeError, OSError):
        return -1


def answer_frame(answer: Answer) -> Payload:
    return pack_frame(Kind.ANSWER, 0, encode(answer))


def given_again(answer: Payload, clock: float) -> Payload:
    """An answer that was given before, with the time as it is now: by an old one the caller would find its clock
    wrong."""
    frame = parse_frame(bytes(answer))
    if frame.kind is not Kind.ANSWER:
        return answer
    return answer_frame(msgspec.structs.replace(decode(frame.rest, Answer), clock=clock))
