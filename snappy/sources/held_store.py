"""A repository's files while a hold lasts: what a grant that ran out interrupts goes on under the next one, and what a
storage that went away interrupts goes on when it is back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from fsspec import AbstractFileSystem

from snappy.errors import AccessDenied, AttemptOver, BusUnavailable, JobCancelled, Unavailable
from snappy.repository.store import FileType, Store, StoreRecipe

Value = TypeVar("Value")

TRIES = 5
"""How often an operation meets a grant that the target finds run out although the core renewed it."""
PATIENCE = 60.0
"""Seconds."""
PAUSE = 1.0
"""Seconds between two questions to a storage that is away, each of which the filesystem asks several times."""


class Leave(Protocol):
    """The part of a hold that the store needs; see :class:`snappy.sources.hold.Hold`."""

    def grant(self) -> str: ...

    def check(self) -> None: ...

    def lapse(self, grant: str) -> None: ...

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]: ...


class HeldStore(Store):
    """Asks ``hold`` before each operation; it waits while there is no grant, and raises once the attempt is over.

    Where nobody answers, it asks for ``patience`` seconds, if the storage has answered before (``answered``): a server
    may be on its way back, a wrong address is none. Every operation may be repeated, as :class:`Store` promises.
    """

    def __init__(
        self,
        fs: AbstractFileSystem,
        root: str,
        hold: Leave,
        recipe: StoreRecipe | None = None,
        *,
        patience: float = PATIENCE,
        answered: bool = False,
    ) -> None:
        super().__init__(fs, root)
        self._hold, self._recipe, self._patience, self._answered = hold, recipe, patience, answered
        self._silent_since = math.inf
        """Monotonic seconds of the first operation, of any thread, that was not answered since one was."""
        self._own_locks: set[str] = set()

    def recipe(self) -> StoreRecipe | None:
        return self._recipe

    def save(self, kind: FileType, name: str, data: bytes | memoryview, *, create: bool = False) -> None:
        try:
            self._held(lambda: super(HeldStore, self).save(kind, name, data, create=create))
        except JobCancelled:
            if kind is not FileType.INDEX:
                raise
            super().save(kind, name, data, create=create)  # what is stored is listed, while there is a grant
        if kind is FileType.LOCK:
            self._own_locks.add(name)

    def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._held(lambda: super(HeldStore, self).load(kind, name, offset, length))

    def list(self, kind: FileType) -> list[tuple[str, int]]:
        return self._held(lambda: super(HeldStore, self).list(kind))

    def exists(self, kind: FileType, name: str) -> bool:
        return self._held(lambda: super(HeldStore, self).exists(kind, name))

    def remove(self, kind: FileType, name: str) -> None:
        if kind is FileType.LOCK:  # a lock is let go of while there is a grant, even when the work has to stop
            self._remove_lock(name)
        else:
            self._held(lambda: super(HeldStore, self).remove(kind, name))

    def _remove_lock(self, name: str) -> None:
        """A target that was started anew, or another replica of it, does not know who wrote the lock."""
        try:
            super().remove(FileType.LOCK, name)
        except AccessDenied:
            if name not in self._own_locks:
                raise
            with self._hold.letting_go(name):
                super().remove(FileType.LOCK, name)
        self._own_locks.discard(name)

    def _held(self, operation: Callable[[], Value]) -> Value:
        failing_since = math.inf  # while other operations may be answered all the time
        while True:
            try:
                found = self._granted(operation)
            except (Unavailable, BusUnavailable):
                now = time.monotonic()
                failing_since, self._silent_since = min(failing_since, now), min(self._silent_since, now)
                if not self._answered or now - min(failing_since, self._silent_since) >= self._patience:
                    raise
                time.sleep(PAUSE)
            else:
                self._answered, self._silent_since = True, math.inf
                return found

    def _granted(self, operation: Callable[[], Value]) -> Value:
        for _ in range(TRIES):
            self._hold.check()
            grant = self._hold.grant()
            try:
                return operation()
            except AttemptOver as error:
                self._hold.lapse(grant)
                over = error
        raise over
