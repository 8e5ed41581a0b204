"""A prune whose process dies at a chosen operation on the storage."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec

from snappy import log
from snappy.repository.locks import LockJob, LockOwner
from snappy.repository.store import FileType, Store
from tests.support.littered import prune

DIED = 77
FORK = multiprocessing.get_context("fork")


class MortalStore(Store):
    """Files in a folder; the process ends just before the operation numbered ``fatal``, counted from 1. No thread is
    writing then: as at a target, a file is whole or not there."""

    def __init__(self, folder: Path, fatal: int = 0) -> None:
        super().__init__(fsspec.filesystem("file"), str(folder))
        self._fatal, self._numbers = fatal, itertools.count(1)
        self._writing = threading.Lock()
        self.operations = 0

    def save(self, kind: FileType, name: str, data: Any, *, create: bool = False) -> None:
        with self._writing:
            self._count()
            super().save(kind, name, data, create=create)

    def load(self, kind: FileType, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._live()
        return super().load(kind, name, offset, length)

    def list(self, kind: FileType) -> list[tuple[str, int]]:
        self._live()
        return super().list(kind)

    def remove(self, kind: FileType, name: str) -> None:
        self._live()
        super().remove(kind, name)

    def _live(self) -> None:
        with self._writing:
            self._count()

    def _count(self) -> None:
        self.operations = next(self._numbers)
        if self.operations == self._fatal:
            os._exit(DIED)


def attempt(number: int) -> LockOwner:
    """Of one job: a later one removes the locks that an earlier one left."""
    return LockOwner(hostname="snappy.site.r1", username="tester", pid=77, job=LockJob("job-1", number))


def prune_and_die(folder: Path, fatal: int, **options: Any) -> bool:
    """A first attempt at a prune in a process of its own; whether it died there."""

    def work() -> None:
        log.setup("error")
        prune(MortalStore(folder, fatal), owner=attempt(1), **options)

    return dies(work)


def dies(work: Callable[[], object]) -> bool:
    """Whether it does in a process of its own."""
    process = FORK.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, DIED)
    return process.exitcode == DIED
