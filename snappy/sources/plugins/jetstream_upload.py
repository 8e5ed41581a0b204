"""A snapshot on its way to JetStream, which takes chunks, and says of each when it has it.

JetStream gives a restore up when it gets nothing for five seconds. While the rest is waited for, a byte of what was
held back for that is sent every :data:`PATIENCE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import json

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from snappy.errors import SnappyError, SourceError, SourceUnavailable
from snappy.sources.plugins.jetstream_server import Answer, Connection, check_answer

CHUNK = 128 << 10
WINDOW = 16
"""Chunks that JetStream did not yet say it has."""
PATIENCE_SECONDS = 2.0
HELD_BACK = 4 << 10
"""More than two hours' worth."""
FINISH_SECONDS = 3600.0
"""A server before 2.15 begins with its work when it has all."""


class Upload:
    """To the subject that JetStream named."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection, self._subject = connection, subject
        self._chunk = min(CHUNK, connection.nc.max_payload)
        self._bytes = bytearray()
        self._room = asyncio.Semaphore(WINDOW)
        self._sending = asyncio.Lock()
        self._has_sent = False
        self._answer: asyncio.Future[Answer] = connection.loop.create_future()
        self._inbox = connection.nc.new_inbox()
        self._subscription: Subscription | None = None
        connection.call(self._begin())

    def write(self, piece: bytes) -> None:
        """Raises what JetStream says against it."""
        self._connection.call(self._write(piece))

    def finish(self) -> None:
        """That was all. Returns when JetStream has made a stream of it."""
        self._connection.call(self._finish())

    async def _begin(self) -> None:
        self._subscription = await self._connection.listen(self._inbox, self._receive)
        self._connection.begin(self._keep_alive)

    async def _write(self, piece: bytes) -> None:
        self._bytes += piece
        while len(self._bytes) >= self._chunk + HELD_BACK:
            await self._send(self._chunk)

    async def _finish(self) -> None:
        while self._bytes:
            await self._send(self._chunk)
        await self._send(0)
        try:
            await asyncio.wait_for(asyncio.shield(self._answer), FINISH_SECONDS)
        except TimeoutError as error:
            raise SourceUnavailable("JetStream does not come to an end with a restore") from error
        finally:
            if self._subscription:
                await self._subscription.unsubscribe()

    async def _send(self, size: int) -> None:
        """The first so many bytes; none stand for the end."""
        async with self._sending:
            await self._room.acquire()
            if self._answer.done():
                self._answer.result()
                raise SourceUnavailable("JetStream has ended a restore before it had all")
            chunk = bytes(self._bytes[:size])
            del self._bytes[:size]
            self._has_sent = True
            await self._connection.nc.publish(self._subject, chunk, reply=self._inbox)

    async def _keep_alive(self) -> None:
        while not self._answer.done():
            self._has_sent = False
            await asyncio.sleep(PATIENCE_SECONDS)
            if self._bytes and not self._has_sent and not self._sending.locked():
                await self._send(1)

    async def _receive(self, message: Msg) -> None:
        if message.data:
            self._set(message.data)
        elif (message.headers or {}).get("Status"):
            self._fail(SourceUnavailable("JetStream gave up a restore, which came too slowly"))
        self._room.release()

    def _set(self, said: bytes) -> None:
        """All is there, or something is wrong."""
        try:
            answer: Answer = json.loads(said)
            check_answer(answer)
        except SnappyError as error:
            self._fail(error)
        except ValueError as error:
            self._fail(SourceError(f"JetStream answers what is no JSON: {error}"))
        else:
            if not self._answer.done():
                self._answer.set_result(answer)

    def _fail(self, error: SnappyError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def abandon(connection: Connection, subject: str) -> None:
    """Let JetStream give up now what is sent to that subject: a chunk that does not say where to answer ends it."""
    await connection.nc.publish(subject, b"\0")
    await connection.nc.flush()
