"""Drills over the bus, under real permissions: what is proven, what is told of it, and that nothing is left."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from snappy.config import Allow, Config, Core, DrillProgram, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.protection_words import SourceStatus
from snappy.jobs.states import State
from snappy.repository import batch_runner
from snappy.sources.drills import FOLDER
from snappy.sources.proofs import Prover
from tests.support.stack import Inside, in_process

SECONDS = 60.0
NAMES = {"source": "site", "target": "vault"}
FILES = 30
COUNT = f"import os; assert sum(len(names) for _, _, names in os.walk('.')) == {FILES}"


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir()
    for number in range(FILES):
        (tmp_path / "data" / str(number)).write_bytes(os.urandom(10_000))
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    programs = {
        "count": DrillProgram([sys.executable, "-c", COUNT]),
        "refuse": DrillProgram([sys.executable, "-c", "import sys; sys.exit('it does not start')"]),
    }
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={
            "site": SourceService(
                allow={"alice": everything, "bob": Allow(kinds=["check", "restore"], targets=["vault"])},
                drills=programs,
                work=str(tmp_path / "work"),
                workers=1,
            )
        },
        target={"vault": TargetService(url=str(tmp_path / "vault"), rights="rlw")},
    )


@asynccontextmanager
async def filled(settings: Config) -> AsyncIterator[tuple[Inside, Client]]:
    """A stack whose vault holds a snapshot, and alice to ask it."""
    folder = Path(settings.state_dir).parent / "data"
    async with (
        in_process(settings, ["alice", "bob"], passwords=lambda _key: "right") as inside,
        inside.client("alice") as client,
    ):
        done = await ended(client, "backup", init=True, options={"paths": [str(folder)]})
        assert done.state is State.SUCCEEDED, done.error
        yield inside, client


async def ended(client: Client, kind: str, **more: object) -> JobRecord:
    submitted = await client.submit(kind, {**NAMES, **more})
    return await over(client, submitted.id)


async def over(client: Client, job: str) -> JobRecord:
    async with asyncio.timeout(SECONDS):
        return await client.wait(job)


async def drill(client: Client, **more: object) -> Result:
    record = await ended(client, "drill", **more)
    assert record.result, record.error
    return record.result


async def known(client: Client) -> SourceStatus:
    (source,) = (await client.status()).sources
    return source


def left(tmp_path: Path) -> list[str]:
    """What drills left in the work folder."""
    return [path.name for path in (tmp_path / "work" / FOLDER).iterdir() if path.name != ".lock"]


async def test_a_snapshot_is_proven_and_it_is_known_since_when(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        assert (await known(client)).drill_state == "unproven"
        whole = await drill(client, program="count")
        proven = await known(client)
        part = await drill(client, sample="20%", seed=5)
        again = await drill(client, sample="20%", seed=5)
        newest = await known(client)
    assert (whole.files, whole.bytes_processed) == (FILES, FILES * 10_000)
    assert whole.drill
    assert 0 < whole.drill.first_byte <= whole.drill.recovery < whole.seconds
    assert (whole.drill.program, whole.drill.program_seconds > 0) == ("count", True)
    assert proven.drill_state == "proven"
    assert proven.known.drill
    assert (proven.known.drill.files, proven.known.drill.seconds) == (FILES, whole.drill.recovery)
    assert (part.files, part.drill and part.drill.seed) == (6, 5)
    assert (part.files, part.bytes_processed) == (again.files, again.bytes_processed)
    assert newest.known.drill
    assert (newest.known.drill.sample, newest.known.drill.bytes) == ("20%", 60_000)
    assert left(tmp_path) == []
    assert list((tmp_path / "vault" / "locks").iterdir()) == []


def flip_a_bit(vault: Path) -> str:
    """In the middle of the largest pack; its name."""
    pack = max((vault / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    return pack.name


async def test_damage_fails_it_by_name_and_is_the_state_of_the_repository(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        await drill(client)
        pack = flip_a_bit(tmp_path / "vault")
        async with client.live("repository") as told:
            failed = await ended(client, "drill")
            async with asyncio.timeout(SECONDS):
                event = await anext(told)
        [state] = await client.repositories()
        source = await known(client)
        others = [await ended(client, "drill", sample="1%", seed=seed) for seed in range(3)]
        [later] = await client.repositories()
    assert (failed.state, len(failed.attempts)) == (State.FAILED, 1)
    assert failed.error
    assert (failed.error.code, pack in failed.error.message) == ("damaged", True)
    assert failed.result
    assert failed.result.drill
    (fault,) = failed.result.drill.faults
    (finding,) = failed.result.findings
    assert fault.path.startswith(str(tmp_path / "data"))
    assert finding.id in fault.message
    assert (finding.kind, failed.result.files) == ("blob-damaged", FILES - 1)
    assert (event["type"], event["data"]["job"]) == ("io.snappy.repository.damaged", failed.id)
    assert (state.state, state.job) == ("damaged", failed.id)
    assert source.known.mishap
    assert (source.known.mishap.kind, source.known.mishap.code) == ("drill", "damaged")
    assert any(other.state is State.SUCCEEDED for other in others)
    assert later.state == "damaged"  # a sample without damage says nothing of the rest
    assert left(tmp_path) == []


async def test_a_program_fails_it(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (_, client):
        failed = await ended(client, "drill", program="refuse")
        unknown = await ended(client, "drill", program="none")
    assert failed.error
    assert (failed.error.code, "it does not start" in failed.error.message) == ("program-failed", True)
    assert failed.result
    assert failed.result.files == FILES
    assert unknown.error
    assert (unknown.state, unknown.error.code) == (State.REJECTED, "bad-options")
    assert left(tmp_path) == []


async def test_who_may_not_ask_is_told(settings: Config) -> None:
    async with filled(settings) as (inside, _), inside.client("bob") as bob:
        refused = await ended(bob, "drill")
    assert (refused.state, refused.error.code if refused.error else "") == (State.REJECTED, "denied")


async def test_a_target_that_nobody_may_write_to_is_enough(settings: Config, tmp_path: Path) -> None:
    async with filled(settings) as (inside, client):
        await inside.stop("target vault")
        inside.host.config.target["vault"] = replace(settings.target["vault"], rights="rl")
        await inside.start("target vault")
        assert (await drill(client)).files == FILES


async def test_a_schedule_drills(settings: Config) -> None:
    async with filled(settings) as (_, client):
        await client.schedules.add("proof", "drill", {**NAMES, "sample": "10%"}, every=86400)
        record = await over(client, (await client.schedules.run_now("proof")).id)
    assert record.state is State.SUCCEEDED, record.error


async def test_a_cancelled_drill_leaves_nothing(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, look = threading.Event(), Prover._look

    def stalled(self: Prover, step: Any) -> None:
        begun.set()
        while True:
            threading.Event().wait(0.05)
            self._cancelled()

    monkeypatch.setattr(Prover, "_look", stalled)
    async with filled(settings) as (_, client):
        job = (await client.submit("drill", NAMES)).id
        assert await asyncio.to_thread(begun.wait, SECONDS)
        assert len(left(tmp_path)) == 1
        await client.cancel(job)
        assert (await over(client, job)).state is State.CANCELLED
        assert left(tmp_path) == []
        monkeypatch.setattr(Prover, "_look", look)
        assert (await drill(client)).files == FILES


async def test_workers_bring_what_is_proven(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "FILES_FOR_WORKERS", 0)
    settings.source["site"] = replace(settings.source["site"], workers=2)
    async with filled(settings) as (_, client):
        done = await drill(client)
    assert (done.files, done.findings) == (FILES, [])
