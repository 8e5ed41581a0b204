"""The power goes under nats-server, audit log and a local target at once: what was acknowledged is still there.

The file system is shut down with its journal dropped, as a power cut would leave the disk; mounting it again is the
machine's start. The processes stand still before the cut, so that what was acknowledged by then is well defined.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.disks import Disk, disk
from tests.support.faults import MIB, Arena, arena, freeze_server, make_noise
from tests.support.places import Place

pytestmark = [pytest.mark.timeout(300), pytest.mark.loop, pytest.mark.restic]

SIZE = 96 * MIB
MOMENTS = (40 * MIB, *(pytest.param(size * MIB, marks=pytest.mark.long) for size in (8, 24, 56, 72)))
ON_THE_DISK = ("audit", "vault")


@pytest.fixture
def steady(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path, 2048 * MIB) as made:
        yield made


@pytest.fixture
def running(tmp_path: Path, steady: Disk) -> Iterator[Arena]:
    (tmp_path / "site").mkdir()
    place = str(steady.place / "repository")
    with arena(tmp_path / "site", Place({"url": place}, place), steady=steady.place) as made:
        for path in (steady.place / "nats").glob("*.conf"):
            reach_the_disk(path)
        yield made


def reach_the_disk(path: Path) -> None:
    """As what an operator wrote has long done."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@pytest.mark.parametrize("moment", MOMENTS)
async def test_nothing_acknowledged_is_lost(running: Arena, steady: Disk, moment: int, restic: str) -> None:
    first = await running.succeeded(await running.backup(make_noise(running.data / "first", SIZE // 4)))
    large = make_noise(running.data / "large", SIZE)
    backup = await running.backup(large)
    await running.amid(backup, steady.place / "repository" / "data", moment)
    queued = [await running.backup(running.data / "first") for _ in range(3)]
    started = (await running.record(backup))["id"]

    cut_power(running, steady)

    record = await running.succeeded(backup)
    assert record["id"] == started, "the job is the one that was acknowledged before"
    jobs = [first, record, *[await running.succeeded(request) for request in queued]]
    for job in jobs:
        await running.expect_told_once(job)
        assert running.snapshots_of(restic, job["id"]) == [job["result"]["snapshot"]]
    await running.expect_audit_whole()
    await running.succeeded(await running.restore("all", record["result"]["snapshot"]))
    assert running.expect_same("all", large) == SIZE
    running.expect_sound(restic)


def cut_power(running: Arena, steady: Disk) -> None:
    """The machine of server, audit and target stops, and starts again."""
    server = running.server.server
    freeze_server(running)
    for user in ON_THE_DISK:
        running.freeze(user)
    steady.cut_power()
    server.kill()
    for user in ON_THE_DISK:
        running.kill(user)
    steady.unmount()
    steady.mount()
    server.restart()
    for user in ON_THE_DISK:
        running.start(user)
