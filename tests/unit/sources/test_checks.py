"""What a check comes to: a result that says what was looked at, or damage with the result in its details."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from snappy.errors import AccessDenied, BadOptions, Damaged, RepositoryLocked
from snappy.jobs.messages import Finding, JobRecord, LockRef, Result
from snappy.jobs.states import State
from snappy.jobs.upkeep import CheckCommand
from snappy.repository.findings import Kind
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.sources import telling
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.engine import OWNER, PASSWORD, memory_store, new_repository
from tests.support.snapshots import fill

NAMES: dict[str, Any] = {"source": "site", "target": "vault"}


class Hold:
    """A hold that never ends."""

    attempt = 1
    job = JobRecord(id="job-1", kind="check", submitter="alice", state=State.RUNNING)

    def check(self) -> None:
        """Go on."""

    def removing(self, locks: Sequence[LockRef]) -> AbstractContextManager[set[str]]:
        """None of them."""
        return nullcontext(set())


@pytest.fixture
def store() -> Store:
    made = memory_store()
    fill(new_repository(made))
    return made


async def run(store: Store, **more: Any) -> Result:
    hold: Any = Hold()
    shop = Workshop(
        hold=hold, store=store, password=PASSWORD, progress=Progress(), owner="snappy.site.r1", host="north"
    )
    return await prepare("check", CheckCommand(**NAMES, **more)).work(shop)


def packs(store: Store) -> list[str]:
    return [name for name, _ in store.list(FileType.PACK)]


async def test_what_was_looked_at(store: Store) -> None:
    done = await run(store, read_data=True)
    assert (done.snapshots, done.packs, done.packs_read, done.finding_count) == (1, 2, 2, 0)
    assert done.bytes_read == sum(size for _, size in store.list(FileType.PACK))
    assert len(done.repository) == 64
    assert store.list(FileType.LOCK) == []


@pytest.mark.parametrize(
    ("more", "read"), [({}, 0), ({"read_data_subset": "1/1"}, 2), ({"read_data_subset": "50%"}, 1)]
)
async def test_how_much_is_read(store: Store, more: dict[str, Any], read: int) -> None:
    assert (await run(store, **more)).packs_read == read


async def test_a_hint_is_no_failure(store: Store) -> None:
    for name, _ in store.list(FileType.SNAPSHOT):
        store.remove(FileType.SNAPSHOT, name)
    for name, _ in store.list(FileType.INDEX):
        store.remove(FileType.INDEX, name)
    done = await run(store)
    assert {(found.kind, found.damage, found.object) for found in done.findings} == {("pack-unlisted", False, "pack")}
    assert {found.id for found in done.findings} == set(packs(store))


async def test_damage_brings_its_result(store: Store) -> None:
    store.remove(FileType.PACK, packs(store)[0])
    store.remove(FileType.PACK, packs(store)[0])
    with pytest.raises(Damaged) as met:
        await run(store)
    result: Result = met.value.details["result"]
    assert result.finding_count == len(result.findings) == 3
    assert next(found for found in result.findings if found.kind == "pack-missing") == Finding(
        kind="pack-missing",
        damage=True,
        object="pack",
        id=result.findings[0].id,
        message="the index lists it, and it is not there",
        remedy=Kind.PACK_MISSING.value.remedy,
    )
    assert store.list(FileType.LOCK) == []


async def test_the_first_findings_are_told_and_all_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "FINDINGS_TOLD", 1)
    for name in packs(store):
        store.remove(FileType.PACK, name)
    with pytest.raises(Damaged) as met:
        await run(store)
    result: Result = met.value.details["result"]
    assert (len(result.findings), result.finding_count) == (1, 3)


async def test_it_works_beside_a_backup_and_not_beside_who_deletes(store: Store) -> None:
    repository = Repository.open(store, PASSWORD)
    with repository.lock(owner=OWNER, settle=0):
        await run(store)
    with repository.lock(owner=OWNER, exclusive=True, settle=0), pytest.raises(RepositoryLocked):
        await run(store)


async def test_who_may_not_write_a_lock_checks_without_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Store, kind: FileType, name: str, data: bytes, *, create: bool = False) -> None:
        raise AccessDenied

    monkeypatch.setattr(Store, "save", refuse)
    assert (await run(store, read_data=True)).packs_read == 2


@pytest.mark.parametrize("part", ["8/7", "101%", "1/1000"])
def test_a_part_that_cannot_be(part: str) -> None:
    with pytest.raises(BadOptions):
        prepare("check", CheckCommand(**NAMES, read_data_subset=part))


def test_it_asks_for_no_plug_in_and_no_place() -> None:
    asks = prepare("check", CheckCommand(**NAMES)).asks
    assert (asks.kind, asks.target, asks.plugin, asks.reads, asks.writes) == ("check", "vault", "", [], [])
