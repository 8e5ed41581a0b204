"""Whether work may go on: a grant and how long it holds. The engine's threads ask; somebody else keeps it fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec

from snappy.decoding import from_msgpack
from snappy.error_codes import from_code
from snappy.errors import SnappyError


class _Reason(msgspec.Struct, array_like=True, frozen=True):
    code: str
    message: str
    hint: str


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """A permit as another process of this machine is told of it; ``valid_until`` is by the system's monotonic clock,
    which all of them share."""

    grant: str
    valid_until: float
    ended: _Reason | None


Listener = Callable[[bytes], None]


class Permit:
    """Work may go on until ``valid_until`` by ``clock`` (monotonic seconds), and waits then until there is another
    grant; once it has ended it never may again. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._ended: SnappyError | None = None
        self._grant = ""
        self._valid_until = 0.0
        self._heard = ("", 0.0)
        self._listeners: list[Listener] = []

    def grant(self) -> str:
        """The newest grant; it may have run out."""
        return self._grant

    @property
    def ended(self) -> SnappyError | None:
        """Why the attempt has ended, if it has."""
        return self._ended

    def check(self) -> None:
        """Return if work may go on; wait while the grant has run out. Raises the reason why the attempt has ended."""
        if self._ended is None and self._clock() < self._valid_until:
            return
        with self._changed:
            while self._ended is None and self._clock() >= self._valid_until:
                self._changed.wait()
            if self._ended is not None:
                raise self._ended

    def lapse(self, grant: str) -> None:
        """A target found that ``grant`` ran out: wait for the next one, whatever our clock says."""
        with self._changed:
            if grant == self._grant:
                self._valid_until = 0.0

    def end(self, reason: SnappyError) -> None:
        """Make every :meth:`check` raise ``reason``; the first reason stays."""
        with self._changed:
            self._ended = self._ended or reason
            self._announce()

    def extend(self, grant: str, valid_until: float) -> None:
        """There is a new grant."""
        with self._changed:
            self._grant, self._valid_until = grant, valid_until
            self._announce()

    def watch(self, listener: Listener) -> Callable[[], None]:
        """Tell ``listener``, which must not block, how things are now and after each change; returns what ends that."""
        with self._changed:
            self._listeners.append(listener)
            listener(self._notice())
        return lambda: self._forget(listener)

    def told(self, notice: bytes) -> None:
        """Be as the permit of another process, whose :meth:`watch` gave this."""
        heard = from_msgpack(notice, Notice)
        with self._changed:
            granted = (heard.grant, heard.valid_until)
            if granted != self._heard:  # what was heard before may have lapsed here
                self._grant, self._valid_until = self._heard = granted
            if heard.ended:
                self._ended = self._ended or from_code(heard.ended.code, heard.ended.message, heard.ended.hint)
            self._changed.notify_all()

    def _announce(self) -> None:
        self._changed.notify_all()
        for listener in self._listeners:
            listener(self._notice())

    def _notice(self) -> bytes:
        ended = self._ended
        reason = _Reason(ended.code, ended.message, ended.hint) if ended else None
        return msgspec.msgpack.encode(Notice(self._grant, self._valid_until, reason))

    def _forget(self, listener: Listener) -> None:
        with self._changed:
            if listener in self._listeners:
                self._listeners.remove(listener)
