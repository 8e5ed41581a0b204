"""One worker process as the job has it that it works for."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from typing import Protocol

from snappy import log
from snappy.error_codes import from_code
from snappy.errors import InternalError, SnappyError
from snappy.repository.link import CrewLink, Died, Ended, Failed, FromWorker, Ready, Stop, ToWorker

STOP_SECONDS = 10.0
"""How long a worker may take to let its uploads arrive when the work is given up."""

_log = log.get(__name__)


class Captain(Protocol):
    """Who decides what becomes of what a worker says. See :class:`snappy.repository.team.Team`."""

    def died(self, death: Died) -> None: ...

    def mourn(self, number: int) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def changed(self) -> None: ...


class Member(ABC):
    """One worker. What it says is heard in a thread of its own, and what only some workers say by :meth:`hear`."""

    def __init__(self, team: Captain, number: int, end: socket.socket) -> None:
        self._team, self._number = team, number
        self.process = 0
        """Its process id, once it is ready."""
        self.ended = False
        self._link = CrewLink(end)
        self._ear = threading.Thread(target=self._listen, name=f"worker-{number}", daemon=True)

    def begin(self) -> None:
        """Listen to it."""
        self._ear.start()

    def begun(self) -> None:
        """It is ready."""
        _log.debug("a worker is ready", number=self._number, process=self.process)

    @abstractmethod
    def hear(self, message: FromWorker) -> None:
        """Heed what workers of this kind say."""

    def send(self, message: ToWorker) -> None:
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
            self._team.mourn(self._number)
        except BaseException as error:
            self._team.fail(error)
        finally:
            self.ended = True
            self._team.changed()

    def _heed(self) -> None:
        message = self._link.receive()
        if isinstance(message, Failed):
            self._team.fail(_error(message))
        elif isinstance(message, Ready):
            self.process = message.process
            self.begun()
            self._team.changed()
        elif isinstance(message, Died):
            self._team.died(message)
        elif isinstance(message, Ended):
            self.ended = True
        else:
            self.hear(message)


def _error(failed: Failed) -> SnappyError:
    error = from_code(failed.code, failed.message, failed.hint)
    if isinstance(error, InternalError):
        _log.error("a worker failed", reason=failed.message, trace=failed.trace)
    return error
