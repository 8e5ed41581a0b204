"""A TCP proxy that records every byte of every connection, and a search that knows how bytes may be written.

A plain proxy sees what crosses a wire without TLS: everything. It runs on an event loop in a thread of its own, so
that processes under test can connect to it whatever the test does.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.support.background import loop_in_thread

READ_SIZE = 1 << 18


class WireProxy:
    """Forwards connections on ``url`` to the server; ``recorded`` holds one byte string a direction and connection."""

    def __init__(self, upstream: str) -> None:
        where = urlsplit(upstream)
        self._host, self._port = where.hostname, where.port
        self._records: list[bytearray] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._forwarding: list[asyncio.Task[None]] = []
        self.url = ""

    @property
    def recorded(self) -> list[bytes]:
        return [bytes(record) for record in self._records]

    @property
    def total(self) -> int:
        """Bytes recorded so far."""
        return sum(map(len, self._records))

    def forget(self) -> None:
        """Drop what was recorded so far."""
        for record in self._records:
            record.clear()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
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
        self._forwarding.append(task)
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, far_writer]
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = bytearray()
        self._records.append(record)
        with suppress(ConnectionError):
            while data := await reader.read(READ_SIZE):
                record += data
                writer.write(data)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@contextmanager
def wire_proxy(upstream: str, kind: type[WireProxy] = WireProxy) -> Iterator[WireProxy]:
    """A proxy before the server at ``upstream``, for the length of the context."""
    proxy = kind(upstream)
    with loop_in_thread() as loop:
        asyncio.run_coroutine_threadsafe(proxy.start(), loop).result(10)
        yield proxy
        asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result(10)


def spellings(marker: bytes) -> dict[str, bytes]:
    """How ``marker`` may stand in a stream: as it is, in hex, and in base64 at each of the three alignments.

    In base64 the first and last characters also depend on the neighbours, so they are left out.
    """
    found = {"raw": marker, "hex": marker.hex().encode(), "HEX": marker.hex().upper().encode()}
    for shift in range(3):
        whole = (shift + len(marker)) // 3 * 3 - shift
        encoded = base64.b64encode(bytes(shift) + marker[:whole])[4 if shift else 0 :]
        found[f"base64+{shift}"] = encoded
        found[f"base64url+{shift}"] = encoded.replace(b"+", b"-").replace(b"/", b"_")
    return found


def sightings(markers: dict[str, bytes], streams: list[bytes]) -> set[tuple[str, str]]:
    """Which marker was seen in which spelling."""
    return {
        (name, spelling)
        for name, marker in markers.items()
        for spelling, needle in spellings(marker).items()
        if any(needle in stream for stream in streams)
    }
