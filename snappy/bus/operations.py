"""What a file server does for each control operation: synchronous functions of the files and the request."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import attrgetter
from threading import Lock
from typing import Any

from snappy.bus.protocol import (
    Answer,
    Copy,
    ExistsAnswer,
    Find,
    Item,
    ItemAnswer,
    List,
    MakeDirectory,
    PageAnswer,
    PathRequest,
    Put,
    RemovalAnswer,
)
from snappy.targets.policy import PolicyFileSystem

ITEM_OVERHEAD = 32
"""Bytes that an item takes in MessagePack besides its name."""


class Listings:
    """Listings that callers are in the middle of, so that a page does not list everything again.

    A listing that was forgotten, or that another replica made, is made anew; the cursor then says where to go on.
    """

    def __init__(self, keep: int = 8, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep, self._seconds, self._clock = keep, seconds, clock
        self._kept: OrderedDict[str, tuple[float, list[Item]]] = OrderedDict()
        self._lock = Lock()

    def take(self, listing: str) -> list[Item] | None:
        with self._lock:
            made, items = self._kept.pop(listing, (0.0, None))
        return items if items is not None and self._clock() - made < self._seconds else None

    def put(self, listing: str, items: list[Item]) -> None:
        with self._lock:
            now = self._clock()
            self._kept[listing] = (now, items)
            while len(self._kept) > self._keep or self._is_old(now):
                self._kept.popitem(last=False)

    def _is_old(self, now: float) -> bool:
        """Whether nobody came back for the oldest."""
        return now - next(iter(self._kept.values()))[0] >= self._seconds


class Operations:
    """The handlers, by the operation's name in the subject. ``max_bytes`` bounds the answer of one page."""

    def __init__(self, max_bytes: int, listings: Listings | None = None) -> None:
        self._max_bytes = max_bytes
        self._listings = listings or Listings()
        self.handlers: dict[str, Callable[[PolicyFileSystem, Any], Answer]] = {
            "info": self.info,
            "exists": self.exists,
            "ls": self.ls,
            "find": self.find,
            "rm": self.remove,
            "mkdir": self.make_directory,
            "cp": self.copy,
            "put": self.put,
        }

    def info(self, files: PolicyFileSystem, request: PathRequest) -> ItemAnswer:
        return ItemAnswer(item=_item(files.info(request.path)))

    def exists(self, files: PolicyFileSystem, request: PathRequest) -> ExistsAnswer:
        return ExistsAnswer(exists=files.exists(request.path))

    def ls(self, files: PolicyFileSystem, request: List) -> PageAnswer:
        files.demand("l")
        return self._page(request, lambda: files.ls(request.path, detail=True))

    def find(self, files: PolicyFileSystem, request: Find) -> PageAnswer:
        files.demand("l")
        return self._page(request, lambda: _found(files, request))

    def remove(self, files: PolicyFileSystem, request: PathRequest) -> RemovalAnswer:
        try:
            return RemovalAnswer(kept_until=files.rm_file(request.path))
        except (IsADirectoryError, PermissionError, FileNotFoundError):
            if not files.isdir(request.path):
                raise
            files.rmdir(request.path)
            return RemovalAnswer()

    def make_directory(self, files: PolicyFileSystem, request: MakeDirectory) -> Answer:
        if request.exist_ok:
            files.makedirs(request.path, exist_ok=True)
        else:
            files.mkdir(request.path, create_parents=request.parents)
        return Answer()

    def copy(self, files: PolicyFileSystem, request: Copy) -> Answer:
        files.cp_file(request.path, request.to)
        return Answer()

    def put(self, files: PolicyFileSystem, request: Put) -> Answer:
        files.pipe_file(request.path, request.data, mode=request.mode)
        return Answer()

    def _page(self, request: List, fetch: Callable[[], Iterable[dict[str, Any]]]) -> PageAnswer:
        items = self._listings.take(_key(request))
        if items is None:
            items = sorted(map(_item, fetch()), key=lambda item: item.name)
        start = _after(items, request.cursor)
        page = self._fitting(items[start : start + max(1, request.limit)])
        if start + len(page) >= len(items):
            return PageAnswer(items=page)
        listing = request.listing or secrets.token_hex(16)
        self._listings.put(_key(request, listing), items)
        return PageAnswer(items=page, listing=listing, cursor=page[-1].name)

    def _fitting(self, items: list[Item]) -> list[Item]:
        room = self._max_bytes
        for count, item in enumerate(items):
            room -= len(item.name.encode()) + ITEM_OVERHEAD
            if room < 0 and count:
                return items[:count]
        return items


def _found(files: PolicyFileSystem, request: Find) -> Iterable[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = files.find(
        request.path, maxdepth=request.depth, withdirs=request.directories, detail=True
    )
    return found.values()


def _after(items: list[Item], cursor: str) -> int:
    return bisect_right(items, cursor, key=attrgetter("name")) if cursor else 0


def _key(request: List, listing: str = "") -> str:
    """A listing belongs to one question; its name alone does not open another's."""
    return f"{type(request).__name__} {listing or request.listing} {request.path}"


def _item(info: dict[str, Any]) -> Item:
    kind = "directory" if info["type"] == "directory" else "file"
    return Item(info["name"], info["size"], kind, info.get("modified", 0.0))  # type: ignore[arg-type]
