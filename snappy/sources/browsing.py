"""What a source service answers about what is in backups: where blobs lie, and their plain bytes.

The repositories that were asked about last stay open for a while, with their indexes in memory.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TypeVar

from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.remote import Grant
from snappy.config import Allow
from snappy.errors import Damaged, Denied
from snappy.jobs.api_words import BlobPiece, BlobRequest, LocateRequest, Place, TreesRequest
from snappy.jobs.messages import HoldAnswer
from snappy.repository.format import BlobId, BlobLocation, BlobType
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.tree_reader import TreeReader
from snappy.sources.allow import ALL

KIND = "browse"
KEPT_OPEN = 4
KEPT_SECONDS = 300.0
KEPT_BLOBS = 8
"""Of each repository: a blob that does not fit into one message is asked for piece by piece."""
TREE_MARGIN = 8
"""Bytes that a tree takes in an answer beside its own."""
RENEW_SECONDS = 20.0
"""A grant that holds no longer than that is renewed before it is used."""

Files = Callable[[str, Grant], AbstractAsyncContextManager[SnappyFileSystem]]
AskRead = Callable[[str], Awaitable[HoldAnswer]]
Request = LocateRequest | BlobRequest | TreesRequest
Answer = TypeVar("Answer")


def check(allowed: Allow, target: str, caller: str) -> None:
    """Who browses reads all that is in a repository. So ``*`` among the kinds stands for that too only where restores
    may go anywhere. Raises Denied."""
    kinds = KIND in allowed.kinds or (ALL in allowed.kinds and ALL in allowed.restore_to)
    if not kinds or not {target, ALL} & set(allowed.targets):
        raise Denied(f"{caller} may not browse {target!r} here", hint="its rule's kinds must name `browse`")


class OpenRepository:
    """A repository that is open, with a grant that is renewed."""

    def __init__(self, target: str, ask_read: AskRead) -> None:
        self._target, self._ask_read = target, ask_read
        self._grant, self._ends = "", 0.0
        self._held = AsyncExitStack()
        self._blobs: OrderedDict[BlobId, bytes] = OrderedDict()
        self._looking = threading.Lock()
        self.lock = asyncio.Lock()
        self.used = 0.0
        self.users = 0

    async def open(self, files: Files, password: str, cache: Path | None) -> None:
        """Raises what opening a repository and loading its index raise."""
        await self.renew()
        opened = await self._held.enter_async_context(files(self._target, lambda: self._grant))

        def enter() -> Repository:
            repository = Repository.open(Store(opened, ""), password, cache=cache)
            repository.load_index()
            return repository

        self._repository = await asyncio.to_thread(enter)
        self._held.callback(self._repository.close)

    async def close(self) -> None:
        await self._held.aclose()

    async def renew(self) -> None:
        """Have a grant that holds for a while. Raises what the core answers."""
        if self._ends - time.monotonic() < RENEW_SECONDS:
            asked = time.monotonic()
            answer = await self._ask_read(self._target)
            self._grant, self._ends = answer.grant, asked + answer.deadline - answer.clock

    def locate(self, kind: BlobType, blobs: list[BlobId]) -> list[Place | None]:
        """From any thread. Blobs that are unknown may have been stored since: then the index is loaded anew."""
        found = self._repository.locate(kind, blobs)
        if None in found:
            with self._looking:
                self._repository.load_index()
            found = self._repository.locate(kind, blobs)
        return [_place(each) if each else None for each in found]

    def blob(self, kind: BlobType, blob: BlobId) -> bytes:
        """From any thread. Raises Damaged and StorageError."""
        with self._looking:
            kept = self._blobs.get(blob)
        if kept is not None:
            return kept
        self.locate(kind, [blob])
        data = self._repository.load_blob(kind, blob)
        with self._looking:
            self._blobs[blob] = data
            if len(self._blobs) > KEPT_BLOBS:
                self._blobs.popitem(last=False)
        return data

    def trees(self, wanted: Sequence[BlobId], room: int) -> list[bytes]:
        """From any thread. The first of them, ``room`` bytes at most. Raises Damaged if the first cannot be read, and
        StorageError."""
        self.locate(BlobType.TREE, list(wanted))
        reader, found = TreeReader(self._repository), list[bytes]()
        for number, tree in enumerate(wanted):
            try:
                data = reader.load_plain(tree, wanted[number + 1 :])
            except Damaged:
                if not found:
                    raise
                break
            room -= len(data) + TREE_MARGIN
            if room < 0:
                break
            found.append(data)
        return found


class BrowseDesk:
    """Answers callers that :func:`check` lets pass. ``piece_size``: the plain bytes that one answer can hold."""

    def __init__(
        self,
        files: Files,
        ask_read: AskRead,
        password: Callable[[str], str],
        cache: Path | None,
        piece_size: Callable[[], int],
    ) -> None:
        self._files, self._ask_read, self._password = files, ask_read, password
        self._cache, self._piece_size = cache, piece_size
        self._open: OrderedDict[tuple[str, str], OpenRepository] = OrderedDict()

    async def locate(self, request: LocateRequest) -> list[Place | None]:
        """Raises UnknownKey, RepositoryError, StorageError and BusError."""
        blobs = [bytes.fromhex(blob) for blob in request.blobs]
        return await self._in_thread(request, lambda opened: opened.locate(BlobType(request.kind), blobs))

    async def piece(self, request: BlobRequest) -> BlobPiece:
        """Raises as :meth:`locate`, and Damaged."""
        wanted = bytes.fromhex(request.blob)
        data = await self._in_thread(request, lambda opened: opened.blob(BlobType(request.kind), wanted))
        return BlobPiece(data=data[request.offset :][: self._piece_size()], size=len(data))

    async def trees(self, request: TreesRequest) -> list[bytes]:
        """Raises as :meth:`piece`."""
        wanted = [bytes.fromhex(tree) for tree in request.trees]
        return await self._in_thread(request, lambda opened: opened.trees(wanted, self._piece_size()))

    async def _in_thread(self, request: Request, work: Callable[[OpenRepository], Answer]) -> Answer:
        """A repository that fails to open is forgotten."""
        name = (request.target, request.key)
        opened = self._open.setdefault(name, OpenRepository(request.target, self._ask_read))
        self._open.move_to_end(name)
        opened.users += 1
        try:
            async with opened.lock:
                if not opened.used:
                    password = await asyncio.to_thread(self._password, request.key)
                    await opened.open(self._files, password, self._cache)
                opened.used = time.monotonic()
                await opened.renew()
            return await asyncio.to_thread(work, opened)
        finally:
            opened.users -= 1
            if not opened.used and not opened.users and self._open.get(name) is opened:
                del self._open[name]
                await opened.close()
            await self._tidy(time.monotonic() - KEPT_SECONDS)

    async def close(self) -> None:
        """Close all that is open."""
        while self._open:
            await self._open.popitem()[1].close()

    async def keep_tidy(self) -> None:
        """Close what nobody asked about for a while, for ever."""
        while True:
            await asyncio.sleep(KEPT_SECONDS / 5)
            await self._tidy(time.monotonic() - KEPT_SECONDS)

    async def _tidy(self, since: float) -> None:
        """Close what was not used since then, and more than may be open; nothing that is in use."""
        idle = [name for name, opened in self._open.items() if not opened.users]
        surplus = len(self._open) - KEPT_OPEN
        for number, name in enumerate(idle):
            if number < surplus or self._open[name].used < since:
                await self._open.pop(name).close()


def _place(found: BlobLocation) -> Place:
    return Place(
        pack=found.pack.hex(),
        offset=found.offset,
        length=found.length,
        uncompressed_length=found.uncompressed_length,
    )
