"""A directory of a snapshot as an archive: what comes out of a tar is what went into the backup."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from snappy.browse import archives
from snappy.repository.entries import Node
from snappy.repository.paths import ROOT
from snappy.repository.progress import Problems
from snappy.repository.repo import Repository
from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk
from snappy.repository.view import View
from tests.support import engine
from tests.support.backups import back_up
from tests.support.compare import compare
from tests.support.odd_tree import make_odd_tree


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


def entries(view: View) -> Iterator[tuple[bytes, Node]]:
    walk = SnapshotWalk(view.indexed(), Selection(), Problems())
    snapshot = view.tree("latest").snapshot
    return ((step.path, step.node) for step in walk.steps(snapshot, ROOT) if step.kind is not Kind.LEAVE)


def test_tar_unpacks_to_the_tree_that_was_backed_up(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FETCHED_ENTRIES", 5)
    tree = tmp_path / "tree"
    make_odd_tree(tree)
    back_up(repository, tree)
    view = View(engine.reopened(repository))
    with (tmp_path / "tar").open("wb") as out:
        archives.write_tar(view, entries(view), out)
    (tmp_path / "out").mkdir()
    keep = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    subprocess.run(["tar", *keep, "-xpf", tmp_path / "tar", "-C", tmp_path / "out"], check=True)
    found = compare(tree, tmp_path / "out" / os.path.realpath(tree).lstrip("/"))
    assert found.same, found.differences
    assert found.files > 20


def test_a_file_may_grow_beyond_what_small_zips_hold(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(100_000)
    (tmp_path / "file").write_bytes(content)
    back_up(repository, tmp_path / "file")
    view, archive = View(engine.reopened(repository)), io.BytesIO()
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", len(content) + 1)
    archives.write_zip(view, entries(view), archive)
    with zipfile.ZipFile(archive) as unzipped:
        assert unzipped.read(unzipped.namelist()[-1]) == content


def test_what_an_archive_cannot_hold_is_left_out(repository: Repository) -> None:
    nodes = [Node(name=b"socket", type="socket"), Node(name=b"\xff", type="fifo"), Node(name=b"old", type="dir")]
    archive = io.BytesIO()
    archives.write_tar(View(repository), [(b"/" + node.name, node) for node in nodes], archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as opened:
        assert opened.getnames() == ["\udcff", "old"]
    archive = io.BytesIO()
    archives.write_zip(View(repository), [(b"/" + node.name, node) for node in nodes], archive)
    with zipfile.ZipFile(archive) as unzipped:
        assert unzipped.namelist() == ["old/"]
        assert unzipped.getinfo("old/").date_time == (1980, 1, 1, 0, 0, 0)
