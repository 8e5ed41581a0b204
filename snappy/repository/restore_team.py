"""The worker processes of one restore, seen from the process that plans: each errand goes to who has least to do.

What a worker does is in :mod:`snappy.repository.restoring`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from snappy.decoding import from_msgpack
from snappy.repository.link import Brought, Errand, FromWorker, Setup
from snappy.repository.member import Captain, Member
from snappy.repository.restoring import Restored, RestoreErrand
from snappy.repository.store import Store
from snappy.repository.team import Team, Workers

ERRANDS_AT_A_WORKER = 3
"""Two that it does, and the next."""


class Overseer(Captain, Protocol):
    """Who wants to know what came of an errand. See :class:`RestoreTeam`."""

    def take(self, restored: Restored) -> None: ...


class Bearer(Member):
    """One worker of a restore."""

    def __init__(self, team: Overseer, number: int, end: socket.socket) -> None:
        super().__init__(team, number, end)
        self._overseer = team
        self.errands = 0

    def has_room(self) -> bool:
        """Whether it would soon be idle."""
        return bool(self.process) and not self.ended and self.errands < ERRANDS_AT_A_WORKER

    def hear(self, message: FromWorker) -> None:
        assert isinstance(message, Brought)
        self.errands -= 1
        self._overseer.take(from_msgpack(message.body, Restored))


class RestoreTeam(Team[Bearer]):
    """For one thread: :meth:`submit` errands, ask for the :meth:`result` of each once, :meth:`end`; always
    :meth:`close`. ``check`` raises to end all. Raises ``OSError`` when no process can be started."""

    def __init__(self, store: Store, setup: Setup, workers: Workers, check: Callable[[], None]) -> None:
        self._results: dict[int, Restored] = {}
        super().__init__(store, setup, workers.most, lambda number, end: Bearer(self, number, end), check)

    def submit(self, errand: RestoreErrand) -> None:
        """Have the errand done. Blocks while all that are ready have enough to do."""
        with self._changed:
            while not (free := [hand for hand in self._hands if hand.has_room()]):
                self._wait()
            self.raise_failure()
            hand = min(free, key=lambda hand: hand.errands)
            hand.errands += 1
        hand.send(Errand(msgspec.msgpack.encode(errand)))

    def result(self, number: int) -> Restored:
        """What came of that errand, when it is done. Raises what ended the work."""
        self._wait_until(lambda: number in self._results)
        return self._results.pop(number)

    def take(self, restored: Restored) -> None:
        """One is done."""
        with self._changed:
            self._results[restored.number] = restored
            self._changed.notify_all()
