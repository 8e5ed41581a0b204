"""Trees of every odd kind cross between Snappy and restic, both ways, and nothing of them changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from snappy.repository.archiver import find_parent
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import engine
from tests.support.backups import HOST, back_up, bring_back, inside
from tests.support.compare import compare
from tests.support.odd_tree import make_odd_tree
from tests.support.restic import Restic

OpenRestic = Callable[[], Restic]


KNOWS_ODD_TARGETS = (0, 16)
"""Older ones replace bytes of a link's target that are not UTF-8 (https://github.com/restic/restic/issues/3311)."""


@pytest.fixture
def tree(tmp_path: Path, restic: Restic) -> Path:
    make_odd_tree(tmp_path / "tree")
    version = restic.run("version").split()[1].decode().split("-")[0]
    if tuple(map(int, version.split("."))) < KNOWS_ODD_TARGETS:
        (tmp_path / "tree" / "odd target").unlink()
    return tmp_path / "tree"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "repo"))


@pytest.fixture
def restic(restic_program: str, tmp_path: Path) -> Restic:
    return Restic(restic_program, tmp_path / "repo", engine.PASSWORD, tmp_path / "cache")


def opened(store: Store) -> Repository:
    repository = Repository.open(store, engine.PASSWORD)
    repository.load_index()
    return repository


def assert_same(tree: Path, restored: Path) -> None:
    found = compare(tree, restored)
    assert found.same, found.differences
    assert found.files > 20


def test_restic_restores_what_snappy_backed_up(tree: Path, store: Store, restic: Restic, tmp_path: Path) -> None:
    with engine.new_repository(store) as repository:
        result = back_up(repository, tree)
    assert not result.warnings
    restic.check()
    restic.run("restore", "latest", "--target", tmp_path / "out")
    assert_same(tree, inside(tmp_path / "out", tree))


def test_snappy_restores_what_restic_backed_up(tree: Path, store: Store, restic: Restic, tmp_path: Path) -> None:
    restic.run("init")
    restic.run("backup", tree)
    with opened(store) as repository:
        result = bring_back(repository, repository.find_snapshot("latest"), tmp_path / "out")
    assert not result.errors
    assert not result.warnings
    assert_same(tree, inside(tmp_path / "out", tree))


def test_both_list_the_same(tree: Path, store: Store, restic: Restic) -> None:
    with engine.new_repository(store) as repository:
        ours = back_up(repository, tree).snapshot.id
    restic.run("backup", "--force", tree)
    theirs = next(one["id"] for one in restic.json("snapshots") if one["id"] != ours)
    found = listed(restic, ours, tree)
    assert len(found) > 30
    assert found == listed(restic, theirs, tree)


def listed(restic: Restic, snapshot: str, tree: Path) -> list[dict[str, object]]:
    """What restic says of the nodes from ``tree`` down; others may write in the directories above meanwhile."""
    nodes = (line for line in restic.json("ls", snapshot) if line.get("struct_type") == "node")
    return [node for node in nodes if str(node["path"]).startswith(str(tree))]


def test_snappy_continues_where_restic_left_off(tree: Path, store: Store, restic: Restic) -> None:
    restic.run("init")
    restic.run("backup", "--host", HOST, tree)
    (tree / "new").write_bytes(b"new")
    with opened(store) as repository:
        parent = find_parent(repository, hostname=HOST, paths=[str(tree)])
        result = back_up(repository, tree, parent=parent)
    assert (result.bytes_read, result.summary.files_new, result.summary.files_changed) == (3, 1, 0)
    restic.check()


def test_restic_continues_where_snappy_left_off(tree: Path, store: Store, restic: Restic) -> None:
    with engine.new_repository(store) as repository:
        ours = back_up(repository, tree).snapshot
    (tree / "new").write_bytes(b"new")
    done = restic.json("backup", "--host", HOST, tree)[-1]
    assert done["message_type"] == "summary"
    assert (done["files_new"], done["files_changed"]) == (1, 0)
    assert done["files_unmodified"] == ours.summary.total_files_processed if ours.summary else None
    restic.check()
