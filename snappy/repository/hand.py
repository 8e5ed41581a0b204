"""One worker process as the backup has it: what it is to read, and what it says of that."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Protocol

from snappy import log
from snappy.errors import InternalError, SnappyError, from_code
from snappy.repository.format import MIB
from snappy.repository.link import (
    LOST,
    MORE,
    Batch,
    Claimed,
    CrewLink,
    Died,
    Ended,
    Failed,
    FileOrder,
    Flush,
    Notice,
    Packed,
    Part,
    Reached,
    Ready,
    Round,
    Stop,
)
from snappy.repository.relay import FilePart, Wanted

BYTES_AT_A_WORKER = 8 * MIB
FILES_AT_A_WORKER = 512
"""A worker that has more than this still to read is given no more."""
STOP_SECONDS = 10.0
"""How long a worker may take to let its uploads arrive when the work is given up."""

_log = log.get(__name__)


class Captain(Protocol):
    """Who decides what becomes of what a worker says. See :class:`snappy.repository.crew.Crew`."""

    def take_round(self, hand: Hand, parts: list[Part]) -> None: ...

    def take_pack(self, packed: Packed) -> None: ...

    def go_on(self, part: FilePart) -> None: ...

    def died(self, death: Died) -> None: ...

    def mourn(self, number: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def changed(self) -> None: ...


class Hand:
    """One worker. What it says is heard in a thread of its own."""

    def __init__(self, crew: Captain, number: int, end: socket.socket) -> None:
        self._crew, self._number = crew, number
        self.process = 0
        """Its process id, once it is ready."""
        self.bytes = 0
        self.ended = False
        self._given = 0
        self._wanted: dict[int, tuple[Wanted, bool]] = {}
        self._link = CrewLink(end)
        self._ear = threading.Thread(target=self._listen, name=f"worker-{number}", daemon=True)

    def begin(self) -> None:
        """Listen to it."""
        self._ear.start()

    def has_room(self) -> bool:
        """Whether it has so little to do that it would soon be idle."""
        busy = self.bytes >= BYTES_AT_A_WORKER or len(self._wanted) >= FILES_AT_A_WORKER
        return bool(self.process) and not (busy or self.ended)

    def is_busy(self) -> bool:
        """Whether it has anything to do."""
        return bool(self._wanted)

    def take(self, files: Sequence[Wanted]) -> Batch:
        """Note the files as its own."""
        orders = []
        for file in files:
            self._given += 1
            self._wanted[self._given] = (file, False)
            self.bytes += file.size
            orders.append(_order(self._given, file))
        return Batch(orders)

    def take_part(self, part: Part) -> None:
        """Tell who wants the file."""
        file, begun = self._wanted[part.number]
        if not begun and (part.sizes or part.state != LOST):  # who is told of blobs must know where they begin
            file.begun(part.skipped)
            self._wanted[part.number] = (file, True)
        for blob, size in part.named():
            file.read(blob, size)
        if part.state != MORE:
            (file.lost if part.state == LOST else file.done)(part.remark)
            self.bytes -= file.size
            del self._wanted[part.number]

    def _part(self, number: int) -> FilePart:
        file, _ = self._wanted[number]
        assert isinstance(file, FilePart)
        return file

    def send(self, message: Batch | Claimed | Notice | Flush | Stop) -> None:
        """What cannot be sent is not missed: that the worker is gone is heard where it is listened to."""
        try:
            self._link.send(message)
        except OSError as error:
            _log.debug("a worker could not be told", reason=str(error))

    def stop(self) -> None:
        """Ask it to end."""
        if not self.ended:
            self.send(Stop())

    def has_stopped(self) -> bool:
        """Whether it has ended; it may take its time, but not long. One that was never ready is not waited for."""
        if self.process:
            self._ear.join(STOP_SECONDS)
        return not self._ear.is_alive()

    def leave(self) -> None:
        """Listen no more."""
        self._link.close()
        self._ear.join()
        self._link.release()

    def _listen(self) -> None:
        try:
            while not self.ended:
                self._heed()
        except (EOFError, OSError):
            self._crew.mourn(self._number)
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
        elif isinstance(message, Reached):
            if rest := self._part(message.number).reached(message.offset):
                self._crew.go_on(rest)
        elif isinstance(message, Packed):
            self._crew.take_pack(message)
        elif isinstance(message, Failed):
            self._crew.fail(_error(message))
        elif isinstance(message, Ready):
            self.process = message.process
            self._crew.changed()
        elif isinstance(message, Died):
            self._crew.died(message)
        elif isinstance(message, Ended):
            self.ended = True


def _order(number: int, file: Wanted) -> FileOrder:
    recipe = file.recipe
    return FileOrder(number, recipe.maker, recipe.arguments, file.skip, isinstance(file, FilePart))


def _error(failed: Failed) -> SnappyError:
    error = from_code(failed.code, failed.message, failed.hint)
    if isinstance(error, InternalError):
        _log.error("a worker failed", reason=failed.message, trace=failed.trace)
    return error
