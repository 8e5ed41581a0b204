"""The direct way: the bytes of a transfer over a Unix socket, where target and caller run on one host.

A target listens on an abstract socket with a random name and says that name when it opens a transfer. A caller that
finds it there connects and shows the transfer's token, 32 characters. The target answers ``+`` and the bytes follow,
all of them in order; else it hangs up, and the transfer goes on in frames. Whatever else is said of a transfer is said
on its subjects; there each end also says which user it runs as, and each has the kernel confirm that of the other.

The socket has no file: it ends with its process, and in another network namespace or on another host nobody finds it.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

log = structlog.get_logger(module=__name__)

AVAILABLE = sys.platform == "linux"
NAME = re.compile(r"[0-9a-f]{32}\Z")
TOKEN_SIZE = 32
NOBODY = -1
"""The user id of who does not go the direct way."""
WELCOME = b"+"
SHAKE_SECONDS = 2.0
"""How long either end waits for the other's first word."""
SHAKING = 16
"""Callers that may be about to show a token at the same time."""
_CREDENTIALS = struct.Struct("3i")
_TIMEVAL = struct.Struct("ll")

Result = TypeVar("Result")
Welcome = Callable[[str, socket.socket], bool]
"""``(token, line)``: whether a transfer took the line."""


class Listener:
    """The target's end. ``welcome`` is called on the event loop; a line that it takes is its own to close.

    ``seconds`` is how long a line may stand still.
    """

    def __init__(self, welcome: Welcome, seconds: float) -> None:
        self._welcome, self._seconds = welcome, seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(SHAKING)
        self.name = secrets.token_hex(16)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(_address(self.name))
        self._socket.listen(SHAKING)

    def start(self) -> None:
        self._spawn(self._accept())

    async def close(self) -> None:
        """Who was about to show a token is sent away."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                line, _ = await loop.sock_accept(self._socket)
            except OSError as error:  # no descriptor is left, for now
                log.warning("the direct way lets nobody in", reason=str(error))
                self._room.release()
                await asyncio.sleep(SHAKE_SECONDS)
            else:
                self._spawn(self._shake(line)).add_done_callback(lambda _task: self._room.release())

    async def _shake(self, line: socket.socket) -> None:
        taken = False
        try:
            async with asyncio.timeout(SHAKE_SECONDS):
                token = await self._token(line)
            _settle(line, self._seconds)
            taken = self._welcome(token, line)
            if taken:
                line.send(WELCOME, socket.MSG_DONTWAIT)  # before the transfer's task has its turn
        except (OSError, EOFError, TimeoutError, UnicodeDecodeError) as error:
            log.debug("a caller of the direct way was sent away", reason=repr(error))
        finally:
            if not taken:
                line.close()

    async def _token(self, line: socket.socket) -> str:
        found = bytearray()
        while len(found) < TOKEN_SIZE:
            more = await asyncio.get_running_loop().sock_recv(line, TOKEN_SIZE - len(found))
            if not more:
                raise EOFError
            found += more
        return found.decode("ascii")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Dialer:
    """The caller's end. What once did not work with a target's process is not tried with it again."""

    def __init__(self, wanted: bool) -> None:
        self.user = os.geteuid() if wanted and AVAILABLE else NOBODY
        """What a request says for the target to offer the direct way."""
        self._in_vain: set[str] = set()

    async def dial(self, name: str, user: int, token: str, seconds: float) -> socket.socket | None:
        """A line that carries the bytes of the transfer, and may stand still for ``seconds``; None where there is no
        direct way. ``name`` and ``user`` are what the target said of itself."""
        if self.user == NOBODY or name in self._in_vain or not NAME.match(name):
            return None
        dialing = asyncio.create_task(asyncio.to_thread(_dial, name, user, token, seconds))
        try:
            return await asyncio.shield(dialing)
        except (OSError, EOFError) as error:
            self.give_up(name, error)
            return None
        except asyncio.CancelledError:
            dialing.add_done_callback(_drop)
            raise

    def give_up(self, name: str, error: Exception) -> None:
        log.debug("frames instead of the direct way", reason=repr(error))
        self._in_vain.add(name)


async def in_thread(line: socket.socket, work: Callable[..., Result], *args: Any) -> Result:
    """What ``work`` does with the line. Who is cancelled waits until no thread uses the descriptor any more."""
    running = asyncio.create_task(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        hang_up(line)
        await asyncio.wait([running])
        raise


def hang_up(line: socket.socket) -> None:
    """End what any thread does with the line; its descriptor stays."""
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def send_file(line: socket.socket, handle: int, start: int, size: int) -> int:
    """Send a range of an open file, without a copy in this process; how much of it there was."""
    sent = 0
    while sent < size and (count := os.sendfile(line.fileno(), handle, start + sent, size - sent)):
        sent += count
    return sent


def peer_user(line: socket.socket) -> int:
    """The user id of the process that made the other end, as the kernel knows it."""
    _, user, _ = _CREDENTIALS.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def _dial(name: str, user: int, token: str, seconds: float) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(SHAKE_SECONDS)
        line.connect(_address(name))
        if peer_user(line) != user:
            raise PermissionError("the socket is not the target's")
        line.sendall(token.encode())
        if line.recv(len(WELCOME)) != WELCOME:
            raise EOFError
        _settle(line, seconds)
    except BaseException:
        line.close()
        raise
    return line


def _drop(dialing: asyncio.Task[socket.socket]) -> None:
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result().close()


def _settle(line: socket.socket, seconds: float) -> None:
    """Make every call wait for all of its bytes, in the kernel: one call moves megabytes."""
    line.setblocking(True)
    patience = _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)


def _address(name: str) -> str:
    return f"\0snappy-{name}"
