"""Whole objects and ranges of a target, sent and fetched by the cheapest way that fits, and again where that is safe.

What fits one message takes one request; what does not is a transfer in frames. A transfer that the target lost (it
was restarted, or another replica took over), or whose bytes were damaged on their way, is begun anew once.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import BinaryIO, TypeVar

from snappy.bus.downloads import Download
from snappy.bus.protocol import MESSAGE_OVERHEAD, Answer, Mode, Put, named_hash
from snappy.bus.remote import Remote
from snappy.bus.uploads import Upload
from snappy.errors import AccessDenied, AlreadyExists, BusUnavailable, Corrupt, NotFound, SnappyError, Unavailable

PIECE = 4 << 20
"""Bytes read at a time from a file that is sent."""
SMALL = 256 << 10
"""Bytes up to which a file is sent from memory."""

Bytes = bytes | bytearray | memoryview
Progress = Callable[[int], object]
"""Told the bytes that went over since it was last told."""
Result = TypeVar("Result")


class Objects:
    """``window`` frames are under way at a time; ``read_digest`` asks for a SHA-256 over what is read in frames."""

    def __init__(self, remote: Remote, window: int, read_digest: bool) -> None:
        self._remote, self._window, self._read_digest = remote, window, read_digest

    # ---- fetching

    async def read(self, path: str, start: int, end: int | None) -> bytes:
        async def once() -> bytes:
            return await (await self.download(path, start, end)).read()

        return await self._again(once)

    async def receive(self, path: str, file: BinaryIO, size: Progress, progress: Progress) -> None:
        """Write the object into ``file``; ``size`` is told its bytes first."""

        async def once() -> None:
            file.seek(0)
            download = await self.download(path, 0, None)
            size(download.size)
            async for piece in download.pieces():
                file.write(piece)
                progress(len(piece))

        await self._again(once)

    async def download(self, path: str, start: int, end: int | None) -> Download:
        return await Download.open(self._remote, path, start, end, window=self._window, digest=self._read_digest)

    # ---- sending

    async def write(self, path: str, content: Bytes, mode: Mode) -> None:
        """``content`` becomes the object; a lost answer is no failure if the object is there and the same."""
        await self._once(
            path,
            lambda: self._send(path, content, mode),
            lambda: self._holds(path, io.BytesIO(content), len(content)),
        )

    async def write_file(self, path: str, file: BinaryIO, size: int, mode: Mode, progress: Progress) -> None:
        """As :meth:`write`, of the ``size`` bytes in ``file``, which is read in a thread."""
        await self._once(
            path, lambda: self._send_file(path, file, size, mode, progress), lambda: self._holds(path, file, size)
        )

    async def open_upload(self, path: str, mode: Mode, size: int | None = None) -> Upload:
        """An upload that the caller commits or discards."""
        return await Upload.open(self._remote, path, mode, size, self._window)

    @asynccontextmanager
    async def upload(self, path: str, mode: Mode, size: int | None = None) -> AsyncIterator[Upload]:
        """An upload that is committed at the end of the block, and discarded where the block raises."""
        upload = await self.open_upload(path, mode, size)
        try:
            yield upload
            await upload.commit()
        except BaseException:
            await upload.discard()
            raise

    async def _send(self, path: str, content: Bytes, mode: Mode) -> None:
        if len(content) + len(path.encode()) <= await self._remote.max_payload() - MESSAGE_OVERHEAD:
            request = Put(path=path, data=bytes(content), mode=mode)
            await self._remote.ask("put", request, Answer)
            return
        async with self.upload(path, mode, len(content)) as upload:
            await upload.write(memoryview(content))

    async def _send_file(self, path: str, file: BinaryIO, size: int, mode: Mode, progress: Progress) -> None:
        file.seek(0)
        if size <= SMALL:
            await self._send(path, await asyncio.to_thread(file.read), mode)
            progress(size)
            return
        async with self.upload(path, mode, size) as upload:
            while piece := await asyncio.to_thread(file.read, PIECE):
                await upload.write(piece, progress)

    async def _holds(self, path: str, file: BinaryIO, size: int) -> bool:
        """Whether the object at ``path`` is what ``file`` holds."""
        file.seek(0)
        try:
            download = await self.download(path, 0, None)
            same = [file.read(len(piece)) == piece async for piece in download.pieces()]
        except NotFound:
            return False
        return download.size == size and all(same)

    # ---- again

    async def _once(self, path: str, send: Callable[[], Awaitable[None]], done: Callable[[], Awaitable[bool]]) -> None:
        """``send``, and once more where the transfer was lost or damaged; a name that an earlier try took is a success.

        Of an object that is named by its SHA-256 every try may be one more: of the storage's own client, or of a
        caller whose grant ran out between the object and the answer.
        """
        try:
            await self._unless_done(send, done, lost=bool(named_hash(path)))
        except (BusUnavailable, Unavailable, Corrupt):
            await self._unless_done(send, done, lost=True)

    async def _unless_done(
        self, send: Callable[[], Awaitable[None]], done: Callable[[], Awaitable[bool]], *, lost: bool
    ) -> None:
        try:
            await send()
        except (AlreadyExists, AccessDenied) as error:
            if not (lost or _repeated(error)) or not await done():
                raise

    async def _again(self, fetch: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await fetch()
        except (BusUnavailable, Unavailable, Corrupt):
            return await fetch()


def _repeated(error: SnappyError) -> bool:
    return bool(error.details.get("repeated"))
