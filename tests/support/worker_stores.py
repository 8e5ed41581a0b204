"""Stores that worker processes of a backup open for a test: they fail, or wait, as the test says through files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec

from snappy.errors import JobCancelled, NoSpace, Unavailable
from snappy.repository.crew import Crew
from snappy.repository.store import FileType, Store, StoreRecipe, Tell

MODULE = "tests.support.worker_stores"


class Full(Store):
    """Has room for everything but packs."""

    def save(self, kind: FileType, name: str, data: bytes | memoryview, *, create: bool = False) -> None:
        if kind is FileType.PACK:
            raise NoSpace("the disk is full", hint="buy one")
        super().save(kind, name, data, create=create)


class Stuck(Store):
    """Never answers."""

    def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
        threading.Event().wait()
        raise AssertionError


class Away(Store):
    """Does not answer."""

    def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
        raise Unavailable("nobody is there")


class Listening(Store):
    """Keeps the last thing that it was told in a file beside the repository."""

    def told(self, notice: bytes) -> None:
        place = Path(self._root).with_name(f"told-{os.getpid()}")
        place.with_suffix(".new").write_bytes(notice)
        place.with_suffix(".new").rename(place)


def open_full(root: str) -> Full:
    return Full(fsspec.filesystem("file"), root)


def open_stuck(root: str) -> Stuck:
    return Stuck(fsspec.filesystem("file"), root)


def open_away(root: str) -> Away:
    return Away(fsspec.filesystem("file"), root)


def open_listening(root: str) -> Listening:
    return Listening(fsspec.filesystem("file"), root)


class Elsewhere(Store):
    """A store whose workers get another one: what ``maker``, a function of this module, makes."""

    def __init__(self, root: Path, maker: str) -> None:
        super().__init__(fsspec.filesystem("file"), str(root))
        self.maker = maker
        self.tells: list[Tell] = []

    def recipe(self) -> StoreRecipe:
        return StoreRecipe(f"{MODULE}:{self.maker}", {"root": self._root}, self._watch)

    def _watch(self, tell: Tell) -> Callable[[], None]:
        self.tells.append(tell)
        tell(b"first")
        return lambda: self.tells.remove(tell)


def all_are_ready(crew: Crew, _seconds: float = 0.0) -> bool:
    """In the place of ``Crew.is_ready``: wait until the last worker is."""
    deadline = time.monotonic() + 20
    while len(crew.processes) < len(crew._hands):
        assert time.monotonic() < deadline, "a worker is not ready"
        threading.Event().wait(0.02)
    return True


class Cancel:
    """Lets a backup go on until it is told not to."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self) -> None:
        if self.over:
            raise JobCancelled


def alive(process: int) -> bool:
    """Whether it runs; one that ended and that nobody asked about does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def expect_gone(processes: list[int]) -> None:
    """They have ended, or soon do."""
    deadline = time.monotonic() + 20
    while any(map(alive, processes)):
        assert time.monotonic() < deadline, processes
        threading.Event().wait(0.02)
