"""A job that ended for good while its source service was gone leaves a lock: the next job that meets it removes it,
and the audit says why. Locks that are not known to be dead stay."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.bus.grants import CLOCK_MARGIN
from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = [pytest.mark.timeout(240), pytest.mark.restic]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Arena]:
    with arena(tmp_path, core={"max_lost_attempts": 1}) as made:
        yield made


async def killed_amid(site: Arena) -> str:
    """A backup whose source service was killed: its request. Its lock is there."""
    request = await site.backup(make_noise(site.data / "large", 96 * MIB))
    await site.amid(request, site.folder / "repository" / "data", 24 * MIB)
    site.kill("site1")
    assert len(site.place.locks()) == 1
    return request


async def next_job(site: Arena) -> dict[str, Any]:
    site.start("site1")
    return await site.succeeded(await site.backup(make_noise(site.data / "small", MIB, MIB)))


async def grant_ran_out(record: dict[str, Any]) -> None:
    """Until the target's clock, too, says that the last attempt may write no more."""
    await asyncio.sleep(max(0.0, record["attempts"][-1]["until"] + CLOCK_MARGIN - time.time()))


async def removals(site: Arena) -> list[dict[str, Any]]:
    """What the audit tells of locks."""
    answer = await site.ask("snappy.api.audit.query.alice", {"limit": 1000}, 10.0)
    events = [entry.get("event", {}) for entry in answer["entries"]]
    return [event["data"] for event in events if event.get("type") == "io.snappy.lock.removable"]


async def test_the_lock_of_a_job_that_failed_by_a_lost_attempt(running: Arena) -> None:
    request = await killed_amid(running)
    failed = await running.final(request)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "attempt-lost")
    await grant_ran_out(failed)
    (left,) = running.place.locks()
    done = await next_job(running)
    assert running.place.locks() == []
    (told,) = await removals(running)
    assert (told["lock"]["name"], told["lock"]["job"], told["job"]) == (left, failed["id"], done["id"])
    assert told["reason"] == "attempt 1 is over, and its grant ran out"


async def test_the_lock_of_a_job_that_was_cancelled_while_its_source_was_silent(running: Arena) -> None:
    request = await killed_amid(running)
    job = (await running.record(request))["id"]
    await running.ask("snappy.api.job.cancel.alice", {"job": job}, 10.0)
    cancelled = await running.final(request)
    assert cancelled["state"] == "cancelled"
    await grant_ran_out(cancelled)
    assert len(running.place.locks()) == 1
    await next_job(running)
    assert running.place.locks() == []
    assert [told["lock"]["job"] for told in await removals(running)] == [job]


async def test_a_lock_of_restic_is_none_of_ours(running: Arena, restic: str) -> None:
    await running.succeeded(await running.backup(make_noise(running.data / "first", MIB, MIB)))
    left = await killed_restic(running, restic)
    await running.succeeded(await running.backup(make_noise(running.data / "second", MIB, MIB)))
    assert running.place.locks() == [left]
    assert await removals(running) == []


async def killed_restic(site: Arena, program: str) -> str:
    """The lock that a restic left which was killed while it backed up what came on its standard input."""
    restic = site.place.restic(program, site.repository_password, site.folder / "restic cache")
    command = [program, "backup", "--stdin"]
    with subprocess.Popen(command, env=restic.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        async with asyncio.timeout(60):
            while not site.place.locks():
                await asyncio.sleep(0.01)
        process.kill()
    (left,) = site.place.locks()
    return left
