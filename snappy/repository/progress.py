"""How far a backup or a restore has come, and what went wrong on the way: written by many threads, read by any."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from snappy.repository.entries import Problem

PROBLEMS_KEPT = 1000

Cancelled = Callable[[], None]
"""Asked often, from any thread; raises to end the work."""


def never() -> None:
    """The :data:`Cancelled` of work that nobody can cancel."""


@dataclass
class Progress:
    """Counters that others sample. The totals are estimates until the end, 0 while nothing is known."""

    files_done: int = 0
    bytes_done: int = 0
    files_total: int = 0
    bytes_total: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, files: int = 0, size: int = 0) -> None:
        """Count ``files`` and ``size`` bytes as done."""
        with self._lock:
            self.files_done += files
            self.bytes_done += size

    def expect(self, *, files: int, size: int) -> None:
        """Set the totals."""
        with self._lock:
            self.files_total, self.bytes_total = files, size


class Problems:
    """Problems in the order they came. All are counted, the first thousand kept: a result must stay small."""

    def __init__(self) -> None:
        self.total = 0
        self.kept: list[Problem] = []
        self._lock = threading.Lock()

    def add(self, path: bytes, message: str, code: str = "") -> None:
        """Count one more."""
        with self._lock:
            self.total += 1
            if len(self.kept) < PROBLEMS_KEPT:
                self.kept.append(Problem(path, message, code))

    def join(self, kept: Iterable[Problem], total: int) -> None:
        """Count ``total`` more, of which these were kept."""
        with self._lock:
            self.total += total
            self.kept += list(kept)[: PROBLEMS_KEPT - len(self.kept)]
