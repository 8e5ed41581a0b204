"""What a forget removes, and what it says of it; that it may be begun again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from snappy.errors import JobCancelled, LastSnapshot, RepositoryLocked, SnapshotNotFound
from snappy.jobs.messages import JobRecord, LockRef, Result
from snappy.jobs.states import State
from snappy.jobs.upkeep import ForgetCommand
from snappy.repository.patience import alone
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from snappy.sources import forgets
from snappy.sources.backups import job_tag
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.engine import OWNER, PASSWORD, Interposed, memory_store, new_repository

NEWEST = datetime(2026, 1, 10, tzinfo=UTC)


class Hold:
    """A hold that never ends, on the first or another attempt."""

    job = JobRecord(id="job-1", kind="forget", submitter="alice", state=State.RUNNING)

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt

    def check(self) -> None:
        """Go on."""

    def removing(self, locks: Sequence[LockRef]) -> AbstractContextManager[set[str]]:
        """None of them."""
        return nullcontext(set())


def filled(store: Store) -> list[str]:
    """A snapshot a day, the newest first, each with the tag of its job; the odd ones with another tag."""
    repository = new_repository(store)
    made = []
    for day in range(5):
        tags = [job_tag(f"job-{day}"), *(["odd"] if day % 2 else [])]
        one = Snapshot(time=NEWEST - timedelta(days=day), tree="00" * 32, paths=["/"], hostname="north", tags=tags)
        made.append(repository.save_snapshot(one))
    return made


async def run(store: Store, attempt: int = 1, **more: Any) -> Result:
    hold: Any = Hold(attempt)
    shop = Workshop(
        hold=hold, store=store, password=PASSWORD, progress=Progress(), owner="snappy.site.r1", host="north"
    )
    return await prepare("forget", ForgetCommand(source="site", target="vault", **more)).work(shop)


def left(store: Store) -> set[str]:
    assert store.list(FileType.LOCK) == []
    return {name for name, _ in store.list(FileType.SNAPSHOT)}


async def test_what_a_policy_does_not_keep_is_removed() -> None:
    store = memory_store()
    made = filled(store)
    done = await run(store, keep_last=2)
    assert left(store) == set(made[:2])
    assert (done.snapshots, done.removed, len(done.repository)) == (2, 3, 64)
    (group,) = done.groups
    assert (group.host, group.paths, group.tags) == ("north", ["/"], None)
    assert [(row.id, row.reasons) for row in group.snapshots] == [
        (name, ["last snapshot"] if place < 2 else []) for place, name in enumerate(made)
    ]


async def test_a_dry_run_removes_nothing_and_needs_no_lock() -> None:
    store = memory_store()
    made = filled(store)
    with Repository.open(store, PASSWORD) as other, other.lock(owner=OWNER, exclusive=True):
        done = await run(store, keep_last=2, dry_run=True)
    assert left(store) == set(made)
    assert (done.snapshots, done.removed) == (2, 3)


async def test_nothing_is_removed_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory_store()
    made = filled(store)
    monkeypatch.setattr(forgets, "alone", partial(alone, patience=0.0))
    with Repository.open(store, PASSWORD) as other, other.lock(owner=OWNER), pytest.raises(RepositoryLocked):
        await run(store, keep_last=2)
    assert left(store) == set(made)


async def test_tags_of_jobs_tell_no_groups_apart() -> None:
    store = memory_store()
    made = filled(store)
    done = await run(store, keep_last=1, group_by="tags")
    assert left(store) == set(made[:2])
    assert [group.tags for group in done.groups] == [None, ["odd"]]


async def test_an_empty_tag_means_those_without_one_of_their_owner() -> None:
    store = memory_store()
    made = filled(store)
    await run(store, keep_tags=[""])
    assert left(store) == set(made[::2])


async def test_all_is_removed_only_where_that_is_said() -> None:
    store = memory_store()
    made = filled(store)
    with pytest.raises(LastSnapshot):
        await run(store, keep_tags=["none has it"])
    assert left(store) == set(made)
    assert (await run(store, unsafe_allow_remove_all=True, tags=["odd"])).removed == 2
    assert left(store) == set(made[::2])


async def test_named_ones_are_removed() -> None:
    store = memory_store()
    made = filled(store)
    done = await run(store, snapshots=[made[0], made[3][:8], made[0]])
    assert left(store) == {made[1], made[2], made[4]}
    assert (done.snapshots, done.removed) == (0, 2)


async def test_a_name_of_none_is_an_error_before_anything_is_removed() -> None:
    store = memory_store()
    made = filled(store)
    with pytest.raises(SnapshotNotFound):
        await run(store, snapshots=[made[0], "00" * 32])
    assert left(store) == set(made)


async def test_a_later_attempt_takes_what_is_gone_for_done() -> None:
    store = memory_store()
    made = filled(store)
    store.remove(FileType.SNAPSHOT, made[0])
    assert (await run(store, attempt=2, snapshots=made[:2])).removed == 1
    assert left(store) == set(made[2:])


@pytest.mark.parametrize("deaths", range(1, 4))
async def test_who_goes_on_where_one_was_lost_decides_as_it_did(deaths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappy.repository.snapshots._READERS", 1)
    removed = 0

    def die(method: str, path: str) -> None:
        nonlocal removed
        if method == "rm_file" and "snapshots" in path:
            removed += 1
            if removed >= deaths:
                raise JobCancelled("dead")

    store = memory_store(fs := Interposed(die))
    made = filled(store)
    with pytest.raises(JobCancelled):
        await run(store, keep_within_weekly="4d")
    assert len(left(store)) == len(made) - deaths + 1
    fs.before = lambda _method, _path: None
    await run(store, attempt=2, keep_within_weekly="4d")
    other = memory_store()
    untouched = filled(other)
    await run(other, keep_within_weekly="4d")
    assert {made.index(name) for name in left(store)} == {untouched.index(name) for name in left(other)}


async def test_one_that_somebody_else_removes_meanwhile_is_no_error() -> None:
    def snatch(method: str, path: str) -> None:
        if method == "rm_file" and "snapshots" in path:
            fs.store.pop(path if path in fs.store else "/" + path.lstrip("/"), None)

    store = memory_store(fs := Interposed(snatch))
    made = filled(store)
    assert (await run(store, keep_last=4)).removed == 0
    assert left(store) == set(made[:4])


async def test_a_long_list_is_told_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgets, "TOLD_BYTES", 500)
    store = memory_store()
    filled(store)
    done = await run(store, keep_last=4, dry_run=True)
    assert (done.snapshots, done.removed) == (4, 1)
    assert 0 < sum(len(group.snapshots) for group in done.groups) < 5
