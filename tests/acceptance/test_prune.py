"""``snappy prune`` and ``snappy forget --prune`` as a user runs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.stack import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Two snapshots, of one file of noise each."""
    made = Shell(tmp_path)
    made.found("repo")
    (tmp_path / "data").mkdir()
    for _ in range(2):
        (tmp_path / "data" / "noise").write_bytes(os.urandom(100_000))
        made.with_password("backup", "./data", "--to", "./repo").expect(0)
    return made


def packs(shell: Shell) -> int:
    return len(list((shell.folder / "repo" / "data").glob("*/*")))


def test_forget_and_prune(shell: Shell) -> None:
    before = packs(shell)
    planned = shell.with_password("forget", "--from", "./repo", "--keep-last", "1", "--prune", "--dry-run").expect(0)
    assert "to delete: 2 of 4 packs, " in planned.out
    shell.with_password("forget", "--from", "./repo", "--keep-last", "1").expect(0)
    assert packs(shell) == before
    done = shell.with_password("prune", "--target", "./repo", "--max-unused", "0", "--json").expect(0).json()
    assert (done["kind"], done["state"], done["result"]["prune"]["packs_deleted"]) == ("prune", "succeeded", 2)
    assert packs(shell) == before - 2
    again = shell.with_password("prune", "--from", "./repo").expect(0)
    assert "to delete: 0 of 2 packs, " in again.out
    shell.with_password("check", "--from", "./repo", "--read-data").expect(0)


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.with_password("prune", "--from", "./nowhere", "--max-unused", "some").expect(4)
    shell.with_password("prune", "--from", "./nowhere").expect(10)
