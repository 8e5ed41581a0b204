"""A target's files as a worker process of a backup has them: over a connection of its own, under the hold that the
service keeps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import msgspec

from snappy.bus.filesystem import SnappyFileSystem
from snappy.config import Nats
from snappy.decoding import converted
from snappy.errors import AccessDenied, BusUnavailable
from snappy.repository import makers
from snappy.repository.store import StoreRecipe
from snappy.sources.held_store import HeldStore
from snappy.sources.hold import Hold
from snappy.sources.permit import Permit

Value = TypeVar("Value")

DIALS = 20
"""How often a worker dials, for five seconds each, while a grant holds: as long as is waited for a connection that was
lost."""


class _Leave(Permit):
    """The hold, as the service tells of it."""

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]:
        raise AccessDenied("a worker process removes no locks")


class WorkerStore(HeldStore):
    """The same as the service's own, which is told of each new grant. It connects when it is first used, and waits out
    that nobody answers then."""

    def __init__(self, target: str, caller: str, prefix: str, nats: Nats, patience: float, direct: bool = True) -> None:
        self._permit = _Leave()
        self._files = SnappyFileSystem(
            target,
            caller=caller,
            grant=self._permit.grant,
            prefix=prefix,
            nats=nats,
            read_digest=False,  # what a worker reads proves itself
            direct=direct,
        )
        self._connecting = threading.Lock()
        self._connected = False
        self._dialing: Future[None] | None = None
        super().__init__(self._files, "", self._permit, patience=patience, answered=True)  # the service asked before

    def told(self, notice: bytes) -> None:
        self._permit.told(notice)
        if self._permit.ended and self._dialing:
            self._dialing.cancel()

    def _held(self, operation: Callable[[], Value]) -> Value:
        with self._connecting:
            self._connect()
        return super()._held(operation)

    def _connect(self) -> None:
        dials = 0
        while not self._connected:
            self._permit.check()
            dials += 1
            self._connected = self._dial(last=dials == DIALS)

    def _dial(self, last: bool) -> bool:
        self._dialing = asyncio.run_coroutine_threadsafe(self._files.aconnect(), self._files.loop)
        try:
            self._dialing.result()
        except CancelledError:
            return False  # the attempt is over
        except BusUnavailable:
            if last:
                raise
            return False
        return True


def open_store(
    target: str, caller: str, prefix: str, nats: dict[str, Any], patience: float, direct: bool = True
) -> WorkerStore:
    """What :func:`recipe` names."""
    return WorkerStore(target, caller, prefix, converted(nats, Nats), patience, direct)


def recipe(target: str, caller: str, prefix: str, nats: Nats, patience: float, direct: bool, hold: Hold) -> StoreRecipe:
    """How a worker opens the files of ``target`` that are held under ``hold``."""
    arguments = {
        "target": target,
        "caller": caller,
        "prefix": prefix,
        "nats": msgspec.to_builtins(nats),
        "patience": patience,
        "direct": direct,
    }
    return StoreRecipe(makers.name_of(open_store), arguments, hold.watch)
