"""Holds a target's transfers to a number of bytes a second: its own, and each job's as its grant says.

The target waits before it answers, so that a limit holds whoever sends, and sends smaller frames, so that nobody waits
for an answer longer than he would without a limit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime

from snappy.bandwidth import Timetable
from snappy.bus.grants import Grant

CREDIT_SECONDS = 0.1
"""What was not used so lately may be made up for: who wakes late is not slower for it."""
FRAMES_A_SECOND = 8
"""As many at least make up a second, so that all that are under way (some tens) take a few."""
LEAST_FRAME = 4 << 10
LONGEST_WAIT = 10.0
"""Seconds that a message which came whole waits; what it still owes the next ones pay."""
REMEMBERED = 256
"""Jobs whose rates are kept."""


class Throttle:
    """``rate`` gives the bytes a second now, 0 for no limit."""

    def __init__(self, rate: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._free = -math.inf

    def owed(self, count: int) -> float:
        """Take ``count`` bytes; seconds until they may have passed."""
        rate, now = self.rate(), self._clock()
        if not rate:
            return 0.0
        self._free = max(self._free, now - CREDIT_SECONDS) + count / rate
        return self._free - now


class Pace:
    """What holds for one transfer: all of ``throttles``."""

    def __init__(self, throttles: Sequence[Throttle] = ()) -> None:
        self.throttles = tuple(throttles)

    @property
    def is_free(self) -> bool:
        """Whether nothing will ever hold it up."""
        return not self.throttles

    def frame(self, most: int) -> int:
        """How many bytes of data a frame has, of ``most`` that it could."""
        rates = [rate for throttle in self.throttles if (rate := throttle.rate())]
        return min(most, max(LEAST_FRAME, min(rates) // FRAMES_A_SECOND)) if rates else most

    async def take(self, count: int, longest: float = math.inf) -> None:
        """Wait until ``count`` bytes may have passed, but no longer than ``longest`` seconds."""
        seconds = max((throttle.owed(count) for throttle in self.throttles), default=0.0)
        if seconds > 0:
            await asyncio.sleep(min(seconds, longest))


class _Both:
    """The two directions of one timetable."""

    def __init__(self, timetable: Timetable, now: Callable[[], datetime]) -> None:
        self.upload = Throttle(lambda: timetable.at(now()).upload)
        self.download = Throttle(lambda: timetable.at(now()).download)


class Throttles:
    """Of one replica of a target, whose own limit is ``timetable``. Times of day are this machine's."""

    def __init__(self, timetable: Timetable = Timetable(), now: Callable[[], datetime] = datetime.now) -> None:  # noqa: B008
        self._now = now
        self._own = _Both(timetable, now) if timetable.is_limit() else None
        self._jobs: OrderedDict[tuple[str, str], _Both] = OrderedDict()

    def upload(self, grant: Grant | None) -> Pace:
        return Pace([both.upload for both in self._both(grant)])

    def download(self, grant: Grant | None) -> Pace:
        return Pace([both.download for both in self._both(grant)])

    def _both(self, grant: Grant | None) -> list[_Both]:
        job = self._of_job(grant) if grant is not None and grant.bandwidth else None
        return [both for both in (self._own, job) if both is not None]

    def _of_job(self, grant: Grant) -> _Both:
        """One for all transfers of a job; a forgotten one begins anew."""
        name = (grant.job, grant.bandwidth)
        if name not in self._jobs:
            self._jobs[name] = _Both(Timetable.parse(grant.bandwidth), self._now)
        self._jobs.move_to_end(name)
        if len(self._jobs) > REMEMBERED:
            self._jobs.popitem(last=False)
        return self._jobs[name]
