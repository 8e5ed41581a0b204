"""The worker processes of one backup, seen from the process that walks: it hands out files, takes in blobs and packs.

Each worker is a process of its own with its own connection to the store (:mod:`snappy.repository.worker`). Which
blobs are new is decided here, so that no two workers store the same one. When anything fails all of it is given up.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from snappy import log
from snappy.errors import SnappyError, WorkerDied
from snappy.repository.crypto import OVERHEAD
from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.hand import Hand
from snappy.repository.link import Claimed, Died, Flush, Notice, Packed, Part, Setup
from snappy.repository.pack import FinishedPack
from snappy.repository.relay import WORTH_PARTS, FilePart, Relay, Wanted
from snappy.repository.repo import Repository
from snappy.repository.worker_processes import WorkerProcesses

LOOK_SECONDS = 0.25
"""How often who waits for the workers looks whether it still should."""
MOURNING_SECONDS = 1.0
"""How long it may take until another worker says how one ended."""

_log = log.get(__name__)


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """How many worker processes a backup may start, and their place among other processes."""

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


class Stored(NamedTuple):
    """New blobs that a worker stored: how many, and their plain and sealed bytes."""

    blobs: int
    plain: int
    sealed: int


class Crew:
    """Starts the workers. ``stored`` hears of new blobs and ``check``, which raises to end all, is asked often.

    Raises ``OSError`` when no process can be started. Use it as: :meth:`submit` ..., then :meth:`finish`; and always
    :meth:`close`. ``submit`` and ``finish`` are for one thread.
    """

    def __init__(
        self,
        repo: Repository,
        setup: Setup,
        workers: Workers,
        stored: Callable[[Stored], None],
        check: Callable[[], None],
    ) -> None:
        self._repo, self._stored, self._check = repo, stored, check
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._stopping = self._ready = False
        self._notice: bytes | None = None
        self._processes, ends = _start(setup, workers.most)
        self._hands = [Hand(self, number, end) for number, end in enumerate(ends)]
        for hand in self._hands:
            hand.begin()
        recipe = repo.store.recipe()
        self._unwatch = recipe.watch(self._tell) if recipe and recipe.watch else lambda: None
        self._herald = threading.Thread(target=self._tell_all, name="worker-notices", daemon=True)
        self._herald.start()
        _log.debug("workers started", count=len(self._hands))

    @property
    def processes(self) -> list[int]:
        """The process ids of those workers that are ready."""
        return [hand.process for hand in self._hands if hand.process]

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether a worker can be given files: they take some tenths of a second to load, which may be waited for."""
        if not self._ready:  # once it is, this is quick, as it is asked for each file
            with self._changed:
                self._changed.wait_for(lambda: self.processes or all(hand.ended for hand in self._hands), seconds)
            self._ready = bool(self.processes)
        return self._ready

    def submit(self, files: Sequence[Wanted]) -> None:
        """Have the files read by one worker, in this order. Blocks while all that are ready have enough to do."""
        with self._changed:
            while not (free := [hand for hand in self._hands if hand.has_room()]):
                self._wait()
            self.raise_failure()
            hand = min(free, key=lambda hand: hand.bytes)
            batch = hand.take([self._whole_or_part(file) for file in files])
        hand.send(batch)

    def _whole_or_part(self, file: Wanted) -> Wanted:
        return Relay(file).part(file.skip) if file.size - file.skip >= WORTH_PARTS and len(self._hands) > 1 else file

    def go_on(self, part: FilePart) -> None:
        """Have one more part of a file read, by who has least to do."""
        with self._changed:
            hand = min((hand for hand in self._hands if hand.process), key=lambda hand: hand.bytes)
            batch = hand.take([part])
        hand.send(batch)

    def finish(self) -> None:
        """Return when all files are read and all that was new in them is stored."""
        self._wait_until(lambda: not any(hand.is_busy() for hand in self._hands))
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

    def take_round(self, hand: Hand, parts: list[Part]) -> None:
        """Answer which of a round's blobs are new, and tell those who want its files. Without an answer the worker
        does no more, but what it uploads meanwhile is taken in."""
        try:
            self._check()
        except SnappyError as error:
            self.fail(error)
            return
        new = self._repo.claim_blobs(BlobType.DATA, (blob for part in parts for blob in part.named()))
        hand.send(Claimed(bytes(new)))
        for part in parts:
            hand.take_part(part)

    def take_pack(self, packed: Packed) -> None:
        """Learn where new blobs lie."""
        blobs = [
            BlobLocation(BlobType.DATA, one.id, packed.pack, one.offset, one.length, one.uncompressed_length)
            for one in packed.blobs
        ]
        sealed = sum(blob.length for blob in blobs)
        plain = sum(blob.uncompressed_length or blob.length - OVERHEAD for blob in blobs)
        self._repo.take_in(FinishedPack(packed.pack, packed.size, blobs), sealed)
        self._stored(Stored(len(blobs), plain, sealed))

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
            self.fail(WorkerDied(f"a worker process of the backup was {how}"))

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
