"""A prune over the bus whose source service is killed, again and again, in a folder and on a real S3 server."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snappy.repository.repo import Repository
from tests.support import tools
from tests.support.engine import CHEAP, PASSWORD
from tests.support.faults import LOOK_SECONDS, Arena, arena
from tests.support.littered import WHOLE_PACKS, contents, litter, prune, store_of
from tests.support.mortal_prune import attempt
from tests.support.places import Place, in_bucket, in_folder
from tests.support.restic import Restic
from tests.support.weed import weed_server

pytestmark = [pytest.mark.restic_newest, pytest.mark.timeout(900)]

SNAPSHOTS = 16
ALL_UNUSED = {"max_unused": "0"}
TOLERANCE = 0.05
CORE = {"hold_seconds": 1.0, "may_delete": ["alice"]}
QUIET_SECONDS = 0.2
"""What the target was about to do for the one that was killed is done by then."""
SECONDS = 60.0
KILLS = 2
"""Of one job, if there is enough left to do for a second."""
JOBS = 8
FEW = 4
"""Files that a prune stores and deletes too fast to be killed amid them."""


class Ground:
    """A site whose vault holds a littered repository, and what must come of it."""

    def __init__(self, site: Arena, folder: Path) -> None:
        self.site, self._folder = site, folder
        self._client = site.place.files()
        self._numbers = itertools.count()
        self._before: set[str] = set()
        litter(store_of(folder / "littered"), SNAPSHOTS)
        with Repository.open(store_of(folder / "littered"), PASSWORD) as repository:
            repository.keys(CHEAP).add(site.repository_password)
        self.whole = contents(store_of(folder / "littered"))
        self.litter()
        self.stored = self.packs()
        self.freed = self.stored - self._left_by_restic()

    def litter(self) -> None:
        """Have the repository as it was at first."""
        for name in self.site.place.names(self._client):
            self._client.rm_file(f"{self.site.place.root}/{name}")
        self.site.place.put(objects_in(self._folder / "littered"))

    def packs(self) -> int:
        """Bytes of all packs."""
        return sum(map(len, self.site.place.objects("data/").values()))

    def expect_sound(self) -> None:
        """restic finds no fault in what is there now, and nothing is lost."""
        copy = self._copy()
        self._restic(copy).run("check", "--read-data", "--no-lock", "--no-cache")
        assert contents(store_of(copy)) == self.whole

    def changes_ahead(self) -> int:
        """How many files a prune of what is there now stores and deletes; :meth:`strike` counts from here."""
        self._before = self._files()
        copy = self._copy()
        shutil.rmtree(copy / "locks", ignore_errors=True)
        before = set(objects_in(copy))
        prune(store_of(copy), owner=attempt(2), packs=WHOLE_PACKS, **ALL_UNUSED)
        return len(before ^ set(objects_in(copy)))

    async def strike(self, changes: int) -> None:
        """Kill the source service when so many files were stored or deleted."""
        deadline = time.monotonic() + SECONDS
        while len(self._before ^ self._files()) < changes:
            assert time.monotonic() < deadline, self.site.log("site1")[-4000:]
            await asyncio.sleep(LOOK_SECONDS)
        self.site.kill("site1")
        await self._quiet()

    async def _quiet(self) -> None:
        before = None
        while before != (before := self._files()):
            await asyncio.sleep(QUIET_SECONDS)

    def _files(self) -> set[str]:
        return {name for name in self.site.place.names(self._client) if not name.startswith("locks/")}

    def _copy(self) -> Path:
        copy = self._folder / f"copy {next(self._numbers)}"
        for name, content in self.site.place.objects().items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        return copy

    def _left_by_restic(self) -> int:
        copy = self._copy()
        self._restic(copy).run("prune", "--max-unused", "0")
        return sum(len(content) for name, content in objects_in(copy).items() if name.startswith("data/"))

    def _restic(self, folder: Path) -> Restic:
        return Restic(tools.newest_restic() or "", folder, PASSWORD, self._folder / "cache")


def objects_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def littered(folder: Path, kind: str) -> Iterator[Ground]:
    (folder / "site").mkdir()
    if kind == "folder":
        with arena(folder / "site", in_folder(folder), core=CORE, rights="rlwd") as site:
            yield Ground(site, folder)
        return
    (folder / "weed").mkdir()
    with weed_server(folder / "weed") as weed:
        place: Place = in_bucket(weed)
        with arena(folder / "site", place, core=CORE, rights="rlwd") as site:
            yield Ground(site, folder)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    with littered(tmp_path, request.param) as made:
        yield made


@pytest.mark.parametrize("jobs", [1, pytest.param(JOBS, marks=pytest.mark.long)])
async def test_a_prune_outlives_its_service(ground: Ground, jobs: int) -> None:
    chance = random.Random(jobs)
    for number in range(jobs):
        if number:
            ground.litter()
        await outlive(ground, chance)


async def outlive(ground: Ground, chance: random.Random) -> None:
    """A prune, killed twice where there is enough to do, and what must hold after each kill and at the end."""
    site, kills = ground.site, 0
    changes = ground.changes_ahead()
    request = await site.submit("prune", **ALL_UNUSED)
    while kills < KILLS and changes >= FEW:
        await ground.strike(chance.randint(1, changes * 3 // 4))
        ground.expect_sound()
        changes, kills = ground.changes_ahead(), kills + 1
        site.start("site1")
    record = await site.succeeded(request)
    lost = [one["error"]["code"] for one in record["attempts"][:-1]]
    assert lost
    assert set(lost) == {"attempt-lost"}
    await site.expect_told_once(record)
    ground.expect_sound()
    assert site.place.locks() == []
    assert ground.stored - ground.packs() == pytest.approx(ground.freed, rel=TOLERANCE)
