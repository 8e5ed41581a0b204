"""A target's files as a worker process of a backup has them: over a connection of its own, under the hold that the
service keeps."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import msgspec

from snappy.bus.filesystem import SnappyFileSystem
from snappy.config import Nats
from snappy.errors import AccessDenied
from snappy.repository import makers
from snappy.repository.store import StoreRecipe
from snappy.sources.held_store import HeldStore
from snappy.sources.hold import Hold
from snappy.sources.permit import Permit


class _Leave(Permit):
    """The hold, as the service tells of it."""

    def letting_go(self, lock: str) -> AbstractContextManager[set[str]]:
        raise AccessDenied("a worker process removes no locks")


class WorkerStore(HeldStore):
    """The same as the service's own, which is told of each new grant."""

    def __init__(self, target: str, caller: str, prefix: str, nats: Nats) -> None:
        self._permit = _Leave()
        files = SnappyFileSystem(target, caller=caller, grant=self._permit.grant, prefix=prefix, nats=nats)
        super().__init__(files, "", self._permit)

    def told(self, notice: bytes) -> None:
        self._permit.told(notice)


def open_store(target: str, caller: str, prefix: str, nats: dict[str, Any]) -> WorkerStore:
    """What :func:`recipe` names."""
    return WorkerStore(target, caller, prefix, msgspec.convert(nats, Nats))


def recipe(target: str, caller: str, prefix: str, nats: Nats, hold: Hold) -> StoreRecipe:
    """How a worker opens the files of ``target`` that are held under ``hold``."""
    arguments = {"target": target, "caller": caller, "prefix": prefix, "nats": msgspec.to_builtins(nats)}
    return StoreRecipe(makers.name_of(open_store), arguments, hold.watch)
