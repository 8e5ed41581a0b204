"""What a target does from time to time for the place that it keeps its objects in.

A filesystem with chores of its own gives them (``chores(root)``, each an iterator that does a step when it is asked for
the next path; ``chore_seconds`` lie between two rounds). Where drafts are files under a temporary name and the
filesystem lists them (``listed(folder)``), what a killed target left of them is removed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from fsspec import AbstractFileSystem

from snappy import log
from snappy.bus.failures import to_wire
from snappy.targets.drafts import PART_SUFFIX

DAY = 86_400.0
ABANDONED_SECONDS = DAY
"""A part that was written to so long ago is nobody's any more, whatever the storage's clock says of hours."""

_log = log.get(__name__)


async def keep(fs: AbstractFileSystem, root: str) -> None:
    """Until cancelled. Whatever fails is logged, and tried again the next time."""
    stopped = threading.Event()
    try:
        while True:
            await asyncio.to_thread(round_of, fs, root, stopped.is_set)
            await asyncio.sleep(getattr(fs, "chore_seconds", DAY))
    finally:
        stopped.set()


def round_of(fs: AbstractFileSystem, root: str, stopped: Callable[[], bool] = lambda: False) -> None:
    """All chores once, as far as they can be done."""
    for chore in chores(fs, root):
        try:
            while not stopped() and next(chore, None) is not None:
                pass
        except Exception as error:  # whatever a filesystem raises
            _log.warning("a chore of the storage was not done", reason=to_wire(error).message, exc_info=error)


def chores(fs: AbstractFileSystem, root: str, clock: Callable[[], float] = time.time) -> list[Iterator[str]]:
    if hasattr(fs, "chores"):
        found: list[Iterator[str]] = fs.chores(root)
        return found
    return [_swept(fs, root, clock() - ABANDONED_SECONDS)] if hasattr(fs, "listed") else []


def _swept(fs: Any, folder: str, before: float) -> Iterator[str]:
    """Removes the parts that were last written to before that time, folder by folder."""
    for item in fs.listed(folder):
        if item["type"] == "directory":
            yield from _swept(fs, item["name"], before)
        elif _is_part(item["name"]) and 0 < item["mtime"] < before:
            fs.rm_file(item["name"])
        yield item["name"]


def _is_part(path: str) -> bool:
    """rclone, which may stand behind WebDAV, adds endings of its own to what it has half of."""
    name = path.rpartition("/")[2]
    return name.startswith(".") and PART_SUFFIX in name
