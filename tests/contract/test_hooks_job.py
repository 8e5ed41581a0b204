"""Hooks of a source service on the bus: who may choose them, and what becomes of them when the service dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from snappy.config import Hook
from snappy.jobs.states import State
from tests.support import source_site
from tests.support.source_site import STRANGER

SLOW = "4M"


def freezing(folder: Path) -> dict[str, Hook]:
    """One that freezes by making a file, which fails where it is frozen already."""
    ice = str(folder / "ice")
    return {
        "freeze": Hook(["mkdir", ice], ["/bin/sh", "-c", f'rmdir "{ice}"; echo "$SNAPPY_ERROR" >> "{folder}/thawed"'])
    }


@pytest.mark.long
async def test_a_killed_service_thaws_when_it_starts_and_the_job_is_done(tmp_path: Path) -> None:
    ice, thawed = tmp_path / "ice", tmp_path / "thawed"
    async with source_site.running(tmp_path, "null", {}, hooks=freezing(tmp_path)) as site:
        await site.throttle(SLOW)
        async with site.own_process() as process:
            job = await site.started("backup", options={"size": 24 << 20}, init=True, hooks=["freeze"])
            await site.amid(job)
            assert ice.exists()
            process.kill()
        assert ice.exists()
        await site.throttle("")
        async with site.own_process():
            record = await site.client.wait(job.id)
        assert record.state is State.SUCCEEDED, record
        assert not ice.exists()
        assert thawed.read_text().split("\n") == ["attempt-lost", "", ""]


async def test_a_hook_is_chosen_by_who_may_and_thawed_when_it_is_cancelled(tmp_path: Path) -> None:
    async with source_site.running(tmp_path, "null", {}, hooks=freezing(tmp_path)) as site:
        refused = await site.ended("backup", submitter=STRANGER, options={"size": 1}, hooks=["freeze"])
        assert refused.error
        assert (refused.error.code, refused.error.message) == ("denied", "bob may not ask for the hook 'freeze' here")
        assert not (tmp_path / "thawed").exists()
        job = await site.started("backup", options={"size": 24 << 20}, init=True, hooks=["freeze"], bandwidth=SLOW)
        await site.amid(job)
        await site.client.cancel(job.id)
        assert (await site.client.wait(job.id)).state is State.CANCELLED
        assert (await asyncio.to_thread((tmp_path / "thawed").read_text)) == "cancelled\n"
        assert not (tmp_path / "ice").exists()
