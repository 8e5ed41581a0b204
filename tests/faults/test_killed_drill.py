"""A source service killed amid a drill: what it had restored goes when it starts again, and the drill is done anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.sources.drills import FOLDER
from tests.support.faults import MIB, Arena, arena, make_noise

pytestmark = [pytest.mark.timeout(300)]

SIZE = 96 * MIB
MOMENT = 24 * MIB
SECONDS = 30.0


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    monkeypatch.setenv("SNAPPY_SOURCE__SITE1__WORK", str(tmp_path / "work"))
    with arena(tmp_path) as made:
        yield made


def left(work: Path) -> list[str]:
    return [path.name for path in (work / FOLDER).iterdir() if path.name != ".lock"]


async def test_nothing_is_left_of_a_drill_that_was_killed(running: Arena, tmp_path: Path) -> None:
    await running.succeeded(await running.backup(make_noise(running.data / "tree", SIZE)))
    drill = await running.submit("drill")
    await running.amid(drill, tmp_path / "work" / FOLDER, MOMENT)
    running.kill("site1")
    (old,) = left(tmp_path / "work")
    running.start("site1")
    async with asyncio.timeout(SECONDS):
        while old in left(tmp_path / "work"):
            await asyncio.sleep(0.05)
    done = await running.succeeded(drill)
    assert [attempt["error"]["code"] for attempt in done["attempts"] if attempt.get("error")] == ["attempt-lost"]
    assert done["result"]["bytes_processed"] == SIZE
    assert left(tmp_path / "work") == []
