"""A wire that fails: a TCP proxy before nats-server that knows whole NATS messages and harms those that it is told to.

::

    with faulty_wire(server.url) as wire:               # processes connect to wire.url
        plan = wire.plan(WireFault.FLIP, Which("snappy.data.>", Way.TO_SERVER, least=100_000), times=3)
        ...                                             # the next three messages that match are harmed
        await plan.wait(times=3)                        # AssertionError if it never struck

It runs on an event loop in a thread of its own, so that processes under test can connect to it whatever the test does;
``plan`` and everything of a :class:`Plan` may be called from any thread. A client that was cut off connects again to
the same url. Of a cluster's INFO the other nodes' addresses are taken out, else clients would walk around the proxy.

The protocol is the one of the NATS documentation's "Client Protocol" page: control lines that end in CR LF, and after
PUB, HPUB, MSG and HMSG a payload whose length stands at the end of the line.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from tests.support.background import loop_in_thread

BUFFER = 4 << 20
LINE_END = b"\r\n"
WITH_PAYLOAD = {b"PUB", b"HPUB", b"MSG", b"HMSG"}
WAIT_SECONDS = 60.0


class WireFault(StrEnum):
    """What is done to a message."""

    FLIP = "flip"
    """One bit of its payload, headers left alone. A message without a payload does not match."""
    DUPLICATE = "duplicate"
    """It is sent twice."""
    REORDER = "reorder"
    """It is held back until others that match, on the same connection, went before it."""
    DROP = "drop"
    """It is never sent."""
    DELAY = "delay"
    """It, and all that follow it on its connection, come ``seconds`` later."""
    CUT = "cut"
    """Half of its payload is sent, then the connection ends."""


class Way(StrEnum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"


@dataclass(frozen=True)
class Which:
    """Messages: by ``subject`` (a NATS pattern), way, and size of the payload in bytes, headers not counted."""

    subject: str = ">"
    way: Way | None = None
    least: int = 0
    most: int = 1 << 40

    def fits(self, message: Message) -> bool:
        return (
            self.way in (None, message.way)
            and self.least <= len(message.payload) <= self.most
            and subject_matches(self.subject, message.subject)
        )


@dataclass(frozen=True)
class Message:
    """``line`` is the control line with its end, ``head`` the block of headers."""

    way: Way
    line: bytes
    head: bytes
    payload: bytes

    @property
    def subject(self) -> str:
        return self.line.split()[1].decode()

    def to_bytes(self) -> bytes:
        return b"".join((self.line, self.head, self.payload, LINE_END))

    def half(self) -> bytes:
        return b"".join((self.line, self.head, self.payload[: len(self.payload) // 2]))

    def flipped(self, dice: random.Random) -> Message:
        harmed = bytearray(self.payload)
        harmed[dice.randrange(len(harmed))] ^= 1 << dice.randrange(8)
        return replace(self, payload=bytes(harmed))


class Plan:
    """One planned fault; made by :meth:`FaultyWire.plan`. ``struck`` says how often it has happened so far."""

    def __init__(self, fault: WireFault, which: Which, times: int, every: int, seconds: float, overtakers: int) -> None:
        self.fault, self.which, self.times, self.every = fault, which, times, every
        self.seconds, self.overtakers = seconds, overtakers
        self.met = 0
        """How many messages fitted so far, struck or not."""
        self.struck = 0
        self.subjects: list[str] = []
        """Of the messages that were struck."""
        self._pending = 0
        self._ended = False
        self._changed = threading.Condition()

    def take(self, message: Message) -> bool:
        """Whether ``message`` is to be struck; if so, it has to be followed by :meth:`happened` or :meth:`missed`."""
        with self._changed:
            free = not self._ended and self.struck + self._pending < self.times
            if not free or not self._fits(message):
                return False
            self.met += 1
            taken = self.met % self.every == 0
            self._pending += taken
            return taken

    def _fits(self, message: Message) -> bool:
        return self.which.fits(message) and (self.fault is not WireFault.FLIP or bool(message.payload))

    def happened(self, message: Message) -> None:
        with self._changed:
            self._pending -= 1
            self.struck += 1
            self.subjects.append(message.subject)
            self._changed.notify_all()

    def missed(self) -> None:
        """A message was let go unharmed after all."""
        with self._changed:
            self._pending -= 1

    def end(self) -> None:
        """Strike no more."""
        with self._changed:
            self._ended = True

    async def wait(self, times: int | None = None, seconds: float = WAIT_SECONDS) -> None:
        """Until it has struck so often (by default as often as planned). Raises AssertionError if it does not."""
        await asyncio.to_thread(self.expect, times, seconds)

    def expect(self, times: int | None = None, seconds: float = 0.0) -> None:
        """As :meth:`wait`, without a loop, and at once."""
        wanted = self.times if times is None else times
        with self._changed:
            struck = self._changed.wait_for(lambda: self.struck >= wanted, seconds)
        assert struck, f"{self.fault} on {self.which.subject} struck {self.struck} times, not {wanted}"


class FaultyWire:
    """Made by :func:`faulty_wire`. Forwards connections on ``url`` to the server."""

    def __init__(self, upstream: str, dice: random.Random) -> None:
        where = urlsplit(upstream)
        self._host, self._port = where.hostname, where.port
        self.dice = dice
        self.url = ""
        self.connections = 0
        """How many were made so far."""
        self.plans: list[Plan] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._forwarding: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> Counter[WireFault]:
        """How often each kind of fault has struck."""
        return sum((Counter({plan.fault: plan.struck}) for plan in list(self.plans)), Counter[WireFault]())

    def plan(
        self,
        fault: WireFault,
        which: Which = Which(),
        times: int = 1,
        *,
        every: int = 1,
        seconds: float = 2.0,
        overtakers: int = 1,
    ) -> Plan:
        """Strike the next ``times`` messages that fit ``which``, or one of ``every`` so many.

        ``seconds``: of a delay; and the longest that a message is held back to be overtaken by ``overtakers`` others
        (where that many do not come, it is sent, and does not count). A message is struck by one plan alone.
        """
        made = Plan(fault, which, times, every, seconds, overtakers)
        self.plans.append(made)
        return made

    def planned(self, message: Message) -> Plan | None:
        return next((plan for plan in self.plans if plan.take(message)), None)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0, limit=BUFFER)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Ends all connections, and waits until they have ended."""
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*self._forwarding)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=BUFFER)
        except OSError:
            writer.close()  # as a server that is gone
            return
        self.connections += 1
        both = {writer, far_writer}
        self._writers |= both
        there, back = Pump(self, Way.TO_SERVER, reader, far_writer), Pump(self, Way.TO_CLIENT, far_reader, writer)
        await asyncio.gather(there.run(both), back.run(both))
        self._writers -= both


class Pump:
    """One way of one connection."""

    def __init__(self, wire: FaultyWire, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._wire, self._way, self._reader, self._writer = wire, way, reader, writer
        self._held: Held | None = None

    async def run(self, both: set[asyncio.StreamWriter]) -> None:
        """Until one side ends the connection, or a cut does; then both ends are closed."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await self._reader.readline():
                if not await self._pass_on(line):
                    break
                await self._writer.drain()
        self._let_go()
        for writer in both:
            writer.close()
        for writer in both:
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _pass_on(self, line: bytes) -> bool:
        """Whether the connection lives on."""
        if line.split(b" ", 1)[0].upper() not in WITH_PAYLOAD:
            self._writer.write(without_other_nodes(line))
            return True
        message = await self._message(line)
        if self._held and self._held.plan.which.fits(message):
            self._overtake(message, self._held)
            return True
        plan = self._wire.planned(message)
        if plan is None:
            self._writer.write(message.to_bytes())
        elif plan.fault is WireFault.REORDER:
            self._hold(message, plan)
        else:
            await self._strike(message, plan)
            plan.happened(message)
        return plan is None or plan.fault is not WireFault.CUT

    async def _message(self, line: bytes) -> Message:
        words = line.split()
        total = int(words[-1])
        head = int(words[-2]) if words[0].upper().startswith(b"H") else 0
        content = await self._reader.readexactly(total + len(LINE_END))
        return Message(self._way, line, content[:head], content[head:total])

    async def _strike(self, message: Message, plan: Plan) -> None:
        whole = message.to_bytes()
        match plan.fault:
            case WireFault.FLIP:
                self._writer.write(message.flipped(self._wire.dice).to_bytes())
            case WireFault.DUPLICATE:
                self._writer.write(whole + whole)
            case WireFault.DELAY:
                await asyncio.sleep(plan.seconds)
                self._writer.write(whole)
            case WireFault.CUT:
                self._writer.write(message.half())

    # ---- out of turn -------------------------------------------------------------------------------------------------

    def _hold(self, message: Message, plan: Plan) -> None:
        self._let_go()  # what another plan held back
        timer = asyncio.get_running_loop().call_later(plan.seconds, self._let_go)
        self._held = Held(message, plan, plan.overtakers, timer)

    def _overtake(self, message: Message, held: Held) -> None:
        self._writer.write(message.to_bytes())
        held.missing -= 1
        if held.missing == 0:
            self._held = None
            held.timer.cancel()
            self._writer.write(held.message.to_bytes())
            held.plan.happened(held.message)

    def _let_go(self) -> None:
        """Nothing came that could have gone before it."""
        held, self._held = self._held, None
        if held is not None:
            held.timer.cancel()
            held.plan.missed()
            self._writer.write(held.message.to_bytes())


@dataclass
class Held:
    """A message that waits for ``missing`` others to go before it."""

    message: Message
    plan: Plan
    missing: int
    timer: asyncio.TimerHandle


@contextmanager
def faulty_wire(upstream: str, seed: int = 0) -> Iterator[FaultyWire]:
    """A wire before the server at ``upstream``, for the length of the context; ``seed`` chooses the bits."""
    wire = FaultyWire(upstream, random.Random(seed))
    with loop_in_thread() as loop:
        asyncio.run_coroutine_threadsafe(wire.start(), loop).result(10)
        yield wire
        asyncio.run_coroutine_threadsafe(wire.stop(), loop).result(10)


def subject_matches(pattern: str, subject: str) -> bool:
    """NATS' own rule: ``*`` is any one token, a last ``>`` any tokens, one at least."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(want in ("*", name) for want, name in zip(wanted, given, strict=True))


def without_other_nodes(line: bytes) -> bytes:
    """A server's INFO without the addresses of its cluster; any other line as it is."""
    verb, _, rest = line.partition(b" ")
    if verb != b"INFO" or b"connect_urls" not in rest:
        return line
    told = json.loads(rest)
    del told["connect_urls"]
    return b"INFO " + json.dumps(told).encode() + LINE_END
