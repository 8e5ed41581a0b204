"""What Snappy repaired restic calls sound, and what restic makes of the same damage Snappy makes too."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

from snappy.repository.index_repair import IndexRepair
from snappy.repository.repo import Repository
from snappy.repository.snapshot_repair import SnapshotRepair
from snappy.repository.store import FileType, Store
from tests.support import plants, survivors, tools
from tests.support.engine import PASSWORD
from tests.support.plants import Files, Oracle, Original
from tests.support.restic import Restic

SEEDS = range(3000, 3000 + len(plants.PLANTS))

pytestmark = pytest.mark.restic_newest


def store_of(folder: Path) -> Store:
    return Store(fsspec.filesystem("file"), str(folder))


def write(files: Files, folder: Path) -> None:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "locks").mkdir(exist_ok=True)


def restic_at(folder: Path) -> Restic:
    return Restic(tools.newest_restic(), folder, PASSWORD, folder.parent / "cache")


def test_restic_finds_nothing_after_repairs(tmp_path: Path) -> None:
    original = plants.make()
    for seed in SEEDS:
        planted = plants.planted(original, seed)
        oracle = Oracle(original, planted.files)
        others = {name for kind, name in oracle.expected().damage if kind == "key-damaged"}
        if not oracle.opens or others or "another_shelf" in planted.name:
            continue
        write(planted.files, tmp_path / "repository")
        survivors.repair_all(store_of(tmp_path / "repository"))
        done = restic_at(tmp_path / "repository").attempt("check", "--read-data", "--no-cache")
        assert done.returncode == 0, (planted.name, done.stdout + done.stderr)
        shutil.rmtree(tmp_path / "repository")


def trees_in(folder: Path) -> set[str]:
    with Repository.open(store_of(folder), PASSWORD) as repository:
        return {one.tree for one in repository.snapshots(strict=True)}


def repaired_by_restic(folder: Path) -> set[str]:
    restic = restic_at(folder)
    restic.run("repair", "index", "--no-cache")
    restic.run("repair", "snapshots", "--forget", "--no-cache")
    return trees_in(folder)


def repaired_by_snappy(folder: Path) -> set[str]:
    store = store_of(folder)
    with Repository.open(store, PASSWORD) as repository:
        IndexRepair(repository).repair()
    with Repository.open(store, PASSWORD) as repository:
        SnapshotRepair(repository, forget=True).repair([name for name, _ in store.list(FileType.SNAPSHOT)])
    return trees_in(folder)


def lose(original: Original, number: int) -> Files:
    """All but the packs of one in three."""
    packs = [path for place, path in enumerate(sorted(original.of("data"))) if place % 3 == number]
    return {path: data for path, data in original.files.items() if path not in packs}


@pytest.mark.parametrize("number", range(3))
def test_the_same_trees_come_of_the_same_loss(tmp_path: Path, number: int) -> None:
    original = plants.make()
    for folder in ("ours", "theirs"):
        write(lose(original, number), tmp_path / folder)
    before = trees_in(tmp_path / "ours")
    ours = repaired_by_snappy(tmp_path / "ours")
    assert ours == repaired_by_restic(tmp_path / "theirs")
    assert ours != before
