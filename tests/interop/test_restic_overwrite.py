"""Restores over what is there already: Snappy's words mean what restic's do."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest

from snappy.repository.store import Store
from tests.support import engine, tools
from tests.support.backups import back_up, bring_back, inside
from tests.support.compare import compare
from tests.support.restic import Restic

pytestmark = pytest.mark.restic_newest  # older ones have no such words
SECOND = 1_000_000_000
NAMES = ("same", "content", "larger", "smaller", "newer", "older", "folder", "link", "linked")


def make(tree: Path) -> None:
    tree.mkdir()
    for name in NAMES:
        (tree / name).write_bytes(b"content of " + name.encode())
        os.utime(tree / name, ns=(1000 * SECOND, 1000 * SECOND))
    os.link(tree / "linked", tree / "twin")


UNLINKED = "twin: hard link of b'linked' and of b'twin'"
"""restic links a name that is missing to one that it left as it was, whatever that holds; Snappy writes the file."""


def disturb(place: Path) -> None:
    """Each file in the way that its name says."""
    (place / "content").write_bytes(b"CONTENT OF content")
    (place / "larger").write_bytes(b"content of larger, and more")
    (place / "smaller").write_bytes(b"content")
    (place / "newer").write_bytes(b"something newer")
    (place / "older").write_bytes(b"something older")
    for name, second in (("content", 1000), ("larger", 1000), ("smaller", 1000), ("newer", 1001), ("older", 999)):
        os.utime(place / name, ns=(second * SECOND, second * SECOND))
    for name in ("folder", "link", "twin"):
        (place / name).unlink()
    (place / "folder").mkdir()
    (place / "link").symlink_to("/nowhere")
    (place / "added").write_bytes(b"of nobody's")
    for name in ("folder", "link", "added"):
        os.utime(place / name, ns=(1001 * SECOND, 1001 * SECOND), follow_symlinks=False)


@pytest.mark.parametrize("overwrite", ["always", "if-changed", "if-newer", "never"])
def test_both_leave_the_same(tmp_path: Path, overwrite: str) -> None:
    make(tmp_path / "tree")
    restic = Restic(str(tools.newest_restic()), tmp_path / "repo", engine.PASSWORD, tmp_path / "cache")
    places = tmp_path / "by restic", tmp_path / "by snappy"
    store = Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "repo"))
    with engine.new_repository(store) as repository:
        snapshot = back_up(repository, tmp_path / "tree").snapshot
        for place in places:
            bring_back(repository, snapshot, place)
            disturb(inside(place, tmp_path / "tree"))
        restic.run("restore", "latest", "--target", places[0], "--overwrite", overwrite)
        result = bring_back(repository, snapshot, places[1], overwrite=overwrite)
    assert result.failure() is None
    found = compare(*(inside(place, tmp_path / "tree") for place in places))
    assert found.differences == ([UNLINKED] if overwrite in ("if-newer", "never") else [])
