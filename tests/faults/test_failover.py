"""Two replicas of one source service: when the one at work dies or stands still, the other goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.failover import fail_over, standing_by
from snappy.repository.journal import LEAST_STEP
from snappy.targets.drafts import PART_SUFFIX
from tests.support.faults import MIB, Arena, make_noise

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

HOLD = 3.0
IN_WORK = 32 * MIB
"""What was being read when it died: two files, in chunks of at most 8 MiB."""
OVER = "the attempt is over; what it stored stays for the next one"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Arena]:
    with standing_by(tmp_path, HOLD) as made:
        yield made


@pytest.mark.parametrize(
    ("size", "files"),
    [
        (256 * MIB, 32),
        (256 * MIB, 1),
        pytest.param(2048 * MIB, 256, marks=pytest.mark.long),
    ],
)
async def test_what_the_killed_one_stored_is_neither_sent_nor_read_again(
    running: Arena, size: int, files: int, restic: str
) -> None:
    measured = await fail_over(running, make_noise(running.data / "tree", size, size // files), size)
    print(measured)
    assert measured.stored_before >= size // 2
    assert measured.surplus <= 0.15, measured
    assert measured.read <= measured.missing + LEAST_STEP + IN_WORK, measured
    assert running.place.locks() == []
    running.expect_sound(restic)


async def frozen_amid(site: Arena, tree: Path) -> tuple[str, str]:
    """A backup whose replica was stopped: its request, and the process."""
    request = await site.backup(tree)
    await site.amid(request, site.folder / "repository" / "data", 48 * MIB)
    record = await site.record(request)
    process = "site1" if record["attempts"][0]["replica"] == "a" else "site1.b"
    site.freeze(process)
    return request, process


async def found_out(site: Arena, process: str) -> None:
    """Until a process that goes on again knows that its attempt is over."""
    async with asyncio.timeout(60):
        while not site.said(process, OVER):
            await asyncio.sleep(0.05)


def whole_objects(site: Arena) -> set[str]:
    """Without what a put that broke off began, which no reader sees and the target takes away in its time."""
    return {name for name in site.place.objects() if not name.endswith(PART_SUFFIX)}


async def test_one_that_wakes_up_after_the_job_is_done_writes_nothing_more(running: Arena) -> None:
    request, sleeper = await frozen_amid(running, make_noise(running.data / "tree", 192 * MIB))
    done = await running.succeeded(request)
    assert [attempt["replica"] for attempt in done["attempts"]] == (["a", "b"] if sleeper == "site1" else ["b", "a"])
    before = whole_objects(running)
    running.thaw(sleeper)
    await found_out(running, sleeper)
    assert whole_objects(running) == before
    running.kill("site1" if sleeper == "site1.b" else "site1.b")
    next_one = await running.succeeded(await running.backup(make_noise(running.data / "more", 8 * MIB)))
    assert next_one["attempts"][-1]["replica"] == ("a" if sleeper == "site1" else "b"), "it still serves"


async def test_one_that_wakes_up_amid_the_next_attempt_does_not_disturb_it(running: Arena, restic: str) -> None:
    request, sleeper = await frozen_amid(running, make_noise(running.data / "tree", 192 * MIB))
    async with asyncio.timeout(60):
        while len((await running.record(request)).get("attempts") or []) < 2:
            await asyncio.sleep(0.02)
    running.thaw(sleeper)
    await found_out(running, sleeper)
    done = await running.succeeded(request)
    assert len(done["attempts"]) == 2
    assert running.place.locks() == []
    await running.expect_told_once(done)
    assert running.snapshots_of(restic, done["id"]) == [done["result"]["snapshot"]]
    running.expect_sound(restic)
