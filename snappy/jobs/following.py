"""Brings the events that a consumer delivers into the stream's order, each once, and finds what is missing.

A consumer delivers in order until something dies: what was delivered to the dead comes again half a minute later,
after what is newer. So an event whose predecessors are missing waits for them, and they are given up only after
:data:`GAP_SECONDS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from snappy import log

_log = log.get(__name__)

GAP_SECONDS = 45.0
"""Longer than the consumer waits for an acknowledgement before it delivers again."""


class Stand(NamedTuple):
    """How far a log has followed the stream: the epoch, the newest event's sequence and its time in the stream."""

    epoch: int = 1
    sequence: int = 0
    time: float = 0.0


class Delivered(NamedTuple):
    """One event. ``first``: the consumer delivered nothing before it, so that nothing before it can come again."""

    sequence: int
    time: float
    subject: str
    event: dict[str, Any]
    first: bool = False


class Follower:
    """``is_kept`` says whether an event is in the log; ``clock`` gives Unix seconds."""

    def __init__(
        self, stand: Stand, is_kept: Callable[[Delivered], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self.stand = stand
        self._is_kept = is_kept
        self._clock = clock
        self._waiting: dict[int, Delivered] = {}
        self._gap_since: float | None = None

    def take(self, delivered: list[Delivered]) -> tuple[list[dict[str, Any]], set[int]]:
        """The entries that can be written now, in order, and the sequences that are done with once they are."""
        self._waiting |= {each.sequence: each for each in delivered}
        entries: list[dict[str, Any]] = []
        done: set[int] = set()
        for sequence in sorted(self._waiting):
            if self._must_wait(self._waiting[sequence]):
                break
            entries += self._entries(self._waiting.pop(sequence))
            done.add(sequence)
        if not self._waiting:
            self._gap_since = None
        return entries, done

    def _must_wait(self, event: Delivered) -> bool:
        if event.sequence <= self.stand.sequence + 1 or event.first:
            self._gap_since = None
            return False
        if self._gap_since is None:
            self._gap_since = self._clock()
        return self._clock() - self._gap_since < GAP_SECONDS

    def _entries(self, event: Delivered) -> list[dict[str, Any]]:
        """The event's entry, after the alarm that it raises; nothing if it is in the log."""
        epoch, last, newest = self.stand
        if event.sequence <= last:
            return [] if self._is_kept(event) else self._unexpected(event)
        alarms = []
        if event.sequence > last + 1:
            alarms = [self._alarm(event, "events are missing", first=last + 1, last=event.sequence - 1)]
            self._gap_since = None
        self.stand = Stand(epoch, event.sequence, max(newest, event.time))
        return [*alarms, self._entry(event)]

    def _unexpected(self, event: Delivered) -> list[dict[str, Any]]:
        """A number that was given already: to an older event that comes too late, or by a stream made anew."""
        if event.time <= self.stand.time:
            return [self._alarm(event, "an event came late"), {**self._entry(event), "late": True}]
        remembered = self.stand.sequence
        self.stand = Stand(self.stand.epoch + 1, event.sequence - 1, self.stand.time)
        alarm = self._alarm(event, "the events stream was made anew", remembered=remembered)
        return [alarm, *self._entries(event)]

    def _entry(self, event: Delivered) -> dict[str, Any]:
        return {
            "epoch": self.stand.epoch,
            "sequence": event.sequence,
            "time": event.time,
            "subject": event.subject,
            "event": event.event,
        }

    def _alarm(self, event: Delivered, alarm: str, **details: int) -> dict[str, Any]:
        _log.error("audit alarm", alarm=alarm, sequence=event.sequence, **details)
        return {
            "epoch": self.stand.epoch,
            "sequence": event.sequence,
            "time": self._clock(),
            "alarm": alarm,
            **details,
        }
