"""A team of workers that do errands, each whichever comes next, and bring what came of it. See
:mod:`snappy.repository.errands` for what a worker does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Protocol

from snappy.repository.link import Brought, Errand, FromWorker, Setup
from snappy.repository.member import Captain, Member
from snappy.repository.store import Store
from snappy.repository.team import Team, Workers

ERRANDS_AT_A_WORKER = 4


class Dispatcher(Captain, Protocol):
    """Who has errands. See :class:`Pool`."""

    def next(self) -> bytes | None: ...

    def take(self, body: bytes) -> None: ...


class Runner(Member):
    """One worker of a pool: it is given errands as soon as it is ready."""

    def __init__(self, pool: Dispatcher, number: int, end: socket.socket) -> None:
        super().__init__(pool, number, end)
        self._pool = pool

    def begun(self) -> None:
        for _ in range(ERRANDS_AT_A_WORKER):
            self._give()

    def hear(self, message: FromWorker) -> None:
        if isinstance(message, Brought):
            self._give()
            self._pool.take(message.body)

    def _give(self) -> None:
        if (body := self._pool.next()) is not None:
            self.send(Errand(body))


class Pool(Team[Runner]):
    """Has ``errands`` done; ``brought`` hears what came of each, from some thread, in any order. Raises ``OSError``
    when no process can be started. :meth:`finish` once all else is done; and always :meth:`close`."""

    def __init__(
        self,
        store: Store,
        setup: Setup,
        workers: Workers,
        errands: Iterator[bytes],
        brought: Callable[[bytes], None],
        check: Callable[[], None],
    ) -> None:
        self._errands, self._brought = errands, brought
        self._under_way = 0
        self._is_empty = False
        super().__init__(store, setup, workers.most, lambda number, end: Runner(self, number, end), check)

    def finish(self) -> None:
        """Return when all errands are done. At least one worker must be ready. Raises what failed."""
        self._wait_until(lambda: self._is_empty and not self._under_way)
        self.end()

    def recall(self) -> list[bytes]:
        """The errands that nobody has, which nobody gets any more."""
        with self._changed:
            self._is_empty = True
            return list(self._errands)

    def next(self) -> bytes | None:
        """An errand that nobody has, if there is any left."""
        with self._changed:
            body = next(self._errands, None)
            self._is_empty = body is None
            self._under_way += body is not None
            return body

    def take(self, body: bytes) -> None:
        """What came of an errand."""
        self._brought(body)
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
