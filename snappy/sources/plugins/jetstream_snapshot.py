"""The snapshot of a stream as a file that is read: JetStream sends chunks, and more when some were acknowledged.

JetStream gives a snapshot up when it hears nothing for five seconds. An engine that waits for longer (for a slow
target, for a core that comes back) must not lose it: then one chunk every :data:`PATIENCE_SECONDS` is acknowledged
unread, and kept, until :data:`MOST_KEPT` bytes are.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from typing import Any

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from snappy.errors import SnappyError, SourceError, SourceUnavailable
from snappy.repository.format import MIB
from snappy.sources.plugins.jetstream_server import Answer, Connection

CHUNK = 64 << 10
WINDOW = 8 * MIB
PATIENCE_SECONDS = 2.0
MOST_KEPT = 128 * MIB
"""More than an hour's worth."""
BEGIN_SECONDS = 3600.0
"""A server that checks a stream first may take long to begin."""
DONE = ("", "204")


class Snapshot(io.RawIOBase):
    """Begins one. ``config`` and ``state`` are the stream's, as JetStream says them."""

    def __init__(self, connection: Connection, stream: str, *, consumers: bool, check: bool) -> None:
        self._connection, self._stream = connection, stream
        self._changed = threading.Condition()
        self._chunks: deque[tuple[bytes, str]] = deque()
        """What came and was not read, each with where to acknowledge it, or nothing if that was done."""
        self._rest = memoryview(b"")
        self._kept = self._number = 0
        self._is_whole = False
        self._failure: SnappyError | None = None
        self._has_acknowledged = False
        self._subscription: Subscription | None = None
        connection.watch(self._wake)
        asked = {"no_consumers": not consumers, "jsck": check, "chunk_size": CHUNK, "window_size": WINDOW}
        answer = connection.call(self._begin(asked))
        self.config, self.state = answer["config"], answer["state"]

    # ---- the engine's thread -----------------------------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(self._next())
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def _next(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._over())
            self._check()
            if not self._chunks:
                return b""
            chunk, reply = self._chunks.popleft()
            self._kept -= len(chunk)
        if reply:
            self._acknowledge(reply)
        return chunk

    def _over(self) -> bool:
        return self._is_whole or bool(self._failure or self._connection.failure)

    def _check(self) -> None:
        if not self._is_whole:
            self._connection.check()
        if self._failure:
            raise self._failure

    def close(self) -> None:
        """JetStream sees that nobody listens any more, and gives up what is not sent."""
        if not self.closed and self._subscription:
            self._connection.soon(self._subscription.unsubscribe)
        super().close()

    # ---- the loop ----------------------------------------------------------------------------------------------------

    async def _begin(self, asked: dict[str, Any]) -> Answer:
        inbox = self._connection.nc.new_inbox()
        self._subscription = await self._connection.listen(inbox, self._receive)
        verb = f"STREAM.SNAPSHOT.{self._stream}"
        return await self._connection.ask_in_loop(verb, asked | {"deliver_subject": inbox}, BEGIN_SECONDS)

    async def _receive(self, message: Msg) -> None:
        if not message.data:
            self._end(message.headers or {})
            return
        with self._changed:
            if message.reply and self._is_next(message.reply):
                self._number += 1
            elif message.reply:
                self._failure = SourceUnavailable(f"a chunk of the snapshot of {self._stream} was lost on its way")
            self._chunks.append((message.data, message.reply))
            self._kept += len(message.data)
            self._changed.notify_all()
        if self._number == 1:
            self._connection.soon(self._keep_alive)

    def _is_next(self, reply: str) -> bool:
        """The last token counts chunks."""
        return reply.rpartition(".")[2] == str(self._number + 1)

    def _end(self, headers: dict[str, str]) -> None:
        status, said = headers.get("Status", ""), headers.get("Description", "")
        with self._changed:
            if status in DONE:
                self._is_whole = self._failure is None
            elif status == "408":
                self._failure = SourceUnavailable(f"JetStream gave up the snapshot of {self._stream}: {said}")
            else:
                self._failure = SourceError(
                    f"JetStream cannot read the stream {self._stream}: {said}", hint="look at the NATS server's log"
                )
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _keep_alive(self) -> None:
        while not self._over():
            self._has_acknowledged = False
            await asyncio.sleep(PATIENCE_SECONDS)
            if not self._has_acknowledged:
                self._acknowledge_unread()

    def _acknowledge_unread(self) -> None:
        with self._changed:
            found = next((at for at, (_, reply) in enumerate(self._chunks) if reply), None)
            if found is None or self._kept >= MOST_KEPT:
                return
            chunk, reply = self._chunks[found]
            self._chunks[found] = (chunk, "")
        self._acknowledge(reply)

    def _acknowledge(self, reply: str) -> None:
        self._has_acknowledged = True
        self._connection.soon(lambda: self._connection.nc.publish(reply))
