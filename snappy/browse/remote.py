"""A repository behind a source service: that has the key, and reads for whoever may browse."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from fsspec.asyn import get_loop

from snappy import config
from snappy.browse.tree_shelf import TreeShelf
from snappy.bus.connection import Bus
from snappy.decoding import converted
from snappy.errors import Damaged, InternalError, SnapshotNotFound, UsageError
from snappy.frontend import alive
from snappy.frontend.api import Client
from snappy.jobs.api_words import MOST_LOCATED, MOST_TREES, Place
from snappy.repository.format import BlobId, BlobLocation, BlobType, PackId, blob_id, parse_id
from snappy.repository.snapshots import LATEST, Snapshot, matches

PARALLEL = 8
"""Blobs that are under way at once."""
LOCATED_BYTES = 512
"""What one place may take in an answer."""

Answer = TypeVar("Answer")


class RemoteLibrary:
    """As :class:`snappy.repository.browsable.Browsable`; beside what that raises, BusError and Denied. ``connected``
    gives the client, and holds it until :meth:`close`."""

    def __init__(self, connected: AbstractAsyncContextManager[tuple[Client, str]], target: str, key: str) -> None:
        self._target, self._key = target, key
        self._done, self._room = asyncio.Event(), asyncio.Semaphore(PARALLEL)
        self._loop = get_loop()
        self._trees = TreeShelf(self._fetch_trees, self._load_tree, most=MOST_TREES)
        ready: Future[tuple[Client, str]] = Future()
        self._held = asyncio.run_coroutine_threadsafe(_hold(connected, ready, self._done), self._loop)
        self._client, self._source = ready.result()

    def close(self) -> None:
        """Let go of the client."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._held.result()

    def _ask(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        """From any thread but the loop's own."""
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()

    # ---- snapshots

    def snapshots(self, *, strict: bool = False) -> list[Snapshot]:
        found = self._ask(self._client.snapshots(self._source, self._target, self._key))
        return [converted(each, Snapshot) for each in found]

    def find_snapshot(self, spec: str, **filters: Any) -> Snapshot:
        listed = self.snapshots()
        if spec == LATEST:
            found = [each for each in listed if matches(each, **filters)][-1:]
        else:
            found = [each for each in listed if each.id.startswith(spec)]
        if len(found) != 1:
            raise SnapshotNotFound(f"{len(found) or 'no'} snapshots are meant by {spec!r}")
        return found[0]

    # ---- blobs

    def load_index(self) -> None:
        """The service looks for what is new whenever it is asked about what it does not know."""

    def locate(self, kind: BlobType, blobs: Sequence[BlobId]) -> list[BlobLocation | None]:
        """As many at a time as an answer can hold."""
        size = max(1, min(MOST_LOCATED, self._client.bus.nc.max_payload // LOCATED_BYTES))
        found: list[BlobLocation | None] = []
        for start in range(0, len(blobs), size):
            some = blobs[start : start + size]
            places = self._ask(
                self._client.locate(self._source, self._target, self._key, kind.value, [blob.hex() for blob in some])
            )
            if len(places) != len(some):
                raise InternalError("the service's answer does not fit the question")
            found += [_location(kind, *pair) for pair in zip(some, places, strict=True)]
        return found

    def location(self, kind: BlobType, blob: BlobId) -> BlobLocation | None:
        """None: nobody here can make use of where a tree lies."""
        return None

    def load_blob(self, kind: BlobType, blob: BlobId, ahead: Iterable[BlobId] = ()) -> bytes:
        return self._trees.take(blob, ahead) if kind is BlobType.TREE else self._ask(self._load(kind, blob))

    def _fetch_trees(self, trees: Sequence[BlobId]) -> list[bytes]:
        return self._ask(self._client.trees(self._source, self._target, self._key, [tree.hex() for tree in trees]))

    def _load_tree(self, tree: BlobId) -> bytes:
        return self._ask(self._load(BlobType.TREE, tree))

    def load_blobs(self, pack: PackId, entries: Iterable[BlobLocation]) -> Iterator[tuple[BlobLocation, bytes]]:
        """Some at the same time. Raises the first failure, after what came before it."""
        places = list(entries)
        coming = [asyncio.run_coroutine_threadsafe(self._load(each.kind, each.id), self._loop) for each in places]
        try:
            yield from ((place, one.result()) for place, one in zip(places, coming, strict=True))
        finally:
            for one in coming:
                one.cancel()

    async def _load(self, kind: BlobType, blob: BlobId) -> bytes:
        async with self._room:
            data = await self._client.blob(self._source, self._target, self._key, kind.value, blob.hex())
        if blob_id(data) != blob:
            raise Damaged(f"the {kind.value} blob {blob.hex()[:8]} came changed")
        return data

    def read_pack(self, pack: PackId, offset: int, length: int) -> bytes:
        raise Damaged("packs are read by the source service alone")

    def open_blob(self, blob: BlobLocation, sealed: memoryview) -> bytes:
        raise Damaged("blobs are opened by the source service alone")


@asynccontextmanager
async def connected(target: str, source: str, nats: config.Nats | None = None) -> AsyncIterator[tuple[Client, str]]:
    """A client, and the name of the source service, by ``nats`` or the configuration. Raises UsageError."""
    settings = config.load(None, os.environ)
    nats = nats or settings.nats
    if not nats.url:
        raise UsageError(f"{target!r} is a target's name, and no server is configured", hint="set nats.url")
    bus = await Bus.connect(nats, name="snappy-browse", prefix=settings.prefix)
    try:
        client = Client(bus)
        yield client, source or await alive.only_source(client)
    finally:
        await bus.drain()


async def _hold(
    connected: AbstractAsyncContextManager[tuple[Client, str]],
    ready: Future[tuple[Client, str]],
    done: asyncio.Event,
) -> None:
    try:
        async with connected as found:
            ready.set_result(found)
            await done.wait()
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _location(kind: BlobType, blob: BlobId, place: Place | None) -> BlobLocation | None:
    if place is None:
        return None
    return BlobLocation(kind, blob, parse_id(place.pack), place.offset, place.length, place.uncompressed_length)
