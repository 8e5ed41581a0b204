"""What a source service does about an attempt that breaks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from snappy import config
from snappy.sources import service
from snappy.sources.service import SourceService


class Broken:
    def __init__(self, *_: Any) -> None: ...

    async def run(self) -> None:
        raise ZeroDivisionError


async def test_an_attempt_that_breaks_is_told_and_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "Attempt", Broken)
    nobody: Any = None
    site = SourceService(nobody, "site", config.SourceService(concurrent_jobs=1), config.Nats())
    await site._slots.acquire()
    hold: Any = SimpleNamespace(job=SimpleNamespace(id="job-1"))
    with capture_logs() as told:
        site._start(hold)
        await asyncio.wait_for(site._slots.acquire(), 5)
        await asyncio.sleep(0)
    assert [(line["log_level"], line["job"]) for line in told] == [("error", "job-1")]
    assert not site._holds
    assert not site._attempts


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        (config.SourceService(), service.MOST_WORKERS),
        (config.SourceService(workers=1), 1),
        (config.SourceService(workers=12), 12),
        (config.SourceService(memory_mib=3 * service.WORKER_MIB + 1), 3),
        (config.SourceService(memory_mib=1), 0),
    ],
)
def test_how_many_workers_a_backup_may_start(
    settings: config.SourceService, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "processors", lambda: 64)
    nobody: Any = None
    site = SourceService(nobody, "site", settings, config.Nats())
    assert (site._workers().most, site._workers().niceness) == (most, 0)
