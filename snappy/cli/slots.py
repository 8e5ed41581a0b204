"""Numbers for commands that run a stack of their own beside one another: each names its services after its number.

A number is taken by a lock on a file, so that it is free again however its command ends. Numbers are used again:
what the server keeps for a service's name would otherwise grow with every command.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from snappy.errors import UsageError

MOST = 64
SOURCE, TARGET, ORIGIN = "local", "place", "origin"
LOOK_SECONDS = 0.2


class Slot(NamedTuple):
    """What a command calls its services."""

    number: int

    @property
    def source(self) -> str:
        return f"{SOURCE}-{self.number}"

    @property
    def target(self) -> str:
        return f"{TARGET}-{self.number}"

    @property
    def origin(self) -> str:
        """The target that a copy is made of."""
        return f"{ORIGIN}-{self.number}"


def is_passing(source: str) -> bool:
    """Whether a source service of that name lived for one command."""
    word, _, number = source.rpartition("-")
    return word == SOURCE and number.isdigit()


@contextmanager
def take(state_dir: str) -> Iterator[Slot]:
    """The first free number. Raises UsageError when all are taken."""
    folder = _folder(state_dir)
    for number in range(1, MOST + 1):
        lock = _lock(folder / f"{number}.lock")
        if lock is not None:
            try:
                yield Slot(number)
            finally:
                os.close(lock)
            return
    raise UsageError(f"{MOST} commands run beside one another already")


async def wait_until_free(state_dir: str, *, but: Slot | None = None) -> None:
    """Until no command but that of our own number, if we have one, holds one."""
    own = f"{but.number}.lock" if but else ""
    others = [path for path in _folder(state_dir).glob("*.lock") if path.name != own]
    while any(map(_held, others)):  # noqa: ASYNC110  (no event tells of another process's lock)
        await asyncio.sleep(LOOK_SECONDS)


def _folder(state_dir: str) -> Path:
    folder = Path(state_dir, "slots")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _held(path: Path) -> bool:
    lock = _lock(path)
    if lock is not None:
        os.close(lock)
    return lock is None
