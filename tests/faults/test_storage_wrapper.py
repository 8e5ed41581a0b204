"""Storage that fails under a target: what passes is outlasted, what stays is said, and nothing wrong is restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.faults import MIB, Arena, arena, make_noise
from tests.support.storage_faults import FaultyStorage, On, StorageFault

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

SIZE = 64 * MIB
SMALL = 8 * MIB
PACKS = "data/*"
WHOLE = ["accepted", "started", "succeeded"]


class Running(NamedTuple):
    site: Arena
    storage: FaultyStorage


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from running_in(tmp_path_factory.mktemp("storage"))


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """For faults that pass: all that was written stays whole."""
    yield shared
    shared.storage.end_all()


@pytest.fixture
def harmed(tmp_path: Path) -> Iterator[Running]:
    """For faults that stay in the repository."""
    yield from running_in(tmp_path)


def running_in(folder: Path) -> Iterator[Running]:
    storage = FaultyStorage(folder / "faults")
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("SNAPPY_SOURCE__SITE1__PATIENCE_SECONDS", "2")
        made = stack.enter_context(arena(folder, programs={"vault": storage.program}))
        yield Running(made, storage)


# ---- what passes -----------------------------------------------------------------------------------------------------


class Passing(NamedTuple):
    fault: StorageFault
    on: On
    path: str = PACKS
    times: int = 2
    seconds: float = 0.0


BACKUP_OUTLASTS = [
    Passing(StorageFault.ERROR, On.WRITE),
    Passing(StorageFault.ERROR, On.WRITE, "index/*", times=1),
    Passing(StorageFault.ERROR, On.WRITE, "snapshots/*", times=1),
    Passing(StorageFault.ERROR, On.LIST, "*"),
    Passing(StorageFault.BUSY, On.WRITE),
    Passing(StorageFault.HANG, On.WRITE, times=1, seconds=5.0),
    Passing(StorageFault.SLOW, On.WRITE, times=10, seconds=0.3),
]
RESTORE_OUTLASTS = [
    Passing(StorageFault.FLIP_READ, On.READ, times=1),
    Passing(StorageFault.FLIP_READ, On.READ, "index/*", times=1),
    Passing(StorageFault.FLIP_READ, On.READ, "keys/*", times=1),
    Passing(StorageFault.SHORT_READ, On.READ, times=1),
    Passing(StorageFault.SHORT_READ, On.READ, "snapshots/*", times=1),
    Passing(StorageFault.ERROR, On.READ),
    Passing(StorageFault.BUSY, On.READ),
    Passing(StorageFault.HANG, On.READ, times=1, seconds=5.0),
    Passing(StorageFault.SLOW, On.READ, times=10, seconds=0.3),
]
QUICK = {BACKUP_OUTLASTS[0], *RESTORE_OUTLASTS[:2]}
"""What CI tries."""


def each(faults: list[Passing]) -> list[Any]:
    return [
        pytest.param(one, id=f"{one.fault} {one.path}", marks=[] if one in QUICK else [pytest.mark.long])
        for one in faults
    ]


@pytest.mark.parametrize("passing", each(BACKUP_OUTLASTS))
async def test_a_backup_outlasts(running: Running, passing: Passing, restic: str) -> None:
    site, name = running.site, f"backup {BACKUP_OUTLASTS.index(passing)}"
    tree = make_noise(site.data / name, SIZE)
    plan = running.storage.plan(*passing)
    record = await site.succeeded(await site.backup(tree))
    plan.expect()
    assert await site.expect_told_once(record) == WHOLE
    await site.succeeded(await site.restore(name, record["result"]["snapshot"]))
    assert site.expect_same(name, tree) == SIZE
    assert site.snapshots_of(restic, record["id"]) == [record["result"]["snapshot"]]
    site.expect_sound(restic)


@pytest.mark.parametrize("passing", each(RESTORE_OUTLASTS))
async def test_a_restore_outlasts(running: Running, passing: Passing) -> None:
    site, name = running.site, f"restore {RESTORE_OUTLASTS.index(passing)}"
    tree = make_noise(site.data / name, SIZE)
    saved = await site.succeeded(await site.backup(tree))
    plan = running.storage.plan(*passing)
    record = await site.succeeded(await site.restore(name, saved["result"]["snapshot"]))
    plan.expect()
    assert await site.expect_told_once(record) == WHOLE
    assert site.expect_same(name, tree) == SIZE


# ---- what stays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "attempts"),
    [
        (StorageFault.NO_SPACE, "no-space", 1),
        pytest.param(StorageFault.READ_ONLY, "access-denied", 1, marks=pytest.mark.long),
        pytest.param(StorageFault.ERROR, "unavailable", 3, marks=pytest.mark.long),
        pytest.param(StorageFault.BUSY, "unavailable", 3, marks=pytest.mark.long),
    ],
)
async def test_a_backup_says_why_it_failed(
    running: Running, fault: StorageFault, code: str, attempts: int, restic: str
) -> None:
    site, name = running.site, f"unwritten {fault}"
    tree = make_noise(site.data / name, SIZE)
    plan = running.storage.plan(fault, On.WRITE, PACKS, times=0)
    record = await site.final(await site.backup(tree))
    plan.expect()
    assert (record["state"], record["error"]["code"], len(record["attempts"])) == ("failed", code, attempts)
    await site.expect_told_once(record)
    assert (site.snapshots_of(restic, record["id"]), site.place.locks()) == ([], [])
    site.expect_sound(restic)

    plan.end()
    saved = await site.succeeded(await site.backup(tree))
    await site.succeeded(await site.restore(name, saved["result"]["snapshot"]))
    assert site.expect_same(name, tree) == SIZE
    site.expect_sound(restic)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        pytest.param(StorageFault.FLIP_READ, "damaged", marks=pytest.mark.long),
        pytest.param(StorageFault.SHORT_READ, "damaged", marks=pytest.mark.long),
        pytest.param(StorageFault.ERROR, "unavailable", marks=pytest.mark.long),
    ],
)
async def test_a_restore_says_why_it_failed(running: Running, fault: StorageFault, code: str) -> None:
    site, name = running.site, f"unread {fault}"
    tree = make_noise(site.data / name, SIZE)
    saved = await site.succeeded(await site.backup(tree))
    plan = running.storage.plan(fault, On.READ, PACKS, times=0)
    record = await site.final(await site.restore(name, saved["result"]["snapshot"]))
    plan.expect()
    assert (record["state"], record["error"]["code"]) == ("failed", code)
    await site.expect_told_once(record)

    plan.end()
    await site.succeeded(await site.restore(name, saved["result"]["snapshot"]))
    assert site.expect_same(name, tree) == SIZE


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (PACKS, "noise"),
        pytest.param("index/*", "index", marks=pytest.mark.long),
        pytest.param("snapshots/*", "snapshot", marks=pytest.mark.long),
    ],
)
async def test_a_bit_that_the_storage_flipped_for_good(harmed: Running, path: str, named: str, restic: str) -> None:
    """The restore names what is damaged, and writes no wrong byte; restic finds it too."""
    site = harmed.site
    tree = make_noise(site.data / "tree", SIZE)
    plan = harmed.storage.plan(StorageFault.FLIP_WRITE, On.WRITE, path)
    saved = await site.succeeded(await site.backup(tree))
    plan.expect()
    record = await site.final(await site.restore("all", saved["result"]["snapshot"]))
    assert (record["state"], record["error"]["code"]) == ("failed", "damaged")
    assert named in record["error"]["message"]
    await site.expect_told_once(record)
    expect_nothing_wrong(tree, site.folder / "back" / "all" / str(tree).lstrip("/"))
    with pytest.raises(AssertionError):
        site.expect_sound(restic)


def expect_nothing_wrong(tree: Path, back: Path) -> None:
    """At most one of the files that were restored under their names differs, and that in missing bytes alone."""
    wrong = [file for file in back.rglob("*") if file.is_file() and not _same(file, tree / file.relative_to(back))]
    assert len(wrong) <= 1
    for file in wrong:
        _expect_holes_alone(file.read_bytes(), (tree / file.relative_to(back)).read_bytes())


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _expect_holes_alone(found: bytes, meant: bytes) -> None:
    differing = [byte for byte, right in zip(found, meant, strict=False) if byte != right]
    assert not any(differing), "bytes that are neither what they were nor missing"
