"""What a source service does about an attempt that breaks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from snappy import config
from snappy.errors import SnapshotNotFound
from snappy.jobs.api_words import Reply
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


def test_snapshots_that_do_not_fit_are_cut_at_the_old_end_and_said_to_be() -> None:
    bus: Any = SimpleNamespace(nc=SimpleNamespace(max_payload=4096))
    site = SourceService(bus, "site", config.SourceService(), config.Nats())
    everything = [{"id": str(number), "paths": ["/" + "x" * 200]} for number in range(40)]
    pages: list[dict[str, Any]] = []
    more, before = True, ""
    while more:
        body = site._fitting(Reply(snapshots=service._older(everything, before)))
        assert len(body) <= 4096
        reply = msgspec.json.decode(body, type=Reply)
        assert reply.snapshots
        pages, more, before = reply.snapshots + pages, reply.more, reply.snapshots[0]["id"]
    assert pages == everything


def test_a_page_after_a_snapshot_that_is_gone_is_refused() -> None:
    with pytest.raises(SnapshotNotFound, match="gone"):
        service._older([{"id": "there"}], "gone")


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
