"""A real backup cancelled in the middle: how soon, what it leaves, and what the next one finds of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from pathlib import Path

import pytest

from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.frontend.api import Client
from snappy.jobs.states import State
from tests.support.compare import compare
from tests.support.stack import in_process

MIB = 1 << 20
FILES, FILE_BYTES = 25, 8 * MIB
ACKNOWLEDGED_SECONDS, FINISHED_SECONDS = 2.0, 10.0
HEX_NAME = re.compile(r"[0-9a-f]{64}\Z")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(FILES):
        (root / f"{number:02}").write_bytes(os.urandom(FILE_BYTES))
    return root


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    everything = Allow(kinds=["*"], plugins=["*"], targets=["vault"], read=["/"], restore_to=[str(tmp_path)])
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(),
        source={"site": SourceService(allow={"alice": everything})},
        target={"vault": TargetService(url=str(tmp_path / "vault"))},
    )


async def half_way(client: Client, job: str) -> int:
    """How many bytes were read when it was a third of the way."""
    async for progress in client.progress(job):
        if progress.bytes > FILES * FILE_BYTES // 3:
            return progress.bytes
    raise AssertionError("the progress ended")


def wrong_files(vault: Path) -> list[Path]:
    """What a clean repository does not hold: drafts, locks, objects that are not what their name says."""
    objects = [path for path in vault.rglob("*") if path.is_file() and path != vault / "config"]
    return [path for path in objects if not HEX_NAME.match(path.name) or path.parent.name == "locks" or _differs(path)]


def _differs(path: Path) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() != path.name


def stored(vault: Path) -> int:
    return sum(path.stat().st_size for path in (vault / "data").rglob("*") if path.is_file())


async def test_a_backup_cancelled_in_the_middle(settings: Config, tree: Path, tmp_path: Path) -> None:
    vault, loop = tmp_path / "vault", asyncio.get_running_loop()
    command = {"source": "site", "target": "vault", "options": {"paths": [str(tree)]}, "init": True}
    async with in_process(settings, ["alice"], lambda key: "right") as inside, inside.client("alice") as client:
        job = (await client.submit("backup", command)).id
        async with asyncio.timeout(60):
            read = await half_way(client, job)
        asked = loop.time()
        await client.cancel(job)
        assert loop.time() - asked < ACKNOWLEDGED_SECONDS
        record = await client.wait(job)
        assert loop.time() - asked < FINISHED_SECONDS
        assert (record.state, record.cancel) == (State.CANCELLED, "alice")
        assert not (vault / "snapshots").exists() or not list((vault / "snapshots").iterdir())
        assert wrong_files(vault) == []
        kept = stored(vault)
        assert kept > read // 3, "what was read is mostly stored already"

        again = await client.wait((await client.submit("backup", command)).id)
        assert again.state is State.SUCCEEDED, again.error
        assert again.result is not None
        assert again.result.bytes_stored < FILES * FILE_BYTES - kept // 2, "what was stored is used again"
        assert stored(vault) < FILES * FILE_BYTES * 1.05
        assert wrong_files(vault) == []
        back = {"source": "site", "target": "vault", "options": {"to": str(tmp_path / "back")}}
        restored = await client.wait((await client.submit("restore", back)).id)
        assert restored.state is State.SUCCEEDED, restored.error
    differences = compare(os.fsencode(tree), os.fsencode(tmp_path / "back" / str(tree).lstrip("/"))).differences
    assert not list(differences)
