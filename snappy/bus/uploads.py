"""The caller's end of a put: the bytes by the direct way, or in frames with a bounded number under way; the commit."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable

from snappy.bus.direct import in_thread
from snappy.bus.protocol import Commit, Kind, Mode, Open, OpenAnswer, encode, named_hash
from snappy.bus.remote import Remote
from snappy.errors import SnappyError, Unavailable

WINDOW = 4
"""Frames that await their answer at the same time."""
HASH_IN_THREAD = 256 << 10
"""Bytes from which hashing is worth a thread."""


class Upload:
    """An object on its way to the target. Nothing of it shows before :meth:`commit` returned.

    The SHA-256 of an object that is named by it is not computed here: the target compares what arrived with the name.
    """

    def __init__(
        self, remote: Remote, subject: str, answer: OpenAnswer, path: str, window: int, line: socket.socket | None
    ) -> None:
        self._remote, self._subject, self._answer, self._line = remote, subject, answer, line
        self._room = asyncio.Semaphore(window)
        self._sending: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self._name = named_hash(path)
        self._hash = hashlib.sha256()
        self.size = 0

    @classmethod
    async def open(cls, remote: Remote, path: str, mode: Mode, size: int | None, window: int = WINDOW) -> Upload:
        bus = await remote.bus()
        request = Open(path=path, mode=mode, size=size, max_payload=bus.nc.max_payload, user=remote.direct.user)
        answer = await remote.ask("open", request, OpenAnswer)
        subject = bus.subjects.data(remote.target, answer.replica, bus.user, answer.transfer)
        return cls(remote, subject, answer, path, window, await remote.dial(answer))

    async def write(self, data: bytes | memoryview, sent: Callable[[int], object] | None = None) -> None:
        """Send ``data`` after what was written before; ``sent`` is told the bytes of each answered frame.

        Returns when the last frame has found room in the window. Raises what any frame before met.
        """
        view = memoryview(data)
        hashing = asyncio.create_task(self._hash_in_turn(view))
        try:
            if self._line is not None:
                await self._send_by_line(self._line, view, sent)
            else:
                await self._send_in_frames(view, sent)
        finally:
            await hashing

    async def commit(self) -> None:
        """Wait for all frames, and make the object visible."""
        self._hang_up()
        await self._settle()
        self._raise_failure()
        digest = self._name or self._hash.hexdigest()
        commit = Commit(size=self.size, sha256=digest, grant=self._remote.grant())
        await self._remote.send(self._subject, Kind.COMMIT, self.size, encode(commit))

    async def discard(self) -> None:
        """Give up; the target forgets what it has."""
        self._hang_up()
        for task in self._sending:
            task.cancel()
        await self._settle()
        await self._remote.abort(self._subject)

    async def _send_by_line(self, line: socket.socket, view: memoryview, sent: Callable[[int], object] | None) -> None:
        self._raise_failure()
        try:
            await in_thread(line, line.sendall, view)
        except OSError as error:
            self._remote.direct.give_up(self._answer.direct, error)
            self._failed = Unavailable("the direct way to the target broke")
            raise self._failed from error
        self.size += len(view)
        if sent:
            sent(len(view))

    def _hang_up(self) -> None:
        """The line's end is the object's; what is on its way still arrives."""
        if self._line is not None:
            self._line.close()

    async def _send_in_frames(self, view: memoryview, sent: Callable[[int], object] | None) -> None:
        for start in range(0, len(view), self._answer.frame):
            await self._room.acquire()
            self._start(view[start : start + self._answer.frame], sent)

    def _start(self, piece: memoryview, sent: Callable[[int], object] | None) -> None:
        self._raise_failure()
        task = asyncio.create_task(self._send(self.size, piece, sent))
        self.size += len(piece)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, offset: int, piece: memoryview, sent: Callable[[int], object] | None) -> None:
        try:
            await self._remote.send(self._subject, Kind.WRITE, offset, piece)
            if sent:
                sent(len(piece))
        except SnappyError as error:
            self._failed = self._failed or error
        finally:
            self._room.release()

    async def _settle(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending)

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _hash_in_turn(self, view: memoryview) -> None:
        if self._name:
            return
        if len(view) < HASH_IN_THREAD:
            self._hash.update(view)
        else:
            await asyncio.to_thread(self._hash.update, view)
