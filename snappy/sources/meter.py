"""Reads the engine's counters and makes rates and time left of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from snappy.jobs import messages
from snappy.repository.progress import Progress

WINDOW_SECONDS = 5.0
"""The rate is that of the last so many seconds."""


class Meter:
    """Samples ``progress``; ``clock`` counts monotonic seconds."""

    def __init__(self, progress: Progress, job: str, attempt: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._job, self._attempt, self._clock = progress, job, attempt, clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._last: messages.Progress | None = None

    def read(self) -> messages.Progress | None:
        """How far the job is, or None when nothing changed since the last time."""
        progress = self._progress
        rate = self._rate(progress.bytes_done)
        known = progress.bytes_total >= progress.bytes_done
        total = progress.bytes_total if known else 0
        seen = messages.Progress(
            job=self._job,
            attempt=self._attempt,
            files=progress.files_done,
            bytes=progress.bytes_done,
            files_total=progress.files_total if known else 0,
            bytes_total=total,
            rate=rate,
            remaining=(total - progress.bytes_done) / rate if total and rate else None,
        )
        if seen == self._last:
            return None
        self._last = seen
        return seen

    def _rate(self, count: int) -> float:
        now = self._clock()
        self._samples.append((now, count))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        began, before = self._samples[0]
        return (count - before) / (now - began) if now > began else 0.0
