"""The worker processes of one job, seen from the process that does it: they are started, heard, told and ended.

Each worker is a process of its own with its own connection to the store (:mod:`snappy.repository.worker_process`).
When anything fails all of it is given up.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from snappy import log
from snappy.errors import WorkerDied
from snappy.repository.link import Died, Flush, Notice, Setup
from snappy.repository.member import Member
from snappy.repository.store import Store
from snappy.repository.worker_processes import WorkerProcesses

LOOK_SECONDS = 0.25
"""How often who waits for the workers looks whether it still should."""
MOURNING_SECONDS = 1.0
"""How long it may take until another worker says how one ended."""

_log = log.get(__name__)

AnyMember = TypeVar("AnyMember", bound=Member)


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """How many worker processes a job may start, and their place among other processes."""

    most: int = 1
    """One or fewer: none; this process does the work itself."""
    niceness: int = 0
    """0 to 19; the higher, the more they give way."""


NO_WORKERS = Workers()


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Team(Generic[AnyMember]):
    """Starts the workers: ``member`` makes one's counterpart here from its number and the socket to it. ``check``,
    which raises to end all, is asked often. Raises ``OSError`` when no process can be started. Always :meth:`close` it.
    """

    def __init__(
        self,
        store: Store,
        setup: Setup,
        count: int,
        member: Callable[[int, socket.socket], AnyMember],
        check: Callable[[], None],
    ) -> None:
        self._check = check
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stopping = self._ready = False
        self._notice: bytes | None = None
        self._processes, ends = _start(setup, count)
        self._hands = [member(number, end) for number, end in enumerate(ends)]
        for hand in self._hands:
            hand.begin()
        recipe = store.recipe()
        self._unwatch = recipe.watch(self._tell) if recipe and recipe.watch else lambda: None
        self._herald = threading.Thread(target=self._tell_all, name="worker-notices", daemon=True)
        self._herald.start()
        _log.debug("workers started", count=len(self._hands))

    @property
    def processes(self) -> list[int]:
        """The process ids of those workers that are ready."""
        return [hand.process for hand in self._hands if hand.process]

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether a worker can be given work: they take some tenths of a second to load, which may be waited for."""
        if not self._ready:  # once it is, this is quick, as it is asked for each file
            with self._changed:
                self._changed.wait_for(lambda: self.processes or all(hand.ended for hand in self._hands), seconds)
            self._ready = bool(self.processes)
        return self._ready

    def end(self) -> None:
        """Let each worker finish all that it was given, and return when they have ended."""
        hands = [hand for hand in self._hands if hand.process]
        for hand in hands:
            hand.send(Flush())
        self._wait_until(lambda: all(hand.ended for hand in hands))

    def close(self) -> None:
        """End the processes; what they were doing is given up, but uploads under way arrive. May be called twice."""
        self._unwatch()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for hand in self._hands:
            hand.stop()
        if [hand for hand in self._hands if not hand.has_stopped()]:
            self._processes.kill()
        self._processes.leave()
        for hand in self._hands:
            hand.leave()
        self._herald.join()

    def fail(self, error: BaseException) -> None:
        """Everything ends with this error, unless another came before."""
        with self._changed:
            if not self._stopping:
                self._failure = self._failure or error
            self._changed.notify_all()

    def changed(self) -> None:
        """Wake who waits for a worker."""
        with self._changed:
            self._changed.notify_all()

    def mourn(self, number: int) -> None:
        """A worker has ended in the midst of its work."""
        status = self._processes.status_of_first() if number == 0 else None
        with self._changed:
            if status is None:  # the first worker knows
                self._changed.wait_for(lambda: self._failure or self._stopping, MOURNING_SECONDS)
        self.died(Died(number, status or 0))

    def died(self, death: Died) -> None:
        """A worker has ended like that."""
        if self._hands[death.number].process:  # else nothing was lost with it
            how = f"ended by signal {-death.status}" if death.status < 0 else f"gone, with status {death.status}"
            self.fail(WorkerDied(f"a worker process was {how}"))

    def raise_failure(self) -> None:
        """Raise what has stopped the work, if anything has."""
        if self._failure is not None:
            raise self._failure

    def _wait_until(self, happened: Callable[[], bool]) -> None:
        with self._changed:
            while not happened():
                self._wait()
            self._look()

    def _wait(self) -> None:
        self.raise_failure()
        if not self._changed.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        self.raise_failure()
        self._changed.release()  # it may have to wait until there is a grant again
        try:
            self._check()
        finally:
            self._changed.acquire()

    def _tell(self, notice: bytes) -> None:
        """Only the newest notice matters. Called where nothing may block."""
        with self._changed:
            self._notice = notice
            self._changed.notify_all()

    def _tell_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._notice is not None or self._stopping)
                notice, self._notice = self._notice, None
                if notice is None:
                    return
            for hand in self._hands:
                hand.send(Notice(notice))


def _start(setup: Setup, count: int) -> tuple[WorkerProcesses, list[socket.socket]]:
    """The workers and our ends of the sockets to them."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        return WorkerProcesses(setup, [theirs for _, theirs in pairs]), [ours for ours, _ in pairs]
    except BaseException:
        for ours, _ in pairs:
            ours.close()
        raise
    finally:
        for _, theirs in pairs:
            theirs.close()
