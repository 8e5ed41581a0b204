"""A worker process of a backup is killed, or its service is: nothing of it is left, and the next attempt goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

SIZE = 384 * MIB
MOMENT = 96 * MIB
"""More than what is read before workers are started."""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    monkeypatch.setenv("SNAPPY_SOURCE__SITE1__WORKERS", "2")
    with arena(tmp_path) as made:
        yield made


def workers_of(site: Arena) -> list[int]:
    """The process ids of the workers below the source service."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if above == site.processes["site1"].pid and b"snappy.repository.worker" in command:
            found.append(int(place.name))
    return found


async def expect_gone(processes: list[int]) -> None:
    async with asyncio.timeout(30):
        while any(os.path.exists(f"/proc/{process}") for process in processes):
            await asyncio.sleep(0.05)


async def amid(site: Arena) -> tuple[str, list[int]]:
    """A backup that has workers: its request, and theirs."""
    request = await site.backup(make_noise(site.data / "tree", SIZE))
    await site.amid(request, site.folder / "repository" / "data", MOMENT)
    workers = workers_of(site)
    assert workers, "there were none to be struck"
    return request, workers


async def test_the_attempt_fails_and_the_next_one_succeeds(running: Arena, restic: str) -> None:
    request, workers = await amid(running)
    os.kill(workers[-1], signal.SIGKILL)
    done = await running.succeeded(request)
    first, last = done["attempts"]
    assert (first["error"]["code"], last.get("error")) == ("worker-died", None)
    assert done["result"]["bytes_read"] < SIZE, "what was stored is not read again"
    await expect_gone(workers)
    assert running.place.locks() == []
    running.expect_sound(restic)


@pytest.mark.long
async def test_workers_end_with_a_service_that_is_killed(running: Arena, restic: str) -> None:
    request, workers = await amid(running)
    running.kill("site1")
    await expect_gone(workers)
    running.start("site1")
    done = await running.succeeded(request)
    assert done["attempts"][0]["error"]["code"] == "attempt-lost"
    running.expect_sound(restic)
