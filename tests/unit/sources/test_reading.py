"""The right to read another target: renewed while it is wanted, and never a reason to wait for what cannot come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from snappy.errors import BusUnavailable, JobCancelled, SnappyError, UnknownService
from snappy.jobs.messages import HoldAnswer
from snappy.sources import reading
from snappy.sources.permit import Permit
from snappy.sources.reading import ReadPermit

SECONDS = 10.0


def answering(failures: list[SnappyError]) -> Callable[[str], object]:
    """A core that first fails so, and then gives grants that hold for a moment."""
    numbers = count(1)

    async def ask(target: str) -> HoldAnswer:
        if failures:
            raise failures.pop(0)
        return HoldAnswer(clock=100.0, deadline=100.06, grant=f"{target} {next(numbers)}")

    return ask


def permit(hold: Permit, *failures: SnappyError) -> ReadPermit:
    return ReadPermit("vault", answering(list(failures)), hold)  # type: ignore[arg-type]


async def test_it_is_renewed_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RETRY_SECONDS", 0.01)
    kept = permit(Permit(), BusUnavailable("away"))
    async with asyncio.timeout(SECONDS), kept.kept():
        while kept.grant() != "vault 3":
            await asyncio.sleep(0.01)
        await asyncio.to_thread(kept.check)
    await asyncio.sleep(0.1)
    assert kept.grant() in ("vault 3", "vault 4")


async def test_what_the_core_refuses_ends_it() -> None:
    kept = permit(Permit(), UnknownService("no target service 'vault' was ever seen"))
    async with asyncio.timeout(SECONDS), kept.kept():
        with pytest.raises(UnknownService):
            await asyncio.to_thread(kept.check)


async def test_it_ends_with_the_hold_of_the_job() -> None:
    hold = Permit()
    kept = permit(hold, *[BusUnavailable("away")] * 99)
    async with asyncio.timeout(SECONDS), kept.kept():
        waiting = asyncio.create_task(asyncio.to_thread(kept.check))
        await asyncio.sleep(0.05)
        hold.end(JobCancelled())
        with pytest.raises(JobCancelled):
            await waiting
