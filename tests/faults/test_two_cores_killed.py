"""Two cores as processes, one of them killed every few seconds: each job ends once, and is told of once."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import careless_core, event_log, null_jobs, null_source
from tests.support.faults import Arena, arena

pytestmark = pytest.mark.timeout(600)

CORES = ("core", "core.b")
READY = "the core knows its jobs"
HOLD_SECONDS = 8.0
"""Longer than it takes until the other core is given the reports that one had in its hands when it died."""


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    """The parameter stands in for ``snappy`` in the cores; by default nothing does."""
    processes = [*CORES, "audit", "vault", "site1", "site1.b"]
    programs = dict.fromkeys(("site1", "site1.b"), null_source.PROGRAM)
    if program := getattr(request, "param", None):
        programs |= dict.fromkeys(CORES, program)
    with arena(tmp_path, core={"hold_seconds": HOLD_SECONDS}, processes=processes, programs=programs) as made:
        yield made


@pytest.mark.parametrize(
    ("jobs", "every", "least"),
    [(150, (0.2, 0.6), 3), pytest.param(1000, (1.5, 3.0), 10, marks=pytest.mark.long)],
)
async def test_each_job_ends_once_whatever_core_dies(
    running: Arena, jobs: int, every: tuple[float, float], least: int
) -> None:
    requests, moments = await killed_amid(running, jobs, every)
    log = await null_jobs.expect_all_well(running, requests)
    assert len(log.told) == 3 * jobs, "accepted, started, ended"
    counted = [moment for moment in moments if event_log.in_transition(log.by_job().values(), moment)]
    print(f"{jobs} jobs, {len(moments)} kills, {len(counted)} of them while jobs were in transition")
    assert len(counted) >= least, moments


@pytest.mark.long
@pytest.mark.parametrize("running", [careless_core.PROGRAM], indirect=True)
async def test_a_core_that_does_not_look_before_it_tells_is_found(running: Arena) -> None:
    requests, _ = await killed_amid(running, 100, (0.2, 0.6))
    with pytest.raises(AssertionError, match="told more than once"):
        await null_jobs.expect_all_well(running, requests)


async def killed_amid(running: Arena, jobs: int, every: tuple[float, float]) -> tuple[list[str], list[float]]:
    """The requests of so many jobs that have ended, and when a core was killed meanwhile (Unix seconds)."""
    requests = [f"job-{number}" for number in range(jobs)]
    async with null_jobs.ends_of(running, requests) as ended:
        kills = asyncio.create_task(kill_cores(running, ended, every))
        await null_jobs.submit_all(running, requests)
        await ended
        moments = await kills
    return requests, moments


async def kill_cores(running: Arena, ended: asyncio.Task[None], every: tuple[float, float]) -> list[float]:
    """One of the two, while the other serves, from the first job to the end of the last: when (Unix seconds)."""
    dice, moments = random.Random(20), list[float]()
    while not null_source.read(running.folder / "site1"):
        await asyncio.sleep(0.02)
    while not ended.done():
        await asyncio.sleep(dice.uniform(*every))
        victim = dice.choice(CORES)
        known = running.said(victim, READY)
        moments.append(time.time())
        running.kill(victim)
        running.start(victim)
        while running.said(victim, READY) == known:
            await asyncio.sleep(0.02)
    return moments
