"""A scout goes through the source over a connection of its own, under the grant of the job."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.messages import JobRecord
from snappy.jobs.states import State
from snappy.repository import scout
from snappy.repository.entries import Below
from snappy.repository.scout import Scout
from tests.support.stack import in_process

SECONDS = 60.0
FILES = 12


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    for number in range(FILES):
        folder = tmp_path / "data" / str(number)
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"%d" % number * 1000)
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"])
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(hold_seconds=2.0),
        source={"site": SourceService(allow={"alice": everything}, workers=2)},
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )


async def back_up(client: Client, folder: Path, **more: object) -> JobRecord:
    names = {"source": "site", "target": "vault", "options": {"paths": [str(folder)]}}
    submitted = await client.submit("backup", {**names, **more})
    async with asyncio.timeout(SECONDS):
        return await client.wait(submitted.id)


async def test_an_unchanged_backup_is_done_by_two(
    settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[Below] = []
    real = Scout.passed

    def late(self: Scout, path: bytes) -> Below | None:
        deadline = time.monotonic() + SECONDS
        while not self._hands[0].ended and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self._hands[0].ended, "the scout is not done"
        if below := real(self, path):
            passed.append(below)
        return below

    monkeypatch.setattr(Scout, "passed", late)
    monkeypatch.setattr(scout, "WORTH_A_SCOUT", 0)
    async with (
        in_process(settings, ["alice"], passwords=lambda _key: "right") as inside,
        inside.client("alice") as client,
    ):
        first = await back_up(client, tmp_path / "data", init=True)
        assert passed == []
        (tmp_path / "data" / "3" / "file").write_bytes(b"other")
        again = await back_up(client, tmp_path / "data")
        by_force = len(passed)
        forced = await back_up(client, tmp_path / "data", force=True)
    assert [one.state for one in (first, again, forced)] == [State.SUCCEEDED] * 3
    assert again.result is not None
    assert (again.result.files_unmodified, again.result.files_changed) == (FILES - 1, 1)
    assert sum(below.files for below in passed) == FILES - 1
    assert len(passed) == by_force
