"""What worker processes write, the real restic checks and restores."""

from __future__ import annotations

import os
import random
from pathlib import Path

import fsspec
import pytest

from snappy.repository import file_storer
from snappy.repository.archiver import Archiver
from snappy.repository.crew import Crew
from snappy.repository.format import MIB
from snappy.repository.repo import Repository
from snappy.repository.store import FileType, Store
from snappy.repository.team import Workers
from snappy.sources.files import FilesOptions, FilesSource
from tests.support import restic as peers
from tests.support.compare import compare
from tests.support.engine import CHEAP, PASSWORD
from tests.support.restic import Restic
from tests.support.worker_stores import all_are_ready


def make_tree(top: Path) -> Path:
    chance = random.Random(3)
    for number in range(600):
        folder = top / f"{number % 11}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(chance.randbytes(chance.choice((0, 10, 3000, 200_000))))
    (top / "large").write_bytes(chance.randbytes(20 * MIB) + bytes(20 * MIB))
    return top


@pytest.mark.parametrize("program", peers.PROGRAMS)
def test_restic_finds_no_fault_and_restores_it(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_storer, "FILES_FOR_WORKERS", 100)
    monkeypatch.setattr(Crew, "is_ready", all_are_ready)
    tree = make_tree(tmp_path / "tree")
    store = Store(fsspec.filesystem("file"), str(tmp_path / "repository"))
    with Repository.init(store, PASSWORD, cost=CHEAP) as repository:
        source = FilesSource(FilesOptions(paths=(str(tree),)))
        archiver = Archiver(repository, workers=Workers(most=2))
        done = archiver.backup(source.export(None), paths=source.claims(), hostname="h")
        assert done.warnings == []
        assert len(store.list(FileType.PACK)) > 2
    restic = Restic(program, tmp_path / "repository", PASSWORD, tmp_path / "cache")
    restic.run("check", "--read-data")
    restic.run("restore", "latest", "--target", str(tmp_path / "restored"))
    compared = compare(tree, tmp_path / "restored" / os.path.realpath(tree).lstrip("/"))
    assert compared.differences == [], compared.differences
