"""A forget over the bus, under real permissions: what it removes, and what stands in the way of thieves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import Grant, SigningKey
from snappy.config import Allow, Config, Core, Deletion, SourceService, TargetService
from snappy.errors import SnappyError
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import Event, State
from snappy.repository.store import FileType, Store
from tests.support.jobs import Worker
from tests.support.stack import Inside, in_process

SECONDS = 60.0
NAMES = {"source": "site", "target": "vault"}
LATE = 4e9
MORE: dict[str, dict[str, Any]] = {
    "backup": {"options": {"paths": ["/etc"]}},
    "check": {},
    "prune": {},
    "forget": {"keep_last": 1},
}


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"kept")
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0, targets={"vault": Deletion(may_delete=["keeper"])}),
        source={"site": SourceService(allow={"keeper": everything, "alice": everything}, workers=1)},
        target={"vault": TargetService(url=str(tmp_path / "vault"), rights="rlwd")},
    )


@asynccontextmanager
async def filled(settings: Config, snapshots: int = 3) -> AsyncIterator[tuple[Inside, Client]]:
    """A stack whose vault holds snapshots, and the keeper to ask it."""
    folder = Path(settings.state_dir).parent / "data"
    async with (
        in_process(settings, ["keeper", "alice"], passwords=lambda _key: "right") as inside,
        inside.client("keeper") as client,
    ):
        for _ in range(snapshots):
            done = await done_of(client, "backup", init=True, options={"paths": [str(folder)]})
            assert done.state is State.SUCCEEDED, done.error
        yield inside, client


async def done_of(client: Client, kind: str, **more: Any) -> JobRecord:
    submitted = await client.submit(kind, {**NAMES, **more})
    async with asyncio.timeout(SECONDS):
        return await client.wait(submitted.id)


def objects(settings: Config) -> set[str]:
    root = Path(settings.target["vault"].url)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def snapshots(settings: Config) -> set[str]:
    return {path for path in objects(settings) if path.startswith("snapshots/")}


async def test_a_policy_is_tried_and_then_carried_out(settings: Config) -> None:
    async with filled(settings) as (_, keeper):
        before = objects(settings)
        tried = await done_of(keeper, "forget", keep_last=1, dry_run=True)
        assert objects(settings) == before
        done = await done_of(keeper, "forget", keep_last=1)
        again = await done_of(keeper, "forget", keep_last=1)
    assert [record.state for record in (tried, done, again)] == [State.SUCCEEDED] * 3, (tried, done, again)
    found = [record.result for record in (tried, done, again) if record.result]
    assert [(result.snapshots, result.removed) for result in found] == [(1, 2), (1, 2), (1, 0)]
    assert found[0].groups == found[1].groups
    (kept,) = snapshots(settings)
    assert f"snapshots/{found[1].groups[0].snapshots[0].id}" == kept
    assert before - objects(settings) == {path for path in before if path.startswith("snapshots/")} - {kept}


async def test_neither_a_stolen_submitter_nor_a_core_deletes_on_an_append_only_target(settings: Config) -> None:
    settings.target["vault"] = replace(settings.target["vault"], rights="rlw")
    async with filled(settings) as (inside, keeper), inside.client("alice") as alice:
        before = objects(settings)
        granted = await done_of(keeper, "forget", keep_last=1)
        refused = await done_of(alice, "forget", keep_last=1)
        tried = await done_of(alice, "forget", keep_last=1, dry_run=True)
        assert objects(settings) == before
    assert (granted.state, granted.error.code if granted.error else "") == (State.FAILED, "access-denied")
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, "denied")
    assert tried.state is State.SUCCEEDED


async def test_a_stolen_source_deletes_only_what_its_grant_is_for(settings: Config) -> None:
    """It has the password of its service, and the grants of whatever jobs there are for it."""
    async with filled(settings) as (inside, keeper):
        await inside.stop("source site")
        before = objects(settings)
        key = SigningKey.from_text(inside.host.signing_key)
        granted = await grants_of(inside, keeper)
        forged = SigningKey.generate().sign(Grant("j", 1, "site", "vault", "rlwWd", LATE, deletes=("",)))
        old = key.sign(Grant("j", 1, "site", "vault", "rlwd", 1e9, deletes=("",)))
        for grant in (granted["backup"], granted["check"], forged, old, ""):
            assert await stolen(inside, grant, before) == set()
        assert await stolen(inside, granted["prune"], before) == {
            path for path in before if path.startswith(("data/", "index/"))
        }
        assert await stolen(inside, granted["forget"], before) == snapshots_in(before)
        assert objects(settings) == {path for path in before if path.startswith(("config", "keys/"))}


def snapshots_in(paths: set[str]) -> set[str]:
    return {path for path in paths if path.startswith("snapshots/")}


async def grants_of(inside: Inside, keeper: Client) -> dict[str, str]:
    """By the kind of the job that it was given for."""
    found = {}
    async with inside.bus("site") as thief:
        for kind, more in MORE.items():
            await keeper.submit(kind, {**NAMES, **more})
            answer = await Worker(thief, "thief").claimed()
            found[kind] = answer.grant
    return found


async def stolen(inside: Inside, grant: str, paths: set[str]) -> set[str]:
    """Which of the objects go when the thief tries to delete each of them."""
    files = SnappyFileSystem("vault", caller="site", grant=grant, nats=inside.server.broker.nats("site"))
    gone = set()
    try:
        for path in sorted(paths):
            try:
                await asyncio.to_thread(files.rm_file, path)
                gone.add(path)
            except SnappyError:
                continue
    finally:
        await asyncio.to_thread(files.close)
    return gone


async def test_a_deletion_that_waits_is_cancelled(settings: Config) -> None:
    assert settings.core
    rules = {"vault": Deletion(may_delete=["keeper"], delete_after=1.0)}
    waiting = replace(settings, core=replace(settings.core, targets=rules))
    async with filled(waiting) as (inside, keeper):
        record = await keeper.submit("forget", {**NAMES, "keep_last": 1})
        assert (record.state, record.event) == (State.QUEUED, Event.ANNOUNCED)
        async with inside.client("local") as owner:
            assert (await owner.cancel(record.id)).state is State.CANCELLED
    assert len(snapshots(settings)) == 3


async def test_it_goes_on_where_its_service_stops(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid the removal; another attempt does the rest."""
    calls, met, going_on, remove = count(), threading.Event(), threading.Event(), Store.remove

    def waiting(self: Any, kind: FileType, name: str) -> None:
        if kind is FileType.SNAPSHOT and next(calls) > 0:
            met.set()
            while not going_on.wait(0.05):
                self._hold.check()
        remove(self, kind, name)

    async with filled(settings) as (inside, keeper):
        monkeypatch.setattr(Store, "remove", waiting)
        submitted = await keeper.submit("forget", {**NAMES, "keep_last": 1})
        assert await asyncio.to_thread(met.wait, SECONDS)
        await inside.stop("source site")
        going_on.set()
        await inside.start("source site")
        async with asyncio.timeout(SECONDS):
            done = await keeper.wait(submitted.id)
    assert (done.state, len(done.attempts)) == (State.SUCCEEDED, 2), done.error
    assert len(snapshots(settings)) == 1
    assert not any(path.startswith("locks/") for path in objects(settings))
