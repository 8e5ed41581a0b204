"""A NATS client of a TCP socket and nothing else: publishes, requests and subscribes as `nats pub|req|sub` do.

The protocol is the one of the NATS documentation's "Client Protocol" page: lines that end in CR LF, and payloads
whose length stands in the line before. It shares no code with Snappy or nats-py: what it can do, any client can.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

LINE_END = b"\r\n"
HEADER_START = b"NATS/1.0\r\n"


class ServerError(Exception):
    """What the server said after ``-ERR``."""


class Message(NamedTuple):
    """``headers`` is the block as it came, without its first line; empty for a plain message."""

    subject: str
    reply: str
    headers: str
    body: bytes


class RawClient:
    """One connection. Made by :func:`connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: str) -> None:
        self._reader, self._writer, self._user = reader, writer, user
        self._numbers = itertools.count(1)
        self._queues: dict[str, asyncio.Queue[Message]] = {}
        self._pongs: asyncio.Queue[None] = asyncio.Queue()
        self.errors: list[str] = []
        self.info: dict[str, object] = {}

    async def greet(self, user: str, password: str) -> None:
        """INFO from the server, CONNECT to it, and a PING whose PONG says that it let us in."""
        self.info = json.loads((await self._reader.readline()).removeprefix(b"INFO "))
        options = {"verbose": False, "pedantic": True, "headers": True, "no_responders": True, "lang": "raw"}
        options |= {"version": "1", "protocol": 1, "tls_required": False}
        if user:
            options |= {"user": user, "pass": password}
        self._send(b"CONNECT " + json.dumps(options).encode())
        self._send(b"PING")
        answer = await self._reader.readline()
        if answer.strip() != b"PONG":
            raise ServerError(answer.decode().strip())

    async def publish(self, subject: str, body: bytes, *, reply: str = "", headers: str = "") -> None:
        """``nats pub``; ``headers`` is lines ``Name: value`` joined by CR LF. Returns when the server has read it."""
        self._send_message(subject, body, reply, headers)
        await self.ping()

    def _send_message(self, subject: str, body: bytes, reply: str, headers: str) -> None:
        where = f"{subject} {reply}".strip()
        if headers:
            block = HEADER_START + headers.encode() + LINE_END * 2
            line = f"HPUB {where} {len(block)} {len(block) + len(body)}"
            self._send(line.encode() + LINE_END + block + body)
        else:
            self._send(f"PUB {where} {len(body)}".encode() + LINE_END + body)

    async def subscribe(self, subject: str) -> asyncio.Queue[Message]:
        """``nats sub``: what comes on ``subject`` from now on."""
        number = str(next(self._numbers))
        queue = self._queues[number] = asyncio.Queue()
        self._send(f"SUB {subject} {number}".encode())
        await self.ping()
        return queue

    async def request(self, subject: str, body: bytes, *, timeout: float = 10.0) -> Message:
        """``nats req``: the first answer. A subject of a JetStream stream answers with its receipt."""
        inbox = f"_INBOX.{self._user}.{secrets.token_hex(8)}" if self._user else f"_INBOX.{secrets.token_hex(8)}"
        answers = await self.subscribe(inbox)
        self._send_message(subject, body, inbox, "")
        answer = await asyncio.wait_for(answers.get(), timeout)
        if answer.headers.startswith("503"):
            raise ServerError("no responders")
        return answer

    async def ping(self, timeout: float = 10.0) -> None:
        """Returns when the server has read all that was sent. Raises ServerError if it refused something."""
        known = len(self.errors)
        self._send(b"PING")
        await asyncio.wait_for(self._pongs.get(), timeout)
        if len(self.errors) > known:
            raise ServerError(self.errors[-1])

    def _send(self, line: bytes) -> None:
        self._writer.write(line + LINE_END)

    async def read_forever(self) -> None:
        """Sorts what the server sends into the queues; ends with the connection."""
        while line := await self._reader.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            if verb in ("MSG", "HMSG"):
                await self._read_message(verb, rest.split())
            elif verb == "PING":
                self._send(b"PONG")
            elif verb == "PONG":
                self._pongs.put_nowait(None)
            elif verb == "-ERR":
                self.errors.append(rest.strip("'"))

    async def _read_message(self, verb: str, words: list[str]) -> None:
        total = int(words[-1])
        head = int(words[-2]) if verb == "HMSG" else 0
        content = (await self._reader.readexactly(total + 2))[:total]
        names = words[: -2 if verb == "HMSG" else -1]
        reply = names[2] if len(names) > 2 else ""
        headers = content[:head].decode().removeprefix("NATS/1.0").strip()
        self._queues[names[1]].put_nowait(Message(names[0], reply, headers, content[head:]))


@asynccontextmanager
async def connect(url: str, user: str = "", password: str = "") -> AsyncIterator[RawClient]:
    """A connection to ``nats://host:port`` for the length of the context. Raises ServerError if it is refused."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 20)
    client = RawClient(reader, writer, user)
    try:
        await client.greet(user, password)
        reading = asyncio.create_task(client.read_forever())
        try:
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    finally:
        writer.close()


async def next_json(queue: asyncio.Queue[Message], timeout: float = 30.0) -> dict[str, object]:
    """The next message's body, read as JSON."""
    message = await asyncio.wait_for(queue.get(), timeout)
    found: dict[str, object] = json.loads(message.body)
    return found
