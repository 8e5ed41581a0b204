"""Requests of a filesystem over HTTP: bounded in time and memory, tried again where that may help."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, BinaryIO, NamedTuple

import aiohttp
from fsspec.asyn import get_loop
from yarl import URL

CONNECTIONS = 32
QUIET_SECONDS = 30.0
"""A server that neither takes nor gives a byte for so long is given up."""
PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=QUIET_SECONDS)
ATTEMPTS = 3
PAUSE, LONGEST_PAUSE = 0.2, 1.0
"""Seconds before the second attempt; before each further one twice as many."""
PIECE = 256 << 10
"""Bytes of a body that are read and sent at once."""
CLOSE_SECONDS = 1.0
PASSING = frozenset({408, 429, 498, 500, 502, 503, 504})
"""What a server says that may do it the next time."""

_ERRNO: dict[int, int] = {
    HTTPStatus.UNAUTHORIZED: errno.EACCES,
    HTTPStatus.FORBIDDEN: errno.EACCES,
    HTTPStatus.NOT_FOUND: errno.ENOENT,
    HTTPStatus.GONE: errno.ENOENT,
    HTTPStatus.PRECONDITION_FAILED: errno.EEXIST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: errno.EDQUOT,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: errno.ESPIPE,
    HTTPStatus.INSUFFICIENT_STORAGE: errno.ENOSPC,
    HTTPStatus.METHOD_NOT_ALLOWED: errno.EOPNOTSUPP,
    HTTPStatus.NOT_IMPLEMENTED: errno.EOPNOTSUPP,
}


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class Web:
    """A client on fsspec's event loop, whose connections end when nobody has it any more.

    ``passing``: statuses beside :data:`PASSING` after which a request is tried again, ``attempts`` times in all.
    """

    def __init__(self, passing: frozenset[int] = frozenset(), attempts: int = ATTEMPTS) -> None:
        self._passing, self._attempts = PASSING | passing, attempts
        self._session: aiohttp.ClientSession | None = None

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: BinaryIO | None = None
    ) -> Answer:
        """The answer, whatever its status; ``url`` is quoted already. ``body`` is sent from its start.

        Raises OSError where none came.
        """
        for attempt in range(1, self._attempts):
            with suppress(aiohttp.ClientError, TimeoutError):
                answer = await self._once(method, url, headers or {}, body)
                if answer.status not in self._passing:
                    return answer
            await asyncio.sleep(min(LONGEST_PAUSE, PAUSE * 2 ** (attempt - 1)))
        try:
            return await self._once(method, url, headers or {}, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(errno.EIO, f"{method}: no answer") from error

    async def _once(self, method: str, url: str, headers: Mapping[str, str], body: BinaryIO | None) -> Answer:
        async with asyncio.timeout(None) as patience:
            sending: dict[str, Any] = {"headers": headers}
            if body is not None:
                length = str(body.seek(0, io.SEEK_END))
                sending = {"headers": {**headers, "Content-Length": length}, "data": _sent(body, patience)}
            where = URL(url, encoded=True)
            async with self._opened().request(method, where, allow_redirects=False, **sending) as answer:
                patience.reschedule(None)
                return Answer(answer.status, answer.headers, await answer.read())

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                timeout=PATIENCE,
                headers={"Accept-Encoding": "identity"},
            )
            weakref.finalize(self, _close, self._session)
        return self._session


def refusal(answer: Answer, path: str) -> OSError:
    """What an answer that is no success means for ``path``."""
    number = _ERRNO.get(answer.status, errno.EIO)
    return OSError(number, f"{os.strerror(number)} (HTTP {answer.status})", path)


async def _sent(body: BinaryIO, patience: asyncio.Timeout) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    body.seek(0)
    while piece := await asyncio.to_thread(body.read, PIECE):
        patience.reschedule(loop.time() + QUIET_SECONDS)
        yield piece


def _close(session: aiohttp.ClientSession) -> None:
    loop = get_loop()
    if not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # no loop waits for this thread
        with suppress(TimeoutError):
            closing.result(CLOSE_SECONDS)
