"""What a prune comes to, by itself and behind a forget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from snappy.jobs.command import Command
from snappy.jobs.messages import JobRecord, LockRef, Result
from snappy.jobs.result_words import Pruned
from snappy.jobs.states import State
from snappy.jobs.upkeep import ForgetCommand, PruneCommand
from snappy.repository.checker import Checker
from snappy.repository.portion import EVERYTHING
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support.engine import OWNER, PASSWORD, memory_store
from tests.support.littered import contents, litter

NAMES: dict[str, Any] = {"source": "site", "target": "vault"}


class Hold:
    """A hold that never ends, on the first or another attempt."""

    job = JobRecord(id="job-1", kind="prune", submitter="alice", state=State.RUNNING)

    def __init__(self, attempt: int = 1) -> None:
        self.attempt = attempt

    def check(self) -> None:
        """Go on."""

    def removing(self, locks: Sequence[LockRef]) -> AbstractContextManager[set[str]]:
        """None of them."""
        return nullcontext(set())


@pytest.fixture
def store() -> Store:
    made = memory_store()
    litter(made)
    return made


async def run(store: Store, kind: str, command: Command, attempt: int = 1) -> Result:
    hold: Any = Hold(attempt)
    shop = Workshop(
        hold=hold, store=store, password=PASSWORD, progress=Progress(), owner="snappy.site.r1", host="north"
    )
    return await prepare(kind, command).work(shop)


def pruned(result: Result) -> Pruned:
    assert result.prune is not None
    return result.prune


def count(store: Store, kind: FileType = FileType.PACK) -> int:
    return len(store.list(kind))


def assert_sound(store: Store) -> None:
    with Repository.open(store, PASSWORD) as repository:
        assert Checker(repository).check(EVERYTHING).findings == []
    assert count(store, FileType.LOCK) == 0


async def test_a_prune(store: Store) -> None:
    before, packs = contents(store), count(store)
    planned = await run(store, "prune", PruneCommand(**NAMES, dry_run=True, max_unused="0"))
    assert (pruned(planned).packs_deleted, count(store)) == (0, packs)
    done = await run(store, "prune", PruneCommand(**NAMES, max_unused="0"))
    assert pruned(done).blobs == pruned(planned).blobs
    assert done.packs == packs
    assert pruned(done).packs_deleted > packs / 2
    assert pruned(done).bytes_deleted >= pruned(done).bytes["remove_total"] > 0
    assert contents(store) == before
    assert_sound(store)


async def test_a_forget_prunes_what_it_removed(store: Store) -> None:
    packs = count(store)
    forget: dict[str, Any] = {**NAMES, "keep_last": 1, "prune": True, "max_unused": "0"}
    planned = await run(store, "forget", ForgetCommand(**forget, dry_run=True))
    assert (count(store), count(store, FileType.SNAPSHOT)) == (packs, 4)
    done = await run(store, "forget", ForgetCommand(**forget))
    assert (done.removed, len(contents(store))) == (3, 1)
    assert pruned(done).blobs["used"] == pruned(planned).blobs["used"] == 25
    assert_sound(store)


@pytest.mark.parametrize(("attempt", "prunes"), [(1, False), (2, True)])
async def test_a_forget_that_removes_nothing_prunes_only_for_an_attempt_that_was_lost(
    store: Store, attempt: int, prunes: bool
) -> None:
    done = await run(store, "forget", ForgetCommand(**NAMES, keep_last=9, prune=True), attempt)
    assert (done.removed, done.prune is not None) == (0, prunes)


async def test_it_plans_beside_a_backup(store: Store) -> None:
    with Repository.open(store, PASSWORD) as other, other.lock(owner=OWNER, settle=0):
        assert pruned(await run(store, "prune", PruneCommand(**NAMES, dry_run=True))).packfiles["remove_total"]


def test_it_asks_for_no_plug_in_and_no_place() -> None:
    asks = prepare("prune", PruneCommand(**NAMES)).asks
    assert (asks.kind, asks.target, asks.plugin, asks.reads, asks.writes) == ("prune", "vault", "", [], [])
