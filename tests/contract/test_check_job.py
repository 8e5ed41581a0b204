"""Checks over the bus, under real permissions: what they find, and that they survive as other jobs do."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from snappy.repository import pack_checker
from snappy.repository.findings import Finding
from snappy.repository.pack_checker import PackChecker
from snappy.repository.pack_proof import CheckedPack, PackProof
from snappy.repository.pool import Pool
from tests.support.stack import Inside, in_process

SECONDS = 60.0
NAMES = {"source": "site", "target": "vault"}


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / str(number)).write_bytes(b"%d" % number * 1000)
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={
            "site": SourceService(
                allow={"alice": everything, "bob": Allow(kinds=["backup"], targets=["vault"])}, workers=1
            )
        },
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )


@asynccontextmanager
async def filled(settings: Config) -> AsyncIterator[tuple[Inside, Client]]:
    """A stack whose vault holds a snapshot, and alice to ask it."""
    folder = Path(settings.state_dir).parent / "data"
    async with (
        in_process(settings, ["alice", "bob"], passwords=lambda _key: "right") as inside,
        inside.client("alice") as client,
    ):
        done = await done_of(client, "backup", init=True, options={"paths": [str(folder)]})
        assert done.state is State.SUCCEEDED, done.error
        yield inside, client


async def done_of(client: Client, kind: str, **more: object) -> JobRecord:
    submitted = await client.submit(kind, {**NAMES, **more})
    async with asyncio.timeout(SECONDS):
        return await client.wait(submitted.id)


async def test_whole_and_then_damaged(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        whole = await done_of(client, "check", read_data=True)
        (pack, *_) = sorted((tmp_path / "vault" / "data").glob("*/*"))
        pack.unlink()
        damaged = await done_of(client, "check")
        kept = await client.get(damaged.id)
    assert whole.state is State.SUCCEEDED, whole.error
    assert whole.result is not None
    assert (whole.result.snapshots, whole.result.packs_read, whole.result.findings) == (1, whole.result.packs, [])
    assert (damaged.state, len(damaged.attempts)) == (State.FAILED, 1)
    assert damaged.error is not None
    assert (damaged.error.code, damaged.error.retryable) == ("damaged", False)
    assert pack.name[:8] in damaged.error.message
    assert damaged.result is not None
    assert ("pack-missing", pack.name) in [(found.kind, found.id) for found in damaged.result.findings]
    assert kept.result == damaged.result
    assert list((tmp_path / "vault" / "locks").iterdir()) == []


@pytest.fixture
def two_workers(settings: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """All packs are read by workers."""
    monkeypatch.setattr(pack_checker, "WORTH_WORKERS", 0)
    monkeypatch.setattr(pack_checker, "READY_SECONDS", SECONDS)
    monkeypatch.setattr(PackChecker, "_read_here", None)
    settings.source["site"] = replace(settings.source["site"], workers=2)
    return settings


async def test_workers_read_over_connections_of_their_own(two_workers: Config, tmp_path: Path) -> None:
    async with filled(two_workers) as (_, client):
        whole = await done_of(client, "check", read_data=True)
        (pack, *_) = sorted((tmp_path / "vault" / "data").glob("*/*"))
        pack.chmod(0o600)
        pack.write_bytes(bytes(pack.stat().st_size))
        damaged = await done_of(client, "check", read_data=True)
    assert whole.state is State.SUCCEEDED, whole.error
    assert whole.result is not None
    assert whole.result.packs_read == whole.result.packs
    assert damaged.result is not None
    assert ("pack-changed", pack.name) in [(found.kind, found.id) for found in damaged.result.findings]


async def test_a_dead_worker_ends_the_attempt_and_no_more(two_workers: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_one(pool: Pool, body: bytes) -> None:
        if not killed:
            killed.append(pool.processes[-1])
            os.kill(killed[0], signal.SIGKILL)
        take(pool, body)

    killed: list[int] = []
    take = Pool.take
    monkeypatch.setattr(Pool, "take", kill_one)
    async with filled(two_workers) as (_, client):
        record = await done_of(client, "check", read_data=True)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 2), record.error
    assert record.attempts[0].error is not None
    assert record.attempts[0].error.code == "worker-died"
    assert record.result is not None
    assert record.result.packs_read == record.result.packs


async def test_who_may_not_ask_is_told(settings: Config) -> None:
    async with filled(settings) as (inside, _), inside.client("bob") as bob:
        refused = await done_of(bob, "check")
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, "denied")


class Gate:
    """Lets no pack be examined until it is opened; a check that has to stop does so."""

    def __init__(self) -> None:
        self.open, self.met = threading.Event(), threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made, examine = Gate(), PackProof._examine

    def waiting(self: PackProof, pack: CheckedPack) -> list[Finding]:
        made.met.set()
        while not made.open.wait(0.05):
            self._cancelled()
        return examine(self, pack)

    monkeypatch.setattr(PackProof, "_examine", waiting)
    yield made
    made.open.set()


async def amid_a_check(client: Client, gate: Gate) -> str:
    submitted = await client.submit("check", {**NAMES, "read_data": True})
    assert await asyncio.to_thread(gate.met.wait, SECONDS)
    return submitted.id


async def ended(client: Client, job: str) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        return await client.wait(job)


async def test_it_is_cancelled_within_seconds_and_leaves_no_lock(settings: Config, tmp_path: Path, gate: Gate) -> None:
    async with filled(settings) as (_, client):
        job = await amid_a_check(client, gate)
        asked = asyncio.get_running_loop().time()
        await client.cancel(job)
        record = await ended(client, job)
        assert asyncio.get_running_loop().time() - asked < 5
    assert (record.state, record.result) == (State.CANCELLED, None)
    assert list((tmp_path / "vault" / "locks").iterdir()) == []


async def test_another_attempt_begins_again_where_the_service_stops(settings: Config, gate: Gate) -> None:
    async with filled(settings) as (inside, client):
        job = await amid_a_check(client, gate)
        await inside.stop("source site")
        gate.open.set()
        await inside.start("source site")
        record = await ended(client, job)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 2), record.error
    assert record.result is not None
    assert record.result.packs_read == record.result.packs


@pytest.mark.parametrize("part", ["core", "target vault"])
async def test_it_goes_on_after_an_outage_of_others(settings: Config, gate: Gate, part: str) -> None:
    async with filled(settings) as (inside, client):
        job = await amid_a_check(client, gate)
        await inside.stop(part)
        gate.open.set()
        await asyncio.sleep(0.5)
        await inside.start(part)
        record = await ended(client, job)
    assert record.state is State.SUCCEEDED, record.error


async def test_it_goes_on_after_an_outage_of_nats(settings: Config, gate: Gate) -> None:
    async with filled(settings) as (inside, client):
        job = await amid_a_check(client, gate)
        server = inside.server.broker._process
        assert server is not None
        server.kill()
        gate.open.set()
        while inside.server.broker._process is server:
            await asyncio.sleep(0.05)
        async with inside.client("alice") as again:
            record = await ended(again, job)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 1), record.error


async def test_shares_are_read_in_turn_whoever_reads_them(settings: Config) -> None:
    """The core remembers, in its bucket: another source service, or another core, goes on where one stopped."""
    async with filled(settings) as (_, client):
        done = [await done_of(client, "check", read_data_subset="next/2") for _ in range(3)]
        [state] = await client.repositories()
    portions = [record.result.portion for record in done if record.result]
    assert portions == ["1/2", "2/2", "1/2"]
    assert [record.command["read_data_subset"] for record in done] == ["next/2"] * 3
    assert sum(record.result.packs_read for record in done[:2] if record.result) == 2
    assert (state.target, state.state) == ("vault", "sound")
    first, second = state.shares["2"]
    assert first > second > 0


async def test_damage_is_the_state_of_a_repository_until_a_check_as_deep_finds_none(
    settings: Config, tmp_path: Path
) -> None:
    async with (
        filled(settings) as (_, client),
        client.live("repository") as events,
    ):
        (pack, *_) = (tmp_path / "vault" / "data").glob("*/*")
        whole = pack.read_bytes()
        pack.chmod(0o600)
        pack.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # of its header, which only who reads all looks at
        damaged = await done_of(client, "check", read_data=True)
        structure = await done_of(client, "check")
        [before] = await client.repositories()
        pack.write_bytes(whole)
        mended = await done_of(client, "check", read_data=True)
        [after] = await client.repositories()
        async with asyncio.timeout(SECONDS):
            told = [await anext(events) for _ in range(2)]
    assert (damaged.state, structure.state, mended.state) == (State.FAILED, State.SUCCEEDED, State.SUCCEEDED)
    assert (before.state, before.damage, before.job) == ("damaged", {"all": damaged.id}, damaged.id)
    assert (after.state, after.damage, after.job) == ("sound", {}, mended.id)
    assert [event["type"] for event in told] == ["io.snappy.repository.damaged", "io.snappy.repository.sound"]
    assert [event["subject"] for event in told] == ["vault"] * 2
    assert told[0]["data"]["damage"] == {"all": damaged.id}


async def test_a_configuration_that_is_damaged_is_a_finding(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        config = tmp_path / "vault" / "config"
        config.chmod(0o600)
        config.write_bytes(config.read_bytes()[:-1])
        damaged = await done_of(client, "check")
        [state] = await client.repositories()
    assert damaged.state is State.FAILED
    assert damaged.result is not None
    assert [(found.kind, found.object, found.id) for found in damaged.result.findings] == [
        ("config-damaged", "config", "config")
    ]
    assert state.state == "damaged"
