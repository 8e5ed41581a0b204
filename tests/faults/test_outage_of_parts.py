"""Parts of a site that are away for a while amid a backup: the same attempt goes on, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.support.faults import MIB, Arena, arena, bytes_below, make_noise

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

SIZE = 320 * MIB
MOMENT = 16 * MIB
HOLD_SECONDS = 1.5
"""Shorter than what is left of the backup takes: without a core the worker has to pause."""
CLOCK_MARGIN = 2.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("arena"), core={"hold_seconds": HOLD_SECONDS}) as made:
        yield made


@asynccontextmanager
async def no_server(running: Arena) -> AsyncIterator[None]:
    running.server.server.kill()
    yield
    running.server.server.restart()


@asynccontextmanager
async def no_core(running: Arena) -> AsyncIterator[None]:
    running.kill("core")
    yield
    running.start("core")


@asynccontextmanager
async def frozen_target(running: Arena) -> AsyncIterator[None]:
    running.freeze("vault")
    yield
    running.thaw("vault")


Outage = Callable[[Arena], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    ("away", "seconds"),
    [
        (no_server, 20.0),
        pytest.param(no_core, 10.0, marks=pytest.mark.long),
        pytest.param(frozen_target, 10.0, marks=pytest.mark.long),
    ],
)
async def test_the_same_attempt_goes_on(running: Arena, away: Outage, seconds: float, restic: str) -> None:
    assert seconds > HOLD_SECONDS + CLOCK_MARGIN
    tree = make_noise(running.data / away.__name__, SIZE)
    backup = await running.backup(tree)
    await running.amid(backup, running.folder / "repository" / "data", MOMENT)
    async with away(running):
        stood_still = await stands_still(running, seconds)
        before = bytes_below(running.folder / "repository" / "data")
    assert stood_still, "the outage stopped nothing"
    record = await running.succeeded(backup)
    assert bytes_below(running.folder / "repository" / "data") > before + MOMENT, "it was over before the outage"
    assert [attempt.get("error") for attempt in record["attempts"]] == [None]
    assert await running.expect_told_once(record) == ["accepted", "started", "succeeded"]
    await running.expect_audit_whole()
    assert running.snapshots_of(restic, record["id"]) == [record["result"]["snapshot"]]
    running.expect_sound(restic)


async def stands_still(running: Arena, seconds: float) -> bool:
    """Whether nothing was stored in the last half of that time."""
    await asyncio.sleep(seconds / 2)
    before = bytes_below(running.folder / "repository" / "data")
    await asyncio.sleep(seconds / 2)
    return bytes_below(running.folder / "repository" / "data") == before
