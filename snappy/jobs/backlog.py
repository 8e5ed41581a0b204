"""What workers reported while no core read it: until that is read, what a core knows is old."""

from __future__ import annotations

import json
from collections.abc import Callable

from snappy.bus.connection import Bus
from snappy.errors import BusError


class Backlog:
    """``is_watching`` says whether this core has been looking at its jobs without a pause for a while."""

    def __init__(self, bus: Bus, is_watching: Callable[[], bool]) -> None:
        self._bus = bus
        self._is_watching = is_watching
        self._last: int | None = None
        self._read = False

    async def is_read(self) -> bool:
        """Whether all that was reported before the watch began was read by the time this was asked before; since then
        the records that it led to were seen. Raises BusError."""
        if not self._is_watching():
            self._last, self._read = None, False
            return False
        was_read = self._read
        if not self._read:
            self._read = await self._look()
        return was_read

    async def _look(self) -> bool:
        subjects = self._bus.subjects
        answer = json.loads(await self._bus.request(f"$JS.API.STREAM.INFO.{subjects.reports_stream}", b"", timeout=5.0))
        if "error" in answer:
            raise BusError(f"the reports cannot be read: {answer['error'].get('description', '')}")
        state = answer["state"]
        if self._last is None:
            self._last = state["last_seq"]
        return bool(state["messages"] == 0 or state["first_seq"] > self._last)
