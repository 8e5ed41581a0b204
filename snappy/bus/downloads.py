"""The caller's end of a get: small ranges in one answer, others by the direct way, or in frames asked for ahead."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections import deque
from collections.abc import AsyncIterator

from snappy.bus.direct import in_thread
from snappy.bus.protocol import Frame, Kind, Read, ReadAnswer, pack_length
from snappy.bus.remote import Remote
from snappy.bus.uploads import HASH_IN_THREAD, WINDOW
from snappy.errors import Corrupt, Unavailable

LINE_PIECE = 16 << 20
"""Bytes that come by the direct way at a time."""


class Download:
    """Bytes of one object, in order. ``size`` is how many there will be."""

    def __init__(self, remote: Remote, path: str, subject: str, answer: ReadAnswer, window: int, digest: bool) -> None:
        self._remote, self._path, self._subject, self._answer = remote, path, subject, answer
        self._window, self._digest = window, digest
        self._hash = hashlib.sha256()
        self.size = answer.size

    @classmethod
    async def open(
        cls,
        remote: Remote,
        path: str,
        start: int,
        end: int | None,
        *,
        window: int = WINDOW,
        digest: bool = True,
    ) -> Download:
        """``digest`` asks both ends for a SHA-256 of what comes in several frames, beside each frame's CRC."""
        bus = await remote.bus()
        request = Read(
            path=path,
            start=start,
            end=end,
            digest=digest,
            max_payload=bus.nc.max_payload,
            user=remote.direct.user,
        )
        answer = await remote.ask("read", request, ReadAnswer)
        subject = bus.subjects.data(remote.target, answer.replica, bus.user, answer.transfer)
        return cls(remote, path, subject, answer, window, digest)

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """All of it, in order. Raises Corrupt where a checksum does not match."""
        if self._answer.data is not None:
            yield self._answer.data
            return
        line = await self._remote.dial(self._answer)
        async for piece in self._by_line(line) if line else self._in_frames():
            yield piece

    async def _by_line(self, line: socket.socket) -> AsyncIterator[bytes]:
        try:
            for offset in range(0, self.size, LINE_PIECE):
                yield await self._receive(line, min(LINE_PIECE, self.size - offset))
            if self._digest:
                await self._close()
        except BaseException:
            line.close()
            await self._remote.abort(self._subject)
            raise
        finally:
            line.close()

    async def _receive(self, line: socket.socket, size: int) -> bytes:
        try:
            piece = await in_thread(line, line.recv, size, socket.MSG_WAITALL)
        except OSError as error:
            raise self._broken(error) from error
        if len(piece) < size:
            broken = self._broken(EOFError())
            await self._remote.send(self._subject, Kind.CLOSE, self.size)  # raises what the target met
            raise broken
        if self._digest:
            await asyncio.to_thread(self._hash.update, piece)
        return piece

    def _broken(self, error: Exception) -> Unavailable:
        self._remote.direct.give_up(self._answer.direct, error)
        return Unavailable("the direct way to the target broke")

    async def _in_frames(self) -> AsyncIterator[memoryview]:
        under_way: deque[asyncio.Task[memoryview]] = deque()
        try:
            for offset in range(0, self.size, self._answer.frame):
                under_way.append(asyncio.create_task(self._fetch(offset)))
                if len(under_way) >= self._window:
                    yield await self._next(under_way)
            while under_way:
                yield await self._next(under_way)
        except BaseException:
            for task in under_way:
                task.cancel()
            await self._remote.abort(self._subject)
            raise
        await self._close()

    async def read(self) -> bytes:
        if self._answer.data is not None:
            return self._answer.data
        return b"".join([piece async for piece in self.pieces()])

    async def _fetch(self, offset: int) -> memoryview:
        length = min(self._answer.frame, self.size - offset)
        frame = await self._remote.send(self._subject, Kind.FETCH, offset, pack_length(length))
        if frame.kind is not Kind.DATA or frame.offset != offset or len(frame.rest) != length:
            raise Corrupt(f"a frame of {self._path!r} is not the one that was asked for")
        return frame.rest

    async def _next(self, under_way: deque[asyncio.Task[memoryview]]) -> memoryview:
        piece = await under_way[0]
        under_way.popleft()
        if self._digest and len(piece) >= HASH_IN_THREAD:
            await asyncio.to_thread(self._hash.update, piece)
        elif self._digest:
            self._hash.update(piece)
        return piece

    async def _close(self) -> None:
        frame: Frame = await self._remote.send(self._subject, Kind.CLOSE, self.size)
        if self._digest and frame.rest != self._hash.digest():
            raise Corrupt(f"the bytes of {self._path!r} were damaged on their way")
