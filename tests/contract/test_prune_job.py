"""Prunes over the bus, under real permissions: who may have one, what is left, and how they end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.result_words import Pruned
from snappy.jobs.states import State
from snappy.repository.pruner import Pruner
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support.engine import OWNER
from tests.support.littered import store_of
from tests.support.stack import Inside, in_process

SECONDS = 60.0
NAMES = {"source": "site", "target": "vault"}
PASSWORD = "right"


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    (tmp_path / "data").mkdir()
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0, may_delete=["alice"]),
        source={"site": SourceService(allow={"alice": everything, "bob": everything}, workers=1)},
        target={"vault": TargetService(url=str(tmp_path / "vault"), rights="rlwd")},
    )


@asynccontextmanager
async def littered(settings: Config) -> AsyncIterator[tuple[Inside, Client]]:
    """A stack whose vault holds a snapshot, and what another used that is gone; and alice to ask it."""
    folder = Path(settings.state_dir).parent
    async with (
        in_process(settings, ["alice", "bob"], passwords=lambda _key: PASSWORD) as inside,
        inside.client("alice") as client,
    ):
        for number in range(2):
            (folder / "data" / str(number)).write_bytes(os.urandom(100_000))
            done = await done_of(client, "backup", init=True, options={"paths": [str(folder / "data")]})
            assert done.result, done.error
            (folder / "data" / str(number)).unlink()
            if number == 0:
                (folder / "vault" / "snapshots" / done.result.snapshot).unlink()
        yield inside, client


async def done_of(client: Client, kind: str, **more: object) -> JobRecord:
    submitted = await client.submit(kind, {**NAMES, **more})
    return await ended(client, submitted.id)


async def ended(client: Client, job: str) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        return await client.wait(job)


def pruned(record: JobRecord) -> Pruned:
    assert record.result is not None, record.error
    assert record.result.prune is not None
    return record.result.prune


def packs(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "vault" / "data").glob("*/*")}


def locks(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "vault" / "locks").iterdir())


async def test_a_dry_run_and_then_a_prune(settings: Config, tmp_path: Path) -> None:
    async with littered(settings) as (inside, client):
        before = packs(tmp_path)
        async with inside.client("bob") as bob:
            told = await done_of(bob, "prune", dry_run=True)
        assert packs(tmp_path) == before
        done = await done_of(client, "prune", max_unused="0")
        assert (await done_of(client, "check", read_data=True)).state is State.SUCCEEDED
        again = await done_of(client, "prune", max_unused="0")
    assert pruned(told).blobs == pruned(done).blobs
    assert (pruned(told).packs_deleted, pruned(told).packfiles["remove_total"]) == (0, 2)
    assert pruned(done).packs_deleted == len(before - packs(tmp_path)) == 2
    assert pruned(done).bytes_deleted > 100_000
    assert pruned(again).packs_deleted == 0
    assert locks(tmp_path) == []


async def test_who_may_not_delete_is_told_at_once(settings: Config) -> None:
    async with in_process(settings, ["bob"], passwords=lambda _: PASSWORD) as inside, inside.client("bob") as bob:
        refused = await done_of(bob, "prune")
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, "denied")


async def test_an_append_only_target_stays_as_it_is(settings: Config, tmp_path: Path) -> None:
    settings.target["vault"] = replace(settings.target["vault"], rights="rlw")
    async with littered(settings) as (_, client):
        before = packs(tmp_path)
        refused = await done_of(client, "prune", max_unused="0")
    assert (refused.state, refused.error.code if refused.error else "") == (State.FAILED, "access-denied")
    assert packs(tmp_path) == before
    assert locks(tmp_path) == []


class Gate:
    """Lets no prune go on to its deletion until it is opened; one that has to stop does so."""

    def __init__(self) -> None:
        self.open, self.met = threading.Event(), threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made, demand = Gate(), Pruner._demand_deletion

    def waiting(self: Pruner) -> None:
        made.met.set()
        while not made.open.wait(0.05):
            self._cancelled()
        demand(self)

    monkeypatch.setattr(Pruner, "_demand_deletion", waiting)
    yield made
    made.open.set()


async def amid_a_prune(client: Client, gate: Gate) -> str:
    submitted = await client.submit("prune", NAMES)
    assert await asyncio.to_thread(gate.met.wait, SECONDS)
    return submitted.id


async def test_it_is_cancelled_while_it_waits_for_others(settings: Config, tmp_path: Path, gate: Gate) -> None:
    async with littered(settings) as (_, client):
        before = packs(tmp_path)
        job = await amid_a_prune(client, gate)
        store: Store = store_of(tmp_path / "vault")
        with Repository.open(store, PASSWORD) as other, other.lock(owner=OWNER, settle=0):
            gate.open.set()
            await asyncio.sleep(1.0)
            await client.cancel(job)
            record = await ended(client, job)
    assert (record.state, len(record.attempts)) == (State.CANCELLED, 1)
    assert packs(tmp_path) == before
    assert locks(tmp_path) == []


async def test_another_attempt_begins_again_where_the_service_stops(
    settings: Config, tmp_path: Path, gate: Gate
) -> None:
    async with littered(settings) as (inside, client):
        job = await amid_a_prune(client, gate)
        await inside.stop("source site")
        gate.open.set()
        await inside.start("source site")
        record = await ended(client, job)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 2), record.error
    assert pruned(record).packs_deleted == 2
    assert locks(tmp_path) == []


@pytest.mark.parametrize("part", ["core", "target vault"])
async def test_it_goes_on_after_an_outage_of_others(settings: Config, tmp_path: Path, gate: Gate, part: str) -> None:
    async with littered(settings) as (inside, client):
        job = await amid_a_prune(client, gate)
        await inside.stop(part)
        gate.open.set()
        await asyncio.sleep(0.5)
        await inside.start(part)
        record = await ended(client, job)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 1), record.error
    assert pruned(record).packs_deleted == 2
    assert locks(tmp_path) == []
