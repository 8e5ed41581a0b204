"""Large messages through nats-py without their copies.

nats-py (2.16) moves every received byte five times, and every byte that it sends four times, before it is where it
belongs. A :class:`WireTransport` receives a large payload into the place where it stays, and sends one from where it
lies (:class:`~snappy.bus.pieces.Pieces`). All else, and the client's whole behaviour, stays nats-py's.

The protocol is that of https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import ParseResult

from nats.aio.client import Client
from nats.aio.transport import Transport
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from snappy.bus.pieces import Bytes, Payload, Pieces

SCRATCH = 64 << 10
"""Bytes for control lines and small messages. A larger message gets a place of its own."""
WRITE_SIZE = 256 << 10
"""Bytes handed to the event loop at a time: what the kernel does not take at once is copied."""
PAUSE_AT = 8 << 20
"""Bytes of messages that nobody has taken yet, from which reading pauses."""
CLOSE_SECONDS = 1.0
PORT = 4222
END = b"\r\n"
WITHOUT, WITH = b"MSG", b"HMSG"
"""The words that a message begins with, without headers and with them."""
HEAD_FIELDS = {WITHOUT: (4, 5), WITH: (5, 6)}


class Arrived(NamedTuple):
    """A message, with the arguments of nats-py's ``_process_msg``."""

    subscription: int
    subject: bytes
    reply: bytes
    payload: bytes | bytearray
    headers: bytes | None


Item = bytes | Arrived
"""A control line with its end, or a message."""


class Head(NamedTuple):
    """The line before a message. ``size`` is in bytes, with the ``headers`` first ones."""

    subscription: int
    subject: bytes
    reply: bytes
    headers: int
    size: int

    def arrived(self, payload: bytes | bytearray) -> Arrived:
        if not self.headers:
            return Arrived(self.subscription, self.subject, self.reply, payload, None)
        headers = bytes(payload[: self.headers])
        return Arrived(self.subscription, self.subject, self.reply, payload[self.headers :], headers)


def parse_head(line: bytes) -> Head | None:
    """The head of a message; None if the line is another one. Raises ProtocolError."""
    word, *fields = line.split()
    word = word.upper()
    if word not in HEAD_FIELDS:
        return None
    try:
        if len(fields) + 1 not in HEAD_FIELDS[word]:
            raise ValueError
        headers = int(fields.pop(-2)) if word == WITH else 0
        return Head(int(fields[1]), fields[0], fields[2] if len(fields) == 4 else b"", headers, int(fields[-1]))
    except ValueError:
        raise ProtocolError("nats: malformed MSG") from None


class Inbound(asyncio.BufferedProtocol):
    """What arrives on one connection, in items; and whether more may be written to it."""

    def __init__(self) -> None:
        self._scratch = bytearray(SCRATCH)
        self._view = memoryview(self._scratch)
        self._start = self._end = 0
        self._head: Head | None = None
        self._body = bytearray()
        self._filled = 0
        self._skip = 0
        self._items: deque[Item] = deque()
        self._held = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._arrival = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()
        self._transport: Any = None

    # ---- the event loop calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=1, low=0)  # asyncio's TLS never goes on from a limit of 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, self._error or exc
        self._arrival.set()
        self._writable.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._arrival.set()
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._head:
            return memoryview(self._body)[self._filled :]
        if self._start:
            rest = self._end - self._start
            self._view[:rest] = self._view[self._start : self._end]
            self._start, self._end = 0, rest
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._head:
            self._filled += nbytes
            if self._filled == len(self._body):
                self._complete(self._head)
        else:
            self._end += nbytes
            self._split()
        if self._items:
            self._arrival.set()

    # ---- its reader calls these

    @property
    def at_eof(self) -> bool:
        return self._ended and not self._items

    async def line(self) -> bytes:
        """The next control line; empty at the end. Raises the error that ended the connection."""
        await self._wait()
        item = self._items.popleft() if self._items else b""
        if isinstance(item, Arrived):
            raise ProtocolError("nats: a message before the login")
        return item

    async def items(self) -> deque[Item]:
        """All that has arrived, one item at least; none at the end. Raises the error that ended the connection."""
        await self._wait()
        taken, self._items, self._held = self._items, deque(), 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return taken

    async def writable(self) -> None:
        """Until all that was written has left. Raises ConnectionResetError once the connection is gone."""
        await self._writable.wait()
        if self._ended:
            raise ConnectionResetError("the connection was lost")

    async def _wait(self) -> None:
        while not self._items and not self._ended:
            self._arrival.clear()
            await self._arrival.wait()
        if self._error and not self._items:
            raise self._error

    # ---- splitting

    def _split(self) -> None:
        try:
            while self._take_next():
                pass
        except ProtocolError as error:
            self._error = error
            self._transport.abort()

    def _take_next(self) -> bool:
        """Take an item out of the scratch; False if none is complete there."""
        skipped = min(self._skip, self._end - self._start)
        self._start, self._skip = self._start + skipped, self._skip - skipped
        end = self._scratch.find(END, self._start, self._end)
        if end < 0:
            if self._end - self._start == SCRATCH:
                raise ProtocolError("nats: a control line of endless length")
            return False
        after = end + len(END)
        head = parse_head(bytes(self._view[self._start : end])) if end > self._start else None
        if head is None:
            self._add(bytes(self._view[self._start : after]), 0)
        elif after + head.size + len(END) <= self._end:
            self._add(head.arrived(bytes(self._view[after : after + head.size])), head.size)
            after += head.size + len(END)
        elif after - self._start + head.size + len(END) <= SCRATCH:
            return False
        else:
            self._begin(head, after)
            return False
        self._start = after
        return True

    def _begin(self, head: Head, after: int) -> None:
        """Give a large message a place of its own; what is there of it moves."""
        self._head, self._body, self._filled = head, bytearray(head.size), min(self._end - after, head.size)
        self._body[: self._filled] = self._view[after : after + self._filled]
        behind = self._end - after - self._filled
        self._start = self._end = 0
        if self._filled == head.size:
            self._complete(head)
            self._skip -= behind

    def _complete(self, head: Head) -> None:
        self._head, self._skip = None, len(END)
        self._add(head.arrived(self._body), head.size)
        self._body = bytearray()

    def _add(self, item: Item, size: int) -> None:
        self._items.append(item)
        self._held += size
        if self._held > PAUSE_AT and not self._paused:
            self._paused = True
            self._transport.pause_reading()


class WireTransport(Transport):
    """nats-py's transport over TCP and TLS. What is written leaves with :meth:`drain`, in turn."""

    def __init__(self) -> None:
        self._inbound = Inbound()
        self._transport: Any = None
        self._waiting: list[Bytes | Pieces] = []
        self._draining = asyncio.Lock()

    def __bool__(self) -> bool:
        """nats-py takes a transport that is false for none, and makes its own."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self._waiting = []
        dialing = asyncio.get_running_loop().create_connection(Inbound, uri.hostname or "", uri.port or PORT)
        self._transport, self._inbound = await asyncio.wait_for(dialing, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        inbound = Inbound()
        name = uri if isinstance(uri, str) else uri.hostname
        loop = asyncio.get_running_loop()
        shaking = loop.start_tls(self._transport, inbound, ssl_context, server_hostname=name)
        self._transport = await asyncio.wait_for(shaking, connect_timeout)
        inbound.connection_made(self._transport)
        self._inbound = inbound

    def write(self, payload: Bytes) -> None:
        self._waiting.append(payload)

    def writelines(self, payload: Sequence[Bytes | Pieces]) -> None:
        self._waiting.extend(payload)

    async def drain(self) -> None:
        async with self._draining:
            waiting, self._waiting = self._waiting, []
            for block in blocks(waiting):
                await self._inbound.writable()
                self._transport.write(block)
            await self._inbound.writable()

    async def read(self, buffer_size: int) -> Any:
        return await self._inbound.items()

    async def readline(self) -> bytes:
        return await self._inbound.line()

    def at_eof(self) -> bool:
        return self._inbound.at_eof

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Until the connection is gone, which a far end that says nothing may not hold up."""
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._inbound.lost.wait()
        except TimeoutError:
            self._transport.abort()


class ItemParser(Parser):
    """nats-py's parser, for what arrives in items."""

    def __init__(self, nc: Client) -> None:
        self._items: deque[Item] = deque()
        super().__init__(nc)

    def reset(self) -> None:
        super().reset()
        self._items.clear()

    async def parse(self, data: Any = b"") -> None:
        self._items = data
        while self._items:
            item = self._items.popleft()
            if isinstance(item, Arrived):
                await self.nc._process_msg(*item)
            else:
                await super().parse(item)


def blocks(written: Sequence[Bytes | Pieces]) -> list[Bytes]:
    """What was written, in blocks of :data:`WRITE_SIZE` bytes at most; small neighbours are put together."""
    found: list[Bytes] = []
    small: list[Bytes] = []
    for part in (part for item in written for part in (item.parts if isinstance(item, Pieces) else (item,))):
        if len(part) < SCRATCH:
            small.append(part)
            continue
        if small:
            found.append(b"".join(small))
            small = []
        whole = memoryview(part)
        found += [whole[start : start + WRITE_SIZE] for start in range(0, len(whole), WRITE_SIZE)]
    return [*found, b"".join(small)] if small else found


async def publish(
    nc: Client, subject: str, body: Payload, reply: str = "", headers: dict[str, str] | None = None
) -> None:
    """Publish on an equipped client. Raises what nats-py's ``publish`` does."""
    await nc.publish(subject, body, reply, dict(headers) if headers else None)  # type: ignore[arg-type]


def message_size(body: Payload, headers: dict[str, str] | None) -> int:
    """What the server counts against its ``max_payload``, in bytes."""
    head = 16 + sum(len(key.encode()) + len(value.encode()) + 4 for key, value in headers.items()) if headers else 0
    return len(body) + head


def equip(nc: Client) -> None:
    """Have a client that has not connected yet use these."""
    nc._transport = WireTransport()
    nc._ps = ItemParser(nc)
