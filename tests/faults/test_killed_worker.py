"""A worker process of a backup or a restore is killed, or its service is: nothing of it is left, and the next attempt
goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

KIB = 1024
FILES = 30_000
"""Of a KiB each: so many that the workers of a restore get most of them."""
SIZE = 384 * MIB
MOMENT = 64 * MIB
AT_WORK = 24 * MIB
"""A worker that has read so much has more than loaded itself."""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    monkeypatch.setenv("SNAPPY_SOURCE__SITE1__WORKERS", "2")
    with arena(tmp_path) as made:
        yield made


def workers_of(site: Arena) -> list[int]:
    """The process ids of the source service's workers: its children and theirs."""
    service = site.processes["site1"].pid
    above = {process: parent for process, parent, command in processes() if b"snappy.repository.worker" in command}
    return [process for process, parent in above.items() if service in (parent, above.get(parent))]


def processes() -> Iterator[tuple[int, int, bytes]]:
    """All there are: each one's number, its parent's, its command line."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            above = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            command = (place / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        yield int(place.name), above, command


async def expect_gone(processes: list[int]) -> None:
    async with asyncio.timeout(30):
        while any(os.path.exists(f"/proc/{process}") for process in processes):
            await asyncio.sleep(0.05)


def bytes_read(process: int) -> int:
    """By a process, from whatever; nothing by one that has ended."""
    return _moved(process, "rchar:")


def bytes_written(process: int) -> int:
    """The same of what it wrote."""
    return _moved(process, "wchar:")


def _moved(process: int, how: str) -> int:
    try:
        words = Path(f"/proc/{process}/io").read_text().split()
    except OSError:
        return 0
    return int(words[words.index(how) + 1])


async def amid(site: Arena) -> tuple[str, list[int]]:
    """A backup that has workers: its request, and theirs."""
    request = await site.backup(make_noise(site.data / "tree", SIZE))
    await site.amid(request, site.folder / "repository" / "data", MOMENT)
    async with asyncio.timeout(30):
        while len(workers := workers_of(site)) < 2 or min(map(bytes_read, workers)) < AT_WORK:
            await asyncio.sleep(0.01)
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


async def test_a_restore_is_done_again_by_the_next_attempt(running: Arena) -> None:
    tree = make_noise(running.data / "tree", FILES * KIB, KIB)
    saved = await running.succeeded(await running.backup(tree))
    restore = await running.restore("killed", saved["result"]["snapshot"])
    async with asyncio.timeout(30):
        while len(workers := workers_of(running)) < 2 or max(map(bytes_written, workers)) < MIB:
            await asyncio.sleep(0.01)
    os.kill(max(workers, key=bytes_written), signal.SIGKILL)
    done = await running.succeeded(restore)
    first, last = done["attempts"]
    assert (first["error"]["code"], last.get("error")) == ("worker-died", None)
    assert done["result"]["files"] == FILES
    await expect_gone(workers)
    assert running.expect_same("killed", tree) == FILES * KIB
