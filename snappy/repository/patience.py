"""Waits until a repository can be had alone, without keeping anybody from working meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from snappy.errors import RepositoryLocked
from snappy.repository.progress import Cancelled

Held = Callable[[bool], AbstractContextManager[object]]
"""Holds a lock on the repository for the length of the context, an exclusive one if so. Raises
:class:`RepositoryLocked`."""

PATIENCE = 3600.0
"""Seconds in which those who work there may come to their end."""
PAUSE = 5.0
LOOK = 0.25
"""Seconds after which a cancellation is heard."""


@contextmanager
def alone(held: Held, cancelled: Cancelled, patience: float = PATIENCE, pause: float = PAUSE) -> Iterator[None]:
    """An exclusive lock, as soon as nobody else has one. Raises :class:`RepositoryLocked` after ``patience`` seconds,
    and what ``cancelled`` raises."""
    deadline = time.monotonic() + patience
    with ExitStack() as lock:
        while True:
            cancelled()
            try:
                lock.enter_context(held(True))
                break
            except RepositoryLocked:
                if time.monotonic() >= deadline:
                    raise
            _wait(pause, cancelled)
        yield


def _wait(seconds: float, cancelled: Cancelled) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        cancelled()
        time.sleep(min(left, LOOK))
