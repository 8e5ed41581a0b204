from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from snappy.bus.failures import translate
from snappy.errors import Unavailable
from snappy.targets.local import DurableLocalFileSystem
from snappy.targets.policy import PolicyFileSystem
from tests.support.storage_faults import Fate, FaultyFileSystem, FaultyStorage, On, StorageFault

CONTENT = bytes(range(256))
NAME = "data/object"


@pytest.fixture
def storage(tmp_path: Path) -> FaultyStorage:
    return FaultyStorage(tmp_path / "faults")


@pytest.fixture
def files(tmp_path: Path, storage: FaultyStorage) -> PolicyFileSystem:
    """As a target has them: the policy before the faults before a folder, which holds one object."""
    root = str(tmp_path / "root")
    made = PolicyFileSystem(DurableLocalFileSystem(), root, "rlwWd")
    made.pipe_file(NAME, CONTENT)
    made.fs = FaultyFileSystem(made.fs, root, Fate(storage.folder))
    return made


def differing_bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_what_nobody_planned_works(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plan = storage.plan(StorageFault.ERROR, On.ANY, "other/*")
    files.pipe_file("data/new", CONTENT)
    assert files.cat_file("data/new") == files._open(NAME).read() == CONTENT
    files.rm_file("data/new")
    assert files.find("") == [NAME]
    with pytest.raises(AssertionError, match="struck 0 times, not 1"):
        plan.expect()


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (StorageFault.ERROR, errno.EIO),
        (StorageFault.NO_SPACE, errno.ENOSPC),
        (StorageFault.READ_ONLY, errno.EROFS),
    ],
)
def test_errors_strike_as_often_as_planned(
    files: PolicyFileSystem, storage: FaultyStorage, fault: StorageFault, number: int
) -> None:
    plan = storage.plan(fault, On.WRITE, "data/*", times=2)
    for _ in range(2):
        with pytest.raises(OSError) as met:
            files.pipe_file("data/new", CONTENT)
        assert met.value.errno == number
    files.pipe_file("data/new", CONTENT)
    assert (plan.struck, plan.paths) == (2, ["data/new"] * 2)
    assert storage.counts == {fault: 2}


@pytest.mark.parametrize("on", [On.READ, On.WRITE, On.LIST, On.REMOVE])
def test_each_operation_can_fail(files: PolicyFileSystem, storage: FaultyStorage, on: On) -> None:
    work = {
        On.READ: lambda: files.cat_file(NAME),
        On.WRITE: lambda: files.pipe_file(NAME, CONTENT),
        On.LIST: lambda: files.info(NAME),
        On.REMOVE: lambda: files.rm_file(NAME),
    }
    plan = storage.plan(StorageFault.ERROR, on)
    with pytest.raises(OSError, match="Input/output"):
        work[on]()
    plan.expect()
    work[on]()


def test_busy_is_what_an_s3_server_says(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    storage.plan(StorageFault.BUSY, On.READ)
    with pytest.raises(OSError) as met:
        files.cat_file(NAME)
    assert isinstance(translate(met.value, NAME), Unavailable)


def test_bytes_are_harmed_and_the_file_is_not(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plans = [storage.plan(fault) for fault in (StorageFault.SHORT_READ, StorageFault.FLIP_READ)]
    assert files.cat_file(NAME) == CONTENT[:128]
    assert differing_bits(files._open(NAME).read(), CONTENT) == 1
    assert files.cat_file(NAME) == CONTENT
    for plan in plans:
        plan.expect()


def test_a_bit_flipped_at_a_write_stays(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plan = storage.plan(StorageFault.FLIP_WRITE)
    files.pipe_file("data/new", CONTENT)
    assert differing_bits(files.cat_file("data/new"), CONTENT) == 1
    plan.expect()


async def test_who_hangs_goes_on_when_the_plan_ends(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plan = storage.plan(StorageFault.HANG, On.READ)
    reading = asyncio.create_task(asyncio.to_thread(files.cat_file, NAME))
    await plan.wait()
    assert not (await asyncio.wait({reading}, timeout=0.2))[0]
    plan.end()
    assert await asyncio.wait_for(reading, 5) == CONTENT


def test_slow(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plan = storage.plan(StorageFault.SLOW, On.READ, seconds=0.1, times=0)
    assert [files.cat_file(NAME) for _ in range(2)] == [CONTENT] * 2
    plan.expect(2)


def test_another_process_knows_what_has_struck(files: PolicyFileSystem, storage: FaultyStorage) -> None:
    plan = storage.plan(StorageFault.SHORT_READ, times=1)
    assert len(files.cat_file(NAME)) == 128
    files.fs._fate = Fate(storage.folder)
    assert files.cat_file(NAME) == CONTENT
    assert plan.struck == 1
