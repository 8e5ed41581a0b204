"""The storage of a target that fails: retried where that can help, else the job fails with the real reason."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import Disk, disk
from tests.support.faults import MIB, Arena, MortalWeed, arena, bytes_below, make_noise
from tests.support.places import Place, in_bucket

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

LARGE = 96 * MIB
SMALL = 16 * MIB
AWAY_SECONDS = 5.0


# ---- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weed(tmp_path: Path) -> Iterator[MortalWeed]:
    with MortalWeed.running(tmp_path) as server:
        yield server


@pytest.fixture
def in_s3(tmp_path: Path, weed: MortalWeed) -> Iterator[Arena]:
    (tmp_path / "site").mkdir()
    with arena(tmp_path / "site", in_bucket(weed)) as made:
        yield made


@pytest.mark.s3
async def test_an_s3_server_that_is_killed_comes_back(in_s3: Arena, weed: MortalWeed, restic: str) -> None:
    make_noise(in_s3.data, LARGE)
    backup = await in_s3.backup()
    await in_s3.amid(backup, weed.data, SMALL)
    weed.stop()
    before = bytes_below(weed.data)
    await asyncio.sleep(AWAY_SECONDS)
    assert (await in_s3.record(backup))["state"] == "running"
    weed.start()
    record = await in_s3.succeeded(backup)
    assert bytes_below(weed.data) > before + SMALL, "it was over before the fault"
    restore = await in_s3.restore("all", record["result"]["snapshot"])
    await in_s3.succeeded(restore)
    assert in_s3.expect_same("all") == LARGE
    await in_s3.expect_told_once(record)
    in_s3.expect_sound(restic)


# ---- a disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path, 64 * MIB) as made:
        yield made


@pytest.fixture
def on_disk(tmp_path: Path, small_disk: Disk) -> Iterator[Arena]:
    """A site whose target lies on the small disk and holds a first backup."""
    (tmp_path / "site").mkdir()
    place = str(small_disk.place / "repository")
    with arena(tmp_path / "site", Place({"url": place}, place)) as made:
        yield made


async def first_backup(running: Arena) -> dict[str, Any]:
    make_noise(running.data / "small", SMALL)
    return await running.succeeded(await running.backup(running.data / "small"))


async def expect_failed(running: Arena, request: str, code: str) -> None:
    """At once, for none of these goes away by itself; with one final event."""
    record = await running.final(request)
    assert (record["state"], record["error"]["code"]) == ("failed", code), record["error"]
    assert len(record["attempts"]) == 1
    assert await running.expect_told_once(record) == ["accepted", "started", "failed"]


async def expect_first_restorable(running: Arena, first: dict[str, Any]) -> None:
    await running.succeeded(await running.restore("first", first["result"]["snapshot"]))
    assert running.expect_same("first", running.data / "small") == SMALL


@pytest.mark.loop
async def test_a_full_disk_fails_the_backup_and_nothing_else(on_disk: Arena, restic: str) -> None:
    first = await first_backup(on_disk)
    make_noise(on_disk.data / "large", LARGE)
    await expect_failed(on_disk, await on_disk.backup(on_disk.data / "large"), "no-space")
    on_disk.expect_sound(restic, "--no-lock")
    assert len(on_disk.place.objects("snapshots/")) == 1
    assert list(Path(on_disk.place.root).rglob(".*")) == [], "nothing half-written is left"
    await expect_first_restorable(on_disk, first)


@pytest.mark.loop
async def test_a_disk_that_turned_read_only(on_disk: Arena, small_disk: Disk, restic: str) -> None:
    first = await first_backup(on_disk)
    small_disk.make_read_only()
    make_noise(on_disk.data / "more", SMALL)
    await expect_failed(on_disk, await on_disk.backup(on_disk.data / "more"), "access-denied")
    on_disk.expect_sound(restic, "--no-lock")
    await expect_first_restorable(on_disk, first)
