"""Several sources in one backup, as if they were one: all are frozen, then all are read, then all are thawed."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from snappy.errors import SourceError
from snappy.repository.entries import Directory, Entry, Exported, Siblings
from snappy.repository.paths import join, shown, split
from snappy.sources import base

Key = list[bytes]
"""A path's names: what entries come in the order of."""


class Together:
    """They are frozen in their order. Of a folder that several yield, the first says what there is to say of it."""

    def __init__(self, sources: Sequence[base.Source]) -> None:
        self._sources = sources

    def claims(self) -> list[str]:
        """Those of all."""
        return sorted({claim for source in self._sources for claim in source.claims()})

    def snap(self) -> AbstractAsyncContextManager[list[Any]]:
        """What each is frozen to. If one cannot be, those before it are thawed."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[list[Any]]:
        async with AsyncExitStack() as frozen:
            yield [await frozen.enter_async_context(source.snap()) for source in self._sources]

    def export(self, frozen: list[Any]) -> Iterator[Exported]:
        """All entries, merged. Raises :class:`SourceError` for a file that two of them have."""
        streams = [source.export(each) for source, each in zip(self._sources, frozen, strict=True)]
        try:
            yield from merged(streams)
        finally:
            for stream in streams:
                base.end(stream)

    def sizes(self, frozen: list[Any]) -> Iterator[int]:
        """Of all, if all can say."""
        if all(isinstance(source, base.Measurable) for source in self._sources):
            for source, each in zip(self._sources, frozen, strict=True):
                assert isinstance(source, base.Measurable)
                yield from source.sizes(each)

    def interrupt(self) -> None:
        """Each that may wait."""
        for source in self._sources:
            if isinstance(source, base.Interruptible):
                source.interrupt()


class _Head(NamedTuple):
    """What comes next of a stream; ordered by its path, then by the stream's number."""

    key: Key
    number: int
    item: Exported
    rest: Iterator[Exported]


def merged(streams: Sequence[Iterator[Exported]]) -> Iterator[Exported]:
    """The entries of all streams in one order. A stream is asked for what comes next only when its last was taken."""
    heads = [head for number, stream in enumerate(streams) for head in _next(number, stream)]
    heapq.heapify(heads)
    last: Key = []
    folder = False
    while heads:
        head = heapq.heappop(heads)
        if head.key == last:
            if not (folder and _is_folder(head.item)):
                raise SourceError(f"two sources have {shown(b'/' + b'/'.join(head.key))}", hint="exclude it from one")
        else:
            item, left = _divided(head.item, heads[0].key if heads else None)
            yield item
            last, folder = _last_key(item), _is_folder(item)
            if left:
                heapq.heappush(heads, head._replace(key=_key(left), item=left))
                continue
        for following in _next(head.number, head.rest):
            heapq.heappush(heads, following)


def _next(number: int, stream: Iterator[Exported]) -> Iterator[_Head]:
    for item in stream:
        if not isinstance(item, Siblings) or item.looks:
            yield _Head(_key(item), number, item, stream)
            return


def _divided(item: Exported, following: Key | None) -> tuple[Exported, Siblings | None]:
    """As much of it as comes before what follows in another stream, at least one, and what is left."""
    if following is None or not isinstance(item, Siblings) or _last_key(item) < following:
        return item, None
    keys = [split(join(item.folder, name)) for name, _ in item.looks]
    count = max(1, sum(key < following for key in keys))
    left = item._replace(looks=item.looks[count:]) if count < len(keys) else None
    return item._replace(looks=item.looks[:count]), left


def _key(item: Exported) -> Key:
    return split(join(item.folder, item.looks[0][0]) if isinstance(item, Siblings) else item.path)


def _last_key(item: Exported) -> Key:
    return split(join(item.folder, item.looks[-1][0]) if isinstance(item, Siblings) else item.path)


def _is_folder(item: Exported) -> bool:
    return isinstance(item, Directory) or (isinstance(item, Entry) and item.node.type == "dir")
