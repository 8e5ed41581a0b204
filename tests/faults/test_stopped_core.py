"""Cores and the audit stopped (SIGSTOP) for longer than a job's hold, while jobs are in transition, and set going
again: no attempt is lost, nothing is done or told twice, nothing is left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import event_log, null_jobs, null_source
from tests.support.event_log import Log
from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = pytest.mark.timeout(300)

NULL = dict.fromkeys(("site1", "site1.b"), null_source.PROGRAM)
SERVICES = ("audit", "vault", "site1", "site1.b")
JUDGES_AFTER_SECONDS = 10.0
"""A core that has just started ends no attempt: it may not know yet that the worker lives."""
BEGUN = 12
"""Jobs that have run before the stop."""


class Layout(NamedTuple):
    """``programs`` stand in for ``snappy``."""

    cores: tuple[str, ...] = ("core",)
    hold: float = 3.0
    programs: dict[str, list[str]] = NULL


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    layout: Layout = request.param
    processes = [*layout.cores, *SERVICES]
    with arena(tmp_path, core={"hold_seconds": layout.hold}, processes=processes, programs=layout.programs) as made:
        yield made


async def stopped_amid(running: Arena, victim: str, jobs: int, seconds: float) -> tuple[Log, float]:
    """Jobs, with ``victim`` stopped for so long in the middle of them, and when it was stopped (Unix seconds)."""
    requests = [f"job-{number}" for number in range(jobs)]
    if victim == "core":
        await asyncio.sleep(JUDGES_AFTER_SECONDS)
    async with null_jobs.ends_of(running, requests) as ended:
        submitting = asyncio.create_task(null_jobs.submit_all(running, requests))
        while len(null_source.read(running.folder / "site1")) < BEGUN:
            await asyncio.sleep(0.01)
        stopped = time.time()
        running.freeze(victim)
        await asyncio.sleep(seconds)
        running.thaw(victim)
        await submitting
        await ended
    log = await null_jobs.expect_all_well(running, requests)
    assert event_log.in_transition(log.by_job().values(), stopped) > 0, "no job was in transition"
    return log, stopped


@pytest.mark.parametrize("running", [Layout()], indirect=True)
@pytest.mark.long
@pytest.mark.parametrize("seconds", [4.0, 10.0])
async def test_the_only_core_stops(running: Arena, seconds: float) -> None:
    log, stopped = await stopped_amid(running, "core", 60, seconds)
    assert [event for event in log.told if stopped + 0.5 < event.at < stopped + seconds] == [], "it went on"
    assert all(len(told) == 3 for told in log.by_job().values()), "an attempt was lost that had done its work"


@pytest.mark.parametrize("running", [Layout(("core", "core.b"), hold=8.0)], indirect=True)
@pytest.mark.long
async def test_one_of_two_cores_stops(running: Arena) -> None:
    """Half of all that is asked meanwhile is asked of the one that does not answer. When it goes on, it has in its
    hands what the other one did long ago."""
    log, stopped = await stopped_amid(running, "core.b", 60, 12.0)
    assert any(running.said(replica, "a claim is asked again") for replica in NULL), "nothing was asked of it"
    assert [event for event in log.told if stopped + 0.5 < event.at < stopped + 12.0], "the other one did not go on"


@pytest.mark.long
@pytest.mark.parametrize("running", [Layout()], indirect=True)
@pytest.mark.parametrize("seconds", [10.0, 40.0])
async def test_the_audit_stops(running: Arena, seconds: float) -> None:
    """Nobody waits for it, and it misses nothing: in 40 seconds all that it was given is given out again."""
    log, stopped = await stopped_amid(running, "audit", 60, seconds)
    meanwhile = [event for event in log.told if event.name == "succeeded" and event.at < stopped + seconds]
    assert len(meanwhile) == 60, "jobs waited for the audit"


ALONE, PAIR = Layout(programs={}), Layout(("core", "core.b"), programs={})


@pytest.mark.long
@pytest.mark.restic
@pytest.mark.parametrize("running", [Layout(programs={})], indirect=True)
@pytest.mark.parametrize("seconds", [4.0, 10.0])
async def test_a_backup_goes_on_in_the_same_attempt(running: Arena, seconds: float, restic: str) -> None:
    await asyncio.sleep(JUDGES_AFTER_SECONDS)
    record = await backed_up(running, "core", seconds, restic)
    assert [attempt.get("error") for attempt in record["attempts"]] == [None]
    assert running.place.locks() == []
    assert await running.expect_told_once(record) == ["accepted", "started", "succeeded"]


@pytest.mark.long
@pytest.mark.restic
@pytest.mark.parametrize("running", [Layout(("core", "core.b"), programs={})], indirect=True)
async def test_a_backup_goes_on_while_one_of_two_cores_stops(running: Arena, restic: str) -> None:
    """With a hold shorter than the wait for an answer, a renewal that the stopped one got may cost the attempt; the
    other core sees to the next one."""
    record = await backed_up(running, "core.b", 10.0, restic)
    lost = [attempt["error"]["code"] for attempt in record["attempts"] if attempt.get("error")]
    assert set(lost) <= {"attempt-lost"}, record["attempts"]
    await running.expect_told_once(record)


async def backed_up(running: Arena, victim: str, seconds: float, restic: str) -> dict[str, Any]:
    """The record of a backup amid which ``victim`` was stopped for so long; its repository is sound."""
    make_noise(running.data, 320 * MIB)
    request = await running.backup()
    await running.amid(request, running.folder / "repository" / "data", 16 * MIB)
    assert (await running.record(request))["state"] == "running"
    running.freeze(victim)
    await asyncio.sleep(seconds)
    running.thaw(victim)
    record = await running.succeeded(request)
    await running.expect_audit_whole()
    assert running.snapshots_of(restic, record["id"]) == [record["result"]["snapshot"]]
    running.expect_sound(restic, "--no-lock")  # that of an attempt that was lost goes with the next job
    return record
