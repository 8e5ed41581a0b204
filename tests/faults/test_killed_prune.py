"""A prune that is killed anywhere costs nothing but a prune."""

from __future__ import annotations

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snappy.repository.checker import Checker
from snappy.repository.portion import EVERYTHING
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from tests.support import tools
from tests.support.engine import PASSWORD
from tests.support.littered import WHOLE_PACKS, contents, litter, prune, store_of
from tests.support.mortal_prune import MortalStore, attempt, prune_and_die
from tests.support.restic import Restic

POINTS = 56
OPTIONS = {"max_unused": "0", "packs": WHOLE_PACKS}
TOLERANCE = 0.05


def stored(folder: Path) -> int:
    return sum(size for _, size in store_of(folder).list(FileType.PACK))


def restic_on(folder: Path, cache: Path) -> Restic:
    return Restic(tools.newest_restic() or "", folder, PASSWORD, cache)


@pytest.mark.restic_newest
def test_death_at_any_operation(tmp_path: Path) -> None:
    littered = tmp_path / "littered"
    litter(store_of(littered), snapshots=6)
    before, whole = contents(store_of(littered)), stored(littered)
    freed = whole - left_by_restic(littered, tmp_path)
    operations = count(littered, tmp_path)
    assert operations >= POINTS

    def judge(fatal: int) -> None:
        """What is left is sound, nothing is lost, and the next attempt ends what this one began."""
        folder = tmp_path / f"{fatal}"
        restic = restic_on(folder, tmp_path / f"cache-{fatal}")
        restic.run("check", "--read-data", "--no-lock", "--no-cache")
        assert contents(store_of(folder)) == before
        prune(store_of(folder), owner=attempt(2), **OPTIONS)
        assert contents(store_of(folder)) == before
        assert whole - stored(folder) == pytest.approx(freed, rel=TOLERANCE)
        assert_sound(folder)
        shutil.rmtree(folder)

    points = sorted(random.Random(5).sample(range(1, operations + 1), POINTS))
    died = [
        fatal for fatal in points if prune_and_die(shutil.copytree(littered, tmp_path / f"{fatal}"), fatal, **OPTIONS)
    ]
    assert len(died) > POINTS - 3, "threads may need an operation less"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(judge, died))


def left_by_restic(littered: Path, tmp_path: Path) -> int:
    copy = shutil.copytree(littered, tmp_path / "by-restic")
    restic_on(copy, tmp_path / "cache").run("prune", "--max-unused", "0")
    return stored(copy)


def count(littered: Path, tmp_path: Path) -> int:
    store = MortalStore(shutil.copytree(littered, tmp_path / "counted"))
    prune(store, owner=attempt(1), **OPTIONS)
    return store.operations


def assert_sound(folder: Path) -> None:
    with Repository.open(store_of(folder), PASSWORD) as repository:
        assert Checker(repository).check(EVERYTHING).findings == []
    assert store_of(folder).list(FileType.LOCK) == []
