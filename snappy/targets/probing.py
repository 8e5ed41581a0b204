"""What a place can do as a target, tried out with objects of its own that are gone afterwards."""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from snappy.bus.failures import to_wire
from snappy.targets.policy import LETTERS, PolicyFileSystem

SMALL = 1 << 10
TRIES = 5
REMARK = 200
"""Characters of an error that are told."""
RACERS = 4
SKEW_SECONDS = 2.0
"""More than this between its clock and ours, beyond what an operation takes, is said."""


class Finding(msgspec.Struct, frozen=True):
    """``needed``: without it the place is no target. ``code`` and ``hint`` are those of the error that says so."""

    name: str
    can: bool
    needed: bool
    remark: str = ""
    code: str = ""
    hint: str = ""


class Probe(msgspec.Struct, frozen=True):
    """Rates in bytes a second, times in seconds; ``skew_seconds``: how far its clock is ahead, where it shows one."""

    will_do: bool
    findings: list[Finding]
    write_rate: float = 0.0
    read_rate: float = 0.0
    latency_seconds: float = 0.0
    skew_seconds: float | None = None


def probe(files: PolicyFileSystem, size: int, clock: Callable[[], float] = time.time) -> Probe:
    """Try out ``files``, which must hold all rights, with an object of ``size`` bytes."""
    return _Trial(PolicyFileSystem(files.fs, files.root, LETTERS), size, clock).run()


class _Trial:
    def __init__(self, files: PolicyFileSystem, size: int, clock: Callable[[], float]) -> None:
        self._files, self._clock = files, clock
        self._folder = f"snappy-probe-{secrets.token_hex(6)}"
        self._large = os.urandom(size)
        self._findings: list[Finding] = []
        self._figures: dict[str, Any] = {}

    def run(self) -> Probe:
        with self._cleared():
            if self._try("write", True, self._write):
                for name, needed, attempt in (
                    ("read", True, self._read),
                    ("ranges", True, self._ranges),
                    ("list at once", True, self._list),
                    ("create only", True, self._create),
                    ("create only, of many at once", False, self._race),
                    ("replace", False, self._replace),
                    ("replace, seen whole", False, self._replace_whole),
                    ("clock", False, self._skew),
                    ("delete", False, self._delete),
                    *self._asked_of_s3(),
                ):
                    self._try(name, needed, attempt)
        self._try("nothing left", False, lambda: not self._left())
        return Probe(all(each.can for each in self._findings if each.needed), self._findings, **self._figures)

    def _try(self, name: str, needed: bool, attempt: Callable[[], bool]) -> bool:
        try:
            found = Finding(name, attempt(), needed)
        except Exception as error:  # whatever a filesystem raises is what was to be found out
            found = self._failed(name, needed, error)
        self._findings.append(found)
        return found.can

    def _failed(self, name: str, needed: bool, error: Exception) -> Finding:
        said = to_wire(error, self._folder)
        remark = " ".join(f"{said.message} ({type(error).__name__}: {error})".split())[:REMARK]
        return Finding(name, False, needed, remark, said.code, said.hint)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _put(self, name: str, data: bytes, *, exclusive: bool = False) -> None:
        self._files.pipe_file(self._path(name), data, mode="create" if exclusive else "overwrite")

    # ---- what is tried

    def _write(self) -> bool:
        self._put("small", b"first")
        started = time.monotonic()
        self._put("large", self._large)
        self._figures["write_rate"] = len(self._large) / (time.monotonic() - started)
        return True

    def _read(self) -> bool:
        started = time.monotonic()
        same = self._files.cat_file(self._path("large")) == self._large
        self._figures["read_rate"] = len(self._large) / (time.monotonic() - started)
        self._figures["latency_seconds"] = statistics.median(self._latencies())
        return same

    def _latencies(self) -> Iterator[float]:
        for _ in range(TRIES):
            started = time.monotonic()
            self._files.cat_file(self._path("small"))
            yield time.monotonic() - started

    def _ranges(self) -> bool:
        middle = len(self._large) // 2
        found = self._files.cat_file(self._path("large"), middle, middle + SMALL)
        return found == self._large[middle : middle + SMALL]

    def _list(self) -> bool:
        return {self._path("small"), self._path("large")} <= set(self._files.find(self._folder))

    def _create(self) -> bool:
        try:
            self._put("small", b"second", exclusive=True)
        except FileExistsError:
            return self._files.cat_file(self._path("small")) == b"first"
        return False

    def _race(self) -> bool:
        return all(self._one_wins(f"race-{number}") for number in range(TRIES))

    def _one_wins(self, name: str) -> bool:
        def create(racer: int) -> bool:
            try:
                self._put(name, bytes([racer]), exclusive=True)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(RACERS) as pool:
            return sum(pool.map(create, range(RACERS))) == 1

    def _replace(self) -> bool:
        self._put("small", b"second")
        return self._files.cat_file(self._path("small")) == b"second"

    def _replace_whole(self) -> bool:
        """Whether a reader ever saw anything else than one of the two."""
        versions = [bytes([number]) * (len(self._large) // 8 + number) for number in range(2)]
        self._put("replaced", versions[0])
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self._put_each, versions * 2)
            whole = True
            while not writing.done():
                whole &= self._files.cat_file(self._path("replaced")) in versions
            writing.result()
        return whole

    def _put_each(self, versions: list[bytes]) -> None:
        for version in versions:
            self._put("replaced", version)

    def _skew(self) -> bool:
        before = self._clock()
        self._put("clock", b"x")
        shown, after = float(self._files.info(self._path("clock"))["modified"]), self._clock()
        if not shown:
            return True
        # Storages round to seconds.
        ahead = shown - after if shown > after else min(0.0, shown + 1 - before)
        self._figures["skew_seconds"] = ahead
        return abs(ahead) <= SKEW_SECONDS

    def _asked_of_s3(self) -> list[tuple[str, bool, Callable[[], bool]]]:
        fs = self._files.fs
        if not hasattr(fs, "has_lock"):
            return []
        return [("object lock", fs.object_lock is not None, lambda: bool(fs.has_lock(self._files.root)))]

    def _delete(self) -> bool:
        self._files.rm_file(self._path("small"))
        return not self._files.exists(self._path("small"))

    # ---- afterwards

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        try:
            yield
        finally:
            with suppress(Exception):  # what could not be removed is told as left
                for path in self._left():
                    self._files.rm_file(path)
                self._files.rmdir(self._folder)

    def _left(self) -> list[str]:
        try:
            found: list[str] = self._files.find(self._folder)
        except FileNotFoundError:
            return []
        return found
