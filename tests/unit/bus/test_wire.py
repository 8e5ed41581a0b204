"""What arrives is what nats-py's own parser makes of the same bytes, however they are cut; what is sent arrives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from snappy.bus import wire
from snappy.bus.pieces import Pieces
from snappy.bus.wire import SCRATCH, WRITE_SIZE, Inbound, ItemParser, WireTransport, blocks, equip


class Heard:
    """In a client's place: what a parser tells it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        self.told.append(("message", sid, bytes(subject), bytes(reply), bytes(payload), headers and bytes(headers)))

    async def _process_ping(self) -> None:
        self.told.append(("ping",))

    async def _process_pong(self) -> None:
        self.told.append(("pong",))

    async def _process_err(self, error: str) -> None:
        self.told.append(("error", error))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(("info", info))


class Far:
    """In the event loop's place."""

    def __init__(self, inbound: Inbound) -> None:
        self.inbound = inbound
        self.reading, self.aborted = True, False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert (high, low) == (1, 0)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True
        self.inbound.connection_lost(None)


def arriving() -> tuple[Inbound, Far]:
    inbound = Inbound()
    far = Far(inbound)
    inbound.connection_made(far)  # type: ignore[arg-type]
    return inbound, far


def push(inbound: Inbound, data: bytes) -> None:
    """As the event loop does with what the kernel has."""
    while data:
        place = inbound.get_buffer(-1)
        taken = min(len(place), len(data))
        assert taken > 0
        place[:taken] = data[:taken]
        inbound.buffer_updated(taken)
        data = data[taken:]


def message(payload: bytes, reply: str = "", headers: bytes = b"") -> bytes:
    middle = f"a.b 7 {reply} " if reply else "a.b 7 "
    if headers:
        return f"HMSG {middle}{len(headers)} {len(headers) + len(payload)}\r\n".encode() + headers + payload + b"\r\n"
    return f"MSG {middle}{len(payload)}\r\n".encode() + payload + b"\r\n"


HEADERS = b"NATS/1.0\r\nName: value\r\n\r\n"
SIZES = st.one_of(st.integers(0, 300), st.integers(SCRATCH - 40, SCRATCH + 40), st.just(3 * SCRATCH))
MESSAGES = st.builds(
    lambda size, reply, headers: message(b"\r\n MSG" * (size // 6) + b"x" * (size % 6), reply, headers),
    SIZES,
    st.sampled_from(["", "_INBOX.x"]),
    st.sampled_from([b"", HEADERS]),
)
LINES = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n", b'INFO {"a":1}\r\n'])


@given(st.lists(st.one_of(MESSAGES, LINES), max_size=8), st.lists(st.integers(1, 2 * SCRATCH), max_size=40))
def test_what_arrives_is_what_nats_py_hears(items: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(items)
    ours, theirs = Heard(), Heard()

    async def both() -> None:
        await Parser(theirs).parse(stream)
        inbound, _far = arriving()
        parser = ItemParser(ours)  # type: ignore[arg-type]
        rest = stream
        for cut in [*cuts, len(stream)]:
            push(inbound, rest[:cut])
            rest = rest[cut:]
            if inbound._items:
                await parser.parse(await inbound.items())

    asyncio.run(both())
    assert len(theirs.told) == sum(item != b"+OK\r\n" for item in items)
    assert ours.told == theirs.told


@given(st.integers(SCRATCH - 80, SCRATCH + 80), st.integers(0, SCRATCH))
def test_a_message_at_the_edge_of_the_scratch(size: int, first: int) -> None:
    async def hear() -> list[tuple[Any, ...]]:
        inbound, _far = arriving()
        heard = Heard()
        stream = message(bytes(size)) + b"PING\r\n"
        push(inbound, stream[:first])
        push(inbound, stream[first:])
        await ItemParser(heard).parse(await inbound.items())  # type: ignore[arg-type]
        return heard.told

    assert asyncio.run(hear()) == [("message", 7, b"a.b", b"", bytes(size), None), ("ping",)]


async def test_a_reset_forgets_what_was_not_parsed() -> None:
    inbound, _far = arriving()
    push(inbound, b"PING\r\n-ERR 'stale connection'\r\nPING\r\n")
    heard = Heard()
    parser = ItemParser(heard)  # type: ignore[arg-type]

    async def gone(error: str) -> None:
        parser.reset()

    heard._process_err = gone  # type: ignore[method-assign]
    await parser.parse(await inbound.items())
    assert heard.told == [("ping",)]


@pytest.mark.parametrize("line", [b"MSG a.b 7\r\n", b"MSG a.b x 5\r\n", b"HMSG a.b 7 5\r\n", b"MSG a b c d e f\r\n"])
async def test_a_malformed_message_ends_the_connection(line: bytes) -> None:
    inbound, far = arriving()
    push(inbound, line)
    assert far.aborted
    with pytest.raises(ProtocolError):
        await inbound.items()


async def test_a_line_without_an_end_ends_the_connection() -> None:
    inbound, far = arriving()
    push(inbound, bytes(SCRATCH))
    assert far.aborted
    with pytest.raises(ProtocolError):
        await inbound.items()


async def test_reading_pauses_while_nobody_takes_what_is_there() -> None:
    inbound, far = arriving()
    seen = []
    for _ in range((wire.PAUSE_AT >> 20) + 1):
        push(inbound, message(bytes(1 << 20)))
        seen.append(far.reading)
    assert seen == [True] * (wire.PAUSE_AT >> 20) + [False]
    await inbound.items()
    assert far.reading


async def test_the_end_is_told_after_what_came_before_it() -> None:
    inbound, _far = arriving()
    push(inbound, b"PING\r\n")
    inbound.connection_lost(ConnectionResetError("reset"))
    assert not inbound.at_eof
    assert list(await inbound.items()) == [b"PING\r\n"]
    with pytest.raises(ConnectionResetError):
        await inbound.items()
    with pytest.raises(ConnectionResetError):
        await inbound.writable()
    assert inbound.at_eof


async def test_a_quiet_end_is_an_empty_line() -> None:
    inbound, _far = arriving()
    inbound.connection_lost(None)
    assert await inbound.line() == b""
    assert not await inbound.items()


# ---- sending


@given(st.lists(st.one_of(st.binary(max_size=50), st.integers(SCRATCH - 2, 2 * WRITE_SIZE + 2).map(bytes)), max_size=9))
def test_blocks_hold_all_in_turn_and_copy_only_what_is_small(parts: list[bytes]) -> None:
    found = blocks([Pieces(*parts[:3]), *parts[3:]])
    assert b"".join(found) == b"".join(parts)
    assert all(0 < len(block) <= WRITE_SIZE or len(block) < len(parts) * SCRATCH for block in found)
    large = {id(part) for part in parts if len(part) >= SCRATCH}
    assert {id(block.obj) for block in found if isinstance(block, memoryview)} == large


def test_pieces_stand_in_for_bytes_in_a_command() -> None:
    command = b"PUB a 5\r\n" + Pieces(b"he", b"llo") + b"\r\n"
    assert (bytes(command), len(command)) == (b"PUB a 5\r\nhello\r\n", 16)


# ---- over a socket


@asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that sends back what it hears, after one line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\n")
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_large_and_small_go_there_and_come_back() -> None:
    payload = bytes(range(256)) * 8192
    async with echo() as port:
        transport = WireTransport()
        assert transport  # nats-py would make its own
        await transport.connect(urlparse(f"nats://127.0.0.1:{port}"), 0, 5)
        assert await transport.readline() == b"INFO {}\r\n"
        transport.write(b"PING\r\n")
        transport.writelines(
            [b"MSG a 1 %d\r\n" % len(payload) + Pieces(payload[:9], payload[9:]) + b"\r\n", b"PONG\r\n"]
        )
        await transport.drain()
        heard = Heard()
        while len(heard.told) < 3:
            await ItemParser(heard).parse(await transport.read(0))  # type: ignore[arg-type]
        transport.close()
        await transport.wait_closed()
    assert heard.told == [("ping",), ("message", 1, b"a", b"", payload, None), ("pong",)]


async def test_writing_to_a_connection_that_is_gone_says_so() -> None:
    async with echo() as port:
        transport = WireTransport()
        await transport.connect(urlparse(f"nats://127.0.0.1:{port}"), 0, 5)
        transport.close()
        await transport.wait_closed()
        transport.write(b"PING\r\n")
        with pytest.raises(ConnectionResetError):
            await transport.drain()


async def test_nothing_to_close_before_the_first_connection() -> None:
    transport = WireTransport()
    transport.close()
    await transport.wait_closed()


@pytest.mark.parametrize(
    "used",
    [lambda nc: nc._transport, lambda nc: nc._ps, lambda nc: nc._process_msg, lambda nc: nc._ps.parse],
)
def test_what_is_replaced_is_still_there(used: Callable[[Client], object]) -> None:
    nc = Client()
    used(nc)
    equip(nc)
    used(nc)
