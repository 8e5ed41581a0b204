"""``snappy://``: a target as an fsspec filesystem, whose operations travel over NATS.

::

    fs = fsspec.filesystem("snappy", target="vault", url="nats://127.0.0.1:4222", caller="site1", grant=token)
    fs.pipe_file("data/ab/ab12...", content)

It works from coroutines (``asynchronous=True``, the methods with an underscore) and from any thread (without). Each
instance has a connection of its own, so that a full pipe delays nobody's control messages. Nothing is cached.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import is_exception, isfilelike

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.failures import ExistingFile
from snappy.bus.files import SnappyFile
from snappy.bus.objects import Bytes, Objects
from snappy.bus.protocol import (
    Answer,
    Copy,
    Find,
    Item,
    ItemAnswer,
    List,
    MakeDirectory,
    Mode,
    PageAnswer,
    PathRequest,
    RemovalAnswer,
)
from snappy.bus.remote import Grant, Patience, Remote
from snappy.bus.uploads import WINDOW
from snappy.errors import NotFound, Unavailable, UsageError

PARALLEL = 16
"""Ranges that are fetched at the same time."""

Result = TypeVar("Result")


class SnappyFileSystem(AsyncFileSystem):
    """One target. Errors are those of :mod:`snappy.errors`, and the ``OSError`` that fsspec's users expect.

    ``caller`` is the NATS user, ``grant`` the core's word for it (a callable gives the one that holds now), ``nats``
    a whole ``[nats]`` section in place of ``url``. ``read_digest=False`` leaves large reads to each frame's CRC-32,
    for a caller with a proof of its own. ``direct=False`` has all bytes go over NATS, also to a target on this host.
    Raises BusUnavailable, BusDenied, ClockSkew beside the errors of storage.
    """

    protocol = "snappy"
    root_marker = ""
    cachable = False

    def __init__(
        self,
        target: str = "",
        url: str = "",
        caller: str = "",
        grant: Grant = "",
        prefix: str = "snappy",
        *,
        nats: config.Nats | None = None,
        patience: Patience | None = None,
        window: int = WINDOW,
        read_digest: bool = True,
        direct: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not target:
            raise UsageError("a snappy:// filesystem needs a target", hint='for example target="vault"')
        section = nats or config.Nats(url=url)
        self.target = target
        self._remote = Remote(lambda: _connect(section, prefix, caller, target), target, grant, patience, direct=direct)
        self.objects = Objects(self._remote, window, read_digest)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        plain = os.fspath(path)
        if plain.startswith("snappy://"):
            plain = plain.removeprefix("snappy://").partition("/")[2]
        return plain.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"target": path.removeprefix("snappy://").partition("/")[0]} if path.startswith("snappy://") else {}

    def close(self) -> None:
        """Drain the connection; the next operation makes a new one. In coroutines: ``await aclose()``."""
        sync(self.loop, self.aclose)

    async def aclose(self) -> None:
        await self._remote.close()

    async def aconnect(self) -> None:
        """Make the connection, as the first operation would, which waits no longer for a server than this does."""
        await self._remote.bus()

    # ---- looking

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        request = PathRequest(path=self._strip_protocol(path))
        answer = await self._remote.ask("info", request, ItemAnswer)
        if answer.item is None:
            raise Unavailable("the target answered without an item")
        return _info(answer.item)

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        try:
            await self._info(path)
        except NotFound:
            return False
        return True

    async def _isdir(self, path: str) -> bool:
        return await self._type(path) == "directory"

    async def _isfile(self, path: str) -> bool:
        return await self._type(path) == "file"

    async def _type(self, path: str) -> str:
        try:
            return str((await self._info(path))["type"])
        except NotFound:
            return ""

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        found = [_info(item) async for item in self._pages("ls", List(path=path))]
        return found if detail else [item["name"] for item in found]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        request = Find(path=self._strip_protocol(path), depth=maxdepth, directories=withdirs)
        found = {item.name: _info(item) async for item in self._pages("find", request)}
        return found if detail else list(found)

    async def _pages(self, operation: str, request: List) -> AsyncIterator[Item]:
        while True:
            page = await self._remote.ask(operation, request, PageAnswer)
            for item in page.items:
                yield item
            if not page.cursor:
                return
            request = msgspec.structs.replace(request, listing=page.listing, cursor=page.cursor)

    # ---- reading

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        path = self._strip_protocol(path)
        first, last = await self._range(path, start, end)
        if last is not None and last <= first:
            return b""
        return await self.objects.read(path, first, last)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: Literal["raise", "return"] = "raise",
        **kwargs: Any,
    ) -> list[Any]:
        """Unlike fsspec's default, the first error is raised unless ``on_error="return"``."""
        room = asyncio.Semaphore(batch_size or PARALLEL)

        async def one(path: str, start: int | None, end: int | None) -> bytes:
            async with room:
                return await self._cat_file(path, start, end)

        ranges = zip(paths, _each(starts, paths), _each(ends, paths), strict=True)
        return await _gather([one(*span) for span in ranges], on_error == "return")

    async def _get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, **kwargs: Any) -> None:
        rpath = self._strip_protocol(rpath)
        if isfilelike(lpath):
            await self.objects.receive(rpath, lpath, callback.set_size, callback.relative_update)
        elif await self._isdir(rpath):
            _make_folder(Path(lpath))
        else:
            with _new_file(Path(lpath)) as file:
                await self.objects.receive(rpath, file, callback.set_size, callback.relative_update)

    async def _range(self, path: str, start: int | None, end: int | None) -> tuple[int, int | None]:
        """Offsets that may count from the end, as offsets from the start."""
        if (start or 0) >= 0 and (end is None or end >= 0):
            return start or 0, end
        size = (await self._info(path))["size"]
        first, last, _ = slice(start, end).indices(size)
        return first, last

    # ---- writing

    async def _pipe_file(self, path: str, value: Bytes, mode: Mode = "overwrite", **kwargs: Any) -> None:
        await self.objects.write(self._strip_protocol(path), value, mode)

    async def _put_file(
        self,
        lpath: str,
        rpath: str,
        mode: Mode = "overwrite",
        callback: Any = DEFAULT_CALLBACK,
        **kwargs: Any,
    ) -> None:
        file = _open_unless_folder(Path(lpath))
        if file is None:
            await self._makedirs(rpath, exist_ok=True)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            callback.set_size(size)
            path = self._strip_protocol(rpath)
            await self.objects.write_file(path, file, size, mode, callback.relative_update)

    async def _cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        request = Copy(path=self._strip_protocol(path1), to=self._strip_protocol(path2))
        await self._remote.ask("cp", request, Answer)

    async def _rm_file(self, path: str, **kwargs: Any) -> float:
        """The value: until when, in Unix seconds, the storage keeps what does not show any more; 0: it does not."""
        try:
            request = PathRequest(path=self._strip_protocol(path))
            return (await self._remote.ask("rm", request, RemovalAnswer)).kept_until
        except NotFound as error:
            if not error.details.get("repeated"):
                raise
            return 0.0

    async def _rm(
        self,
        path: Any,
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Children go before their parents; a directory that went with its last child is not missed."""
        paths = await self._expand_path(path, recursive=recursive, maxdepth=maxdepth)
        for _, level in groupby(sorted(paths, key=_depth, reverse=True), key=_depth):
            done = await _gather([self._rm_file(each) for each in level], return_exceptions=True)
            for error in filter(is_exception, done):
                if not (recursive and isinstance(error, NotFound)):
                    raise error

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        await self._remote.ask("mkdir", MakeDirectory(path=self._strip_protocol(path), parents=create_parents), Answer)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self._remote.ask("mkdir", MakeDirectory(path=self._strip_protocol(path), exist_ok=exist_ok), Answer)

    async def _rmdir(self, path: str) -> None:
        await self._rm_file(path)

    # ---- files

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> SnappyFile:
        if mode == "xb" and self.exists(path):
            raise ExistingFile(f"an object {path!r} exists")
        return SnappyFile(self, path, mode, block_size=block_size or "default", **kwargs)


async def _connect(section: config.Nats, prefix: str, caller: str, target: str) -> Bus:
    return await Bus.connect(section, name=f"files of {target}", prefix=prefix, user=caller)


def _make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _open_unless_folder(path: Path) -> BinaryIO | None:
    return None if path.is_dir() else path.open("rb")


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is removed again where the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


async def _gather(work: list[Awaitable[Result]], return_exceptions: bool) -> list[Any]:
    """As ``asyncio.gather``, but the first error cancels the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)
    finally:
        for task in tasks:
            task.cancel()


def _depth(path: str) -> int:
    return path.count("/")


def _each(value: Any, paths: list[str]) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * len(paths)


def _info(item: Item) -> dict[str, Any]:
    return {"name": item.name, "size": item.size, "type": item.type, "mtime": item.modified}
