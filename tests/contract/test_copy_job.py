"""Copies over the bus, under real permissions: from one target to another, whose keys the source service holds."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.states import State
from snappy.repository.carrier import Carrier
from tests.support.stack import Inside, in_process

SECONDS = 60.0
HERE = {"source": "site", "target": "vault"}
THERE = {"source": "site", "target": "second", "key": "other"}
COPY = {**THERE, "origin": "vault"}
PASSWORDS = {"default": "right", "other": "another"}


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir()
    everything = Allow(kinds=["*"], plugins=["*"], targets=["*"], read=["/"])
    half = Allow(kinds=["copy"], targets=["second"])
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={"site": SourceService(allow={"alice": everything, "bob": half}, workers=1)},
        target={
            "vault": TargetService(url=str(tmp_path / "vault"), rights="rlw"),
            "second": TargetService(url=str(tmp_path / "second"), rights="rlw"),
        },
    )


@asynccontextmanager
async def filled(settings: Config) -> AsyncIterator[tuple[Inside, Client]]:
    """A stack with two snapshots in its vault, and nothing yet in the second repository; and alice to ask it."""
    folder = Path(settings.state_dir).parent
    async with (
        in_process(settings, ["alice", "bob"], passwords=PASSWORDS.__getitem__) as inside,
        inside.client("alice") as client,
    ):
        await done_of(client, "init", **THERE)
        for number, host in enumerate(("one", "two")):
            (folder / "data" / str(number)).write_bytes(os.urandom(100_000))
            await done_of(client, "backup", **HERE, init=True, host=host, options={"paths": [str(folder / "data")]})
        yield inside, client


async def done_of(client: Client, kind: str, **command: Any) -> Result:
    record = await ended(client, (await client.submit(kind, command)).id)
    assert record.result, record.error
    return record.result


async def ended(client: Client, job: str) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        return await client.wait(job)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


async def test_a_copy_and_another(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        first = await done_of(client, "copy", **COPY, hosts=["one"])
        second = await done_of(client, "copy", **COPY)
        await done_of(client, "check", **THERE, read_data=True)
    assert (first.snapshots, first.copied, second.snapshots, second.copied) == (1, 1, 2, 1)
    assert {one.snapshot for one in second.copies} == names(tmp_path / "vault" / "snapshots")
    assert {one.copy for one in second.copies} == names(tmp_path / "second" / "snapshots")
    assert 100_000 < second.bytes_stored < 110_000 < first.bytes_stored + second.bytes_stored
    assert names(tmp_path / "vault" / "locks") == names(tmp_path / "second" / "locks") == set()


async def test_who_may_not_use_both_targets_copies_nothing(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (inside, _), inside.client("bob") as bob:
        refused = await ended(bob, (await bob.submit("copy", COPY)).id)
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, "denied")
    assert names(tmp_path / "second" / "snapshots") == set()


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"origin": "second"}, "invalid-command"), ({"origin": "nowhere"}, "unknown-service")],
)
async def test_what_cannot_be_copied_is_told_at_once(settings: Config, changed: dict[str, str], code: str) -> None:
    async with filled(settings) as (_, client):
        refused = await ended(client, (await client.submit("copy", {**COPY, **changed})).id)
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, code)


async def test_a_cancelled_copy_leaves_no_lock(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, carry = threading.Event(), Carrier._carry

    def stalled(self: Carrier, pack: int, rows: Any) -> None:
        carry(self, pack, rows)
        begun.set()
        while True:
            threading.Event().wait(0.05)
            self._cancelled()

    monkeypatch.setattr(Carrier, "_carry", stalled)
    async with filled(settings) as (_, client):
        job = (await client.submit("copy", COPY)).id
        assert await asyncio.to_thread(begun.wait, SECONDS)
        await client.cancel(job)
        assert (await ended(client, job)).state is State.CANCELLED
        assert names(tmp_path / "second" / "snapshots") == names(tmp_path / "second" / "locks") == set()
        monkeypatch.setattr(Carrier, "_carry", carry)
        assert (await done_of(client, "copy", **COPY)).copied == 2
