"""What repairs come to: results that say what was found, made anew and lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from snappy.errors import BadOptions, RepositoryLocked
from snappy.jobs.messages import Result, Warn
from snappy.jobs.result_words import Repaired
from snappy.jobs.upkeep import RepairCommand
from snappy.repository.format import BlobType
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.sources.tasks import prepare
from snappy.sources.workshop import Workshop
from tests.support import survivors
from tests.support.engine import OWNER, PASSWORD, memory_store, new_repository
from tests.support.snapshots import FILES, fill
from tests.unit.sources.test_checks import NAMES, Hold


@pytest.fixture
def store() -> Store:
    """Its pack of data is gone."""
    made = memory_store()
    repository = new_repository(made)
    fill(repository)
    (pack,) = {place.pack for place in repository.index if place.kind is BlobType.DATA}
    made.remove(FileType.PACK, pack.hex())
    return made


async def run(store: Store, what: Any, **more: Any) -> Result:
    hold: Any = Hold()
    shop = Workshop(
        hold=hold, store=store, password=PASSWORD, progress=Progress(), owner="snappy.site.r1", host="north"
    )
    return await prepare("repair", RepairCommand(**NAMES, what=what, **more)).work(shop)


async def test_index_then_snapshots(store: Store) -> None:
    index = await run(store, "index")
    assert [(found.kind, found.damage) for found in index.findings] == [("pack-missing", True)]
    assert index.repair == Repaired(what="index", written=1, removed=1)
    snapshots = await run(store, "snapshots", forget=True)
    assert snapshots.repair == Repaired(what="snapshots", written=1, removed=1)
    assert snapshots.warning_count == len(snapshots.warnings) == FILES
    assert snapshots.warnings[0] == Warn(
        path="/below/file0", message="of 5000 bytes 0 are left; blobs that are lost: 1"
    )
    assert survivors.check(store).findings == []
    assert store.list(FileType.LOCK) == []


async def test_packs(store: Store) -> None:
    done = await run(store, "packs")
    assert {found.kind for found in done.findings} == {"pack-missing", "blob-lost"}
    assert done.repair == Repaired(what="packs", written=0, removed=1)
    again = await run(store, "packs")
    assert again.repair == Repaired(what="packs")


async def test_a_dry_run_works_beside_others_and_a_repair_does_not(store: Store) -> None:
    repository = Repository.open(store, PASSWORD)
    with repository.lock(owner=OWNER, settle=0):
        done = await run(store, "index", dry_run=True)
        with pytest.raises(RepositoryLocked):
            await run(store, "index")
    assert done.repair == Repaired(what="index", dry_run=True, written=1, removed=1)


async def test_what_cannot_be_asked(store: Store) -> None:
    with pytest.raises(BadOptions):
        await run(store, "packs", ids=["abc"])
    for wrong in ({"what": "index", "ids": ["a"]}, {"what": "packs", "forget": True}, {"what": "all"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**NAMES, **wrong}, RepairCommand)
