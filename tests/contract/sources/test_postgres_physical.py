"""A whole PostgreSQL server, full and what changed since, started again from what was restored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, JobCancelled, SourceDenied
from tests.support.database_server import secret
from tests.support.plugin_jobs import Jobs
from tests.support.postgres import Ledger, Postgres, newer, packaged

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with packaged() as programs, Postgres.running(programs) as running:
        yield running


@pytest.fixture(scope="module")
def newer_server() -> Iterator[Postgres]:
    with newer() as programs, Postgres.running(programs, summarize_wal="on") as running:
        yield running


def jobs_of(server: Postgres, folder: Path, **more: Any) -> Jobs:
    settings = server.settings | {"password": secret(folder / "password", server.password)} | more
    return Jobs(folder, "postgres-physical", {"main": settings})


@contextmanager
def restarted(server: Postgres, data: Path) -> Iterator[Ledger]:
    """The same server on what was restored, and then on its own again."""
    own = server.data
    server.stop()
    try:
        server.start(server.beside(data))
        yield Ledger(server, "bank")
        server.stop()
    finally:
        server.start(own)


@pytest.mark.postgres
async def test_what_is_wrong_is_said_and_what_is_cancelled_leaves_nothing(server: Postgres, tmp_path: Path) -> None:
    jobs = jobs_of(server, tmp_path)
    with pytest.raises(BadOptions, match="before PostgreSQL 17"):
        await jobs.backup(server="main", incremental=3)
    server.do("DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN PASSWORD 'inkpot'")
    (tmp_path / "other").mkdir()
    clerk = jobs_of(server, tmp_path / "other", user="clerk")
    (tmp_path / "other" / "password").write_text("inkpot")
    with pytest.raises(SourceDenied):
        await clerk.backup(server="main")
    with pytest.raises(JobCancelled):
        await jobs.backup(server="main", end_after=4 * MIB)
    assert (server.leftovers(), jobs.leftovers()) == ([], [])
    await jobs.backup(server="main")
    to = tmp_path / "place" / "data"
    to.mkdir(parents=True)
    (to / "mine").touch()
    with pytest.raises(BadOptions, match="not empty"):
        await jobs.restore(to=str(to), server="main")
    (to / "mine").unlink()
    with pytest.raises(JobCancelled):
        await jobs.restore(to=str(to), server="main", end_after=4 * MIB)
    assert list(to.parent.iterdir()) == [to]
    assert list(to.iterdir()) == []


@pytest.mark.long
async def test_a_chain_of_what_changed_reads_little_and_each_of_it_can_be_restored(
    newer_server: Postgres, tmp_path: Path
) -> None:
    server = newer_server
    jobs, ledger = jobs_of(server, tmp_path), Ledger(server, "bank")
    ledger.make(48 * MIB)
    options = {"server": "main", "incremental": 2}
    first = await jobs.backup(**options)
    ledger.change(0.01)
    second = await jobs.backup(**options)
    assert (second.files, second.files_unmodified) == (3, 1)
    assert second.bytes_read < first.bytes_read / 4
    ledger.change(0.02)
    with ledger.writing():
        third = await jobs.backup(**options)
    assert (third.files, third.files_unmodified) == (4, 2)
    fourth = await jobs.backup(**options)
    assert (fourth.files, fourth.files_unmodified) == (2, 0), "a chain ends"
    # The wheel's pg_verifybackup crashes on any backup; that the server starts and the ledger is right says more.
    await jobs.restore(to=str(tmp_path / "data"), server="main", snapshot=third.snapshot, verify=False)
    with restarted(server, tmp_path / "data") as restored:
        restored.check()
        content = restored.content()["filler"]
    assert content == ledger.content()["filler"]
    server.drop_all()


@pytest.mark.long
async def test_a_chain_that_the_target_does_not_have_begins_anew(newer_server: Postgres, tmp_path: Path) -> None:
    jobs = jobs_of(newer_server, tmp_path)
    await jobs.backup(server="main", incremental=2)
    shutil.rmtree(jobs.repository)
    with pytest.raises(Exception, match="not in the parent") as raised:
        await jobs.backup(server="main", incremental=2)
    assert getattr(raised.value, "retryable", False)
    assert (await jobs.backup(server="main", incremental=2)).files == 2
