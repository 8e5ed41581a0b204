from __future__ import annotations

import asyncio
from collections.abc import Iterator

from fsspec.implementations.memory import MemoryFileSystem

from snappy.targets import chores


class Busy(MemoryFileSystem):
    """Its first chore fails, its second has two steps."""

    cachable = False
    chore_seconds = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def chores(self, root: str) -> list[Iterator[str]]:
        return [self._failing(), self._stepping(root)]

    def _failing(self) -> Iterator[str]:
        raise PermissionError("that is not allowed")
        yield ""

    def _stepping(self, root: str) -> Iterator[str]:
        for name in ("one", "two"):
            self.done.append(f"{root}/{name}")
            yield name


def test_a_chore_that_fails_keeps_no_other_from_being_done() -> None:
    fs = Busy()
    chores.round_of(fs, "/kept")
    assert fs.done == ["/kept/one", "/kept/two"]


def test_who_has_to_stop_does_no_further_step() -> None:
    fs = Busy()
    chores.round_of(fs, "/kept", lambda: bool(fs.done))
    assert fs.done == ["/kept/one"]


async def test_chores_are_done_over_and_over_until_that_is_cancelled() -> None:
    fs = Busy()
    keeping = asyncio.create_task(chores.keep(fs, ""))
    async with asyncio.timeout(10):
        while len(fs.done) < 6:
            await asyncio.sleep(0.01)
    keeping.cancel()
    await asyncio.wait({keeping})
    assert keeping.cancelled()


def test_a_place_without_chores_has_none() -> None:
    assert chores.chores(MemoryFileSystem(), "/kept") == []
