"""A source service at work, on a real server under real permissions: cancel, outage, hand-over, limits, questions."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from snappy import heap
from snappy.config import Allow, Audit, Config, Core, SourceService, TargetService
from snappy.errors import BadOptions, BusUnavailable, Denied, UnknownKey
from snappy.frontend.api import Client
from snappy.jobs.messages import HoldAnswer, HoldRequest, JobRecord
from snappy.jobs.states import State
from snappy.repository.entries import Entry, Node, Sink
from snappy.sources import base, service
from snappy.sources.site import Site
from tests.support.stack import Inside, in_process

SECONDS = 60.0


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class Drip:
    """A source that yields empty files until it is told to stop."""

    name: ClassVar[str] = "drip"
    Options: ClassVar[type[msgspec.Struct]] = Nothing
    RestoreOptions: ClassVar[type[msgspec.Struct]] = Nothing
    stop = threading.Event()
    yielded = 0

    def __init__(self, options: Nothing, site: Site) -> None: ...

    def claims(self) -> list[str]:
        return ["/drip"]

    @asynccontextmanager
    async def snap(self) -> AsyncIterator[None]:
        yield

    def export(self, frozen: None) -> Iterator[Entry]:
        yield Entry(path=b"/drip", node=Node(name=b"drip", type="dir", mode=0o755))
        number = 0
        while not Drip.stop.wait(0.01):
            number += 1
            Drip.yielded += 1
            name = b"%08d" % number
            yield Entry(path=b"/drip/" + name, node=Node(name=name, type="file", mode=0o644), open=io.BytesIO)

    @classmethod
    def restore_claims(cls, options: Nothing, site: Site) -> list[str]:
        return []

    @classmethod
    def import_(cls, options: Nothing, claims: Sequence[str], site: Site) -> Sink:
        raise BadOptions("what drips cannot be restored")


@pytest.fixture(autouse=True)
def drip(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load = base.load

    def with_drip(name: str) -> type[base.Source]:
        return Drip if name == "drip" else load(name)

    monkeypatch.setattr(base, "load", with_drip)
    monkeypatch.setattr(base, "names", lambda: ["drip", "files"])
    Drip.stop.clear()
    Drip.yielded = 0
    yield
    Drip.stop.set()


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/drip"])
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={"site": SourceService(allow={"alice": everything}, concurrent_jobs=2)},
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )


def password(key: str) -> str:
    if key != "default":
        raise UnknownKey(f"no key {key!r}")
    return "right"


async def start(client: Client, **more: Any) -> JobRecord:
    command = {"source": "site", "target": "vault", "plugin": "drip", "init": True, **more}
    record = await client.submit("backup", command)
    assert record.state is State.QUEUED, record.error
    return record


async def until(client: Client, job: str, what: Callable[[JobRecord], bool]) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        while not what(record := await client.get(job)):
            await asyncio.sleep(0.05)
        return record


async def flowing(more: int = 5) -> None:
    """Until the source has yielded more."""
    before = Drip.yielded
    async with asyncio.timeout(SECONDS):
        while Drip.yielded < before + more:
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stack(settings: Config) -> AsyncIterator[tuple[Inside, Client]]:
    """Core, audit, target and source, and alice to ask them."""
    async with in_process(settings, ["alice", "bob"], passwords=password) as inside, inside.client("alice") as client:
        yield inside, client


async def test_what_a_job_had_in_memory_is_let_go(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    monkeypatch.setattr(heap, "let_go", gone.set)
    monkeypatch.setattr(service, "LONG_SECONDS", 0.0)
    async with stack(settings) as (_, client):
        job = await start(client)
        await flowing()
        assert not gone.is_set()
        await client.cancel(job.id)
        await client.wait(job.id)
        assert await asyncio.to_thread(gone.wait, SECONDS)


async def test_a_running_job_is_cancelled_within_seconds_and_leaves_no_lock(settings: Config, tmp_path: Path) -> None:
    async with stack(settings) as (_, client):
        job = await start(client)
        await flowing()
        asked = asyncio.get_running_loop().time()
        await client.cancel(job.id)
        record = await client.wait(job.id)
        assert asyncio.get_running_loop().time() - asked < 5
    assert (record.state, record.cancel) == (State.CANCELLED, "alice")
    assert list((tmp_path / "vault" / "locks").iterdir()) == []
    assert not (tmp_path / "vault" / "snapshots").exists()


async def test_a_job_pauses_while_the_core_is_away_and_goes_on_in_the_same_attempt(settings: Config) -> None:
    async with stack(settings) as (inside, client):
        job = await start(client)
        await flowing()
        await inside.stop("core")
        async with asyncio.timeout(SECONDS):
            while not await still():
                pass
        await inside.start("core")
        await flowing()
        Drip.stop.set()
        record = await client.wait(job.id)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 1)


async def test_a_claim_whose_answer_was_lost_gets_its_job_all_the_same(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, lost = service.SourceService._ask_core, []

    async def losing(self: service.SourceService, verb: str, request: HoldRequest) -> HoldAnswer:
        answer = await ask(self, verb, request)
        if verb == "claim" and answer.job and not lost:
            lost.append(answer.job.id)
            raise BusUnavailable("the answer was lost")
        return answer

    monkeypatch.setattr(service.SourceService, "_ask_core", losing)
    patient = msgspec.structs.replace(settings, core=Core(hold_seconds=60.0))
    async with stack(patient) as (_, client):
        job = await start(client)
        await flowing()
        Drip.stop.set()
        record = await client.wait(job.id)
    assert lost == [job.id]
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 1)


async def still(seconds: float = 0.5) -> bool:
    """Whether the source yields nothing for a while."""
    before = Drip.yielded
    await asyncio.sleep(seconds)
    return Drip.yielded == before


async def test_a_service_that_stops_gives_its_job_back_and_the_next_finishes_it(settings: Config) -> None:
    async with stack(settings) as (inside, client):
        job = await start(client)
        await flowing()
        await inside.stop("source site")
        await until(client, job.id, lambda record: record.state is State.RETRYING)
        Drip.stop.set()
        await inside.start("source site")
        record = await client.wait(job.id)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 2)


async def test_a_target_that_was_started_anew_lets_a_job_remove_its_lock(settings: Config, tmp_path: Path) -> None:
    """It does not know any more who wrote the lock; the core does, and tells of it."""
    open_audit = msgspec.structs.replace(settings, audit=Audit(readers=["alice"]))
    async with stack(open_audit) as (inside, client):
        job = await start(client)
        await flowing()
        await inside.stop("target vault")
        await inside.start("target vault")
        Drip.stop.set()
        record = await client.wait(job.id)
        entries = await client.audit(limit=1000)
    assert (record.state, len(record.attempts)) == (State.SUCCEEDED, 1)
    assert list((tmp_path / "vault" / "locks").iterdir()) == []
    reasons = [
        each["event"]["data"]["reason"] for each in entries if each["event"]["type"].startswith("io.snappy.lock")
    ]
    assert reasons == ["its own attempt lets go of it"]


async def test_no_more_jobs_at_once_than_the_settings_say(settings: Config) -> None:
    async with stack(settings) as (_, client):
        await client.wait((await client.submit("init", {"source": "site", "target": "vault"})).id)
        jobs = [await start(client, init=False) for _ in range(3)]
        for job in jobs[:2]:
            await until(client, job.id, lambda record: record.state is State.RUNNING)
        await flowing(20)
        assert (await client.get(jobs[2].id)).state is State.QUEUED
        Drip.stop.set()
        records = [await client.wait(job.id) for job in jobs]
    assert [record.state for record in records] == [State.SUCCEEDED] * 3


async def test_progress_is_told_and_not_too_often(settings: Config) -> None:
    async with stack(settings) as (_, client):
        job = await start(client)
        heard = []
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(SECONDS):
            async for progress in client.progress(job.id):
                heard.append(progress)
                if len(heard) == 4:
                    break
        assert asyncio.get_running_loop().time() - began > 0.7
        assert {(each.job, each.attempt) for each in heard} == {(job.id, 1)}
        Drip.stop.set()
        await client.wait(job.id)


async def test_who_may_use_a_target_may_list_its_snapshots_and_nobody_else(settings: Config) -> None:
    Drip.stop.set()
    async with stack(settings) as (inside, client), inside.client("bob") as bob:
        record = await client.wait((await start(client)).id)
        assert record.result is not None
        (shown,) = await client.snapshots("site", "vault")
        assert shown["id"] == record.result.snapshot
        assert f"snappy-job:{record.id}" in shown["tags"]
        with pytest.raises(Denied):
            await bob.snapshots("site", "vault")
        with pytest.raises(UnknownKey):
            await client.snapshots("site", "vault", "other")


async def test_the_service_is_a_micro_service_with_its_plug_ins_schemas(settings: Config) -> None:
    async with in_process(settings, observers=["watcher"]) as inside, inside.bus("watcher") as bus:
        body = await bus.request("$SRV.INFO.snappy-source", b"", timeout=5)
    info = msgspec.json.decode(body)
    assert info["metadata"]["service"] == "site"
    schema = msgspec.json.decode(info["metadata"]["plugin.files"])
    assert "paths" in str(schema["backup"])
    assert info["endpoints"][0]["subject"] == "snappy.ask.site.snapshots.list.*"
