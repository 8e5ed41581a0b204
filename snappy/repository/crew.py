"""The worker processes of one backup, seen from the process that walks: it hands out files, takes in blobs and packs.

Each worker is a process of its own with its own connection to the store (:mod:`snappy.repository.worker`). Which
blobs are new is decided here, so that no two workers store the same one. When anything fails all of it is given up.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from snappy import log
from snappy.errors import InternalError, SnappyError, WorkerDied, from_code
from snappy.repository.crypto import OVERHEAD
from snappy.repository.entries import Recipe
from snappy.repository.format import MIB, BlobId, BlobLocation, BlobType
from snappy.repository.link import (
    LOST,
    MORE,
    Batch,
    Claimed,
    CrewLink,
    Ended,
    Failed,
    FileOrder,
    Flush,
    Notice,
    Packed,
    Part,
    Round,
    Setup,
    Stop,
)
from snappy.repository.pack import FinishedPack
from snappy.repository.repo import Repository

BYTES_AT_A_WORKER = 8 * MIB
FILES_AT_A_WORKER = 512
"""A worker that has more than this still to read is given no more."""
ID_SIZE = 32
LOOK_SECONDS = 0.25
"""How often who waits for the workers looks whether it still should."""
STOP_SECONDS = 10.0
"""How long a worker may take to let its uploads arrive when the work is given up."""

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


class Wanted(Protocol):
    """A file that a worker is to read, and who is told of it. The calls come from one thread at a time."""

    recipe: Recipe
    size: int
    skip: int

    def begun(self, skipped: bool) -> None:
        """The reading begins; ``skipped`` says that it begins after the first ``skip`` bytes."""

    def read(self, blob: BlobId, size: int) -> None:
        """The next blob of it, and its plain bytes."""

    def done(self, changed: str) -> None:
        """That was all; ``changed`` says what happened to the file meanwhile, if anything."""

    def lost(self, why: str) -> None:
        """It cannot be read."""


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
        self._stopping = False
        self._notice: bytes | None = None
        self._hands: list[_Hand] = []
        try:
            for number in range(workers.most):
                self._hands.append(_Hand(self, number, setup))
        except OSError:
            if not self._hands:
                raise
        recipe = repo.store.recipe()
        self._unwatch = recipe.watch(self._tell) if recipe and recipe.watch else lambda: None
        self._herald = threading.Thread(target=self._tell_all, name="worker-notices", daemon=True)
        self._herald.start()
        _log.debug("workers started", count=len(self._hands))

    @property
    def processes(self) -> list[int]:
        """The workers' process ids."""
        return [hand.process.pid for hand in self._hands]

    def submit(self, files: Sequence[Wanted]) -> None:
        """Have the files read by one worker, in this order. Blocks while all have enough to do."""
        with self._changed:
            while not (free := [hand for hand in self._hands if hand.has_room()]):
                self._wait()
            self.raise_failure()
            hand = min(free, key=lambda hand: hand.bytes)
            batch = hand.take(files)
        hand.send(batch)

    def finish(self) -> None:
        """Return when all files are read and all that was new in them is stored."""
        for hand in self._hands:
            hand.send(Flush())
        with self._changed:
            while not all(hand.ended for hand in self._hands):
                self._wait()
            self._look()

    def close(self) -> None:
        """End the processes; what they were doing is given up, but uploads under way arrive. May be called twice."""
        self._unwatch()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for hand in self._hands:
            hand.stop()
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

    def take_round(self, hand: _Hand, parts: list[Part]) -> None:
        """Answer which of a round's blobs are new, and tell those who want its files. Without an answer the worker
        does no more, but what it uploads meanwhile is taken in."""
        try:
            self._check()
        except SnappyError as error:
            self.fail(error)
            return
        new = bytearray()
        for part in parts:
            for place, size in enumerate(part.sizes):
                blob = part.blobs[place * ID_SIZE : (place + 1) * ID_SIZE]
                new.append(self._repo.claim_blob(BlobType.DATA, blob, size))
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

    def raise_failure(self) -> None:
        """Raise what has stopped the work, if anything has."""
        if self._failure is not None:
            raise self._failure

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


class _Hand:
    """One worker. What it says is heard in a thread of its own."""

    def __init__(self, crew: Crew, number: int, setup: Setup) -> None:
        self._crew = crew
        self.bytes = 0
        self.ended = False
        self._given = 0
        self._wanted: dict[int, tuple[Wanted, bool]] = {}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = _start(theirs)
            except BaseException:
                ours.close()
                raise
        self._link = CrewLink(ours)
        self.send(setup)
        self._ear = threading.Thread(target=self._listen, name=f"worker-{number}", daemon=True)
        self._ear.start()

    def has_room(self) -> bool:
        """Whether it has so little to do that it would soon be idle."""
        return self.bytes < BYTES_AT_A_WORKER and len(self._wanted) < FILES_AT_A_WORKER and not self.ended

    def take(self, files: Sequence[Wanted]) -> Batch:
        """Note the files as its own."""
        orders = []
        for file in files:
            self._given += 1
            self._wanted[self._given] = (file, False)
            self.bytes += file.size
            orders.append(FileOrder(self._given, file.recipe.maker, file.recipe.arguments, file.skip))
        return Batch(orders)

    def take_part(self, part: Part) -> None:
        """Tell who wants the file."""
        file, begun = self._wanted[part.number]
        if not begun and part.state != LOST:
            file.begun(part.skipped)
            self._wanted[part.number] = (file, True)
        for place, size in enumerate(part.sizes):
            file.read(part.blobs[place * ID_SIZE : (place + 1) * ID_SIZE], size)
        if part.state != MORE:
            (file.lost if part.state == LOST else file.done)(part.remark)
            self.bytes -= file.size
            del self._wanted[part.number]

    def send(self, message: Setup | Batch | Claimed | Notice | Flush | Stop) -> None:
        """What cannot be sent is not missed: that the worker is gone is heard where it is listened to."""
        try:
            self._link.send(message)
        except OSError as error:
            _log.debug("a worker could not be told", reason=str(error))

    def stop(self) -> None:
        """Ask it to end."""
        if not self.ended:
            self.send(Stop())

    def leave(self) -> None:
        """Let it end in its own time, but not for long."""
        self._ear.join(STOP_SECONDS)
        self._link.close()
        if self._ear.is_alive() or self.process.poll() is None:
            self._end()
        self._ear.join()
        self._link.release()

    def _end(self) -> None:
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _listen(self) -> None:
        try:
            while not self.ended:
                self._heed()
        except (EOFError, OSError):
            self._crew.fail(self._death())
        except BaseException as error:
            self._crew.fail(error)
        finally:
            self.ended = True
            self._crew.changed()

    def _heed(self) -> None:
        message = self._link.receive()
        if isinstance(message, Round):
            self._crew.take_round(self, message.parts)
            self._crew.changed()
        elif isinstance(message, Packed):
            self._crew.take_pack(message)
        elif isinstance(message, Failed):
            self._crew.fail(_error(message))
        elif isinstance(message, Ended):
            self.ended = True

    def _death(self) -> SnappyError:
        self._end()
        status = self.process.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return WorkerDied(f"a worker process of the backup {how}")


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "snappy.repository.worker"],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
    )


def _error(failed: Failed) -> SnappyError:
    error = from_code(failed.code, failed.message, failed.hint)
    if isinstance(error, InternalError):
        _log.error("a worker failed", reason=failed.message, trace=failed.trace)
    return error
