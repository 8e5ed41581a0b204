from __future__ import annotations

import asyncio
import base64
import secrets

import pytest

from tests.support.wire_proxy import sightings, spellings, wire_proxy

MARKER = secrets.token_bytes(64)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("after", range(4))
def test_every_base64_around_a_marker_is_found(before: int, after: int) -> None:
    text = base64.b64encode(secrets.token_bytes(before) + MARKER + secrets.token_bytes(after))
    assert sightings({"it": MARKER}, [text])


@pytest.mark.parametrize("encode", [bytes, bytes.hex, base64.urlsafe_b64encode])
def test_every_spelling_is_found(encode: object) -> None:
    assert callable(encode)
    text = encode(MARKER)
    assert sightings({"it": MARKER}, [b"before" + (text if isinstance(text, bytes) else text.encode()) + b"after"])


def test_nothing_is_found_where_nothing_is() -> None:
    assert sightings({"it": MARKER}, [secrets.token_bytes(100_000), MARKER[:63]]) == set()
    assert all(len(needle) >= 60 for needle in spellings(MARKER).values())


async def test_the_proxy_forwards_and_records_both_ways() -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    with wire_proxy(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(b"hello")
        assert await reader.read() == b"HELLO"
        writer.close()
        assert sorted(proxy.recorded) == [b"HELLO", b"hello"]
        assert proxy.total == 10
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
