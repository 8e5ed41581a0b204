"""``snappy repair`` as a user runs it: after damage, until a check is content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.stack import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.found("repo")
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / str(number)).write_bytes(os.urandom(100_000))
    made.with_password("backup", "./data", "--to", "./repo").expect(0)
    return made


def test_from_damage_to_a_repository_without(shell: Shell) -> None:
    pack = max((shell.folder / "repo" / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    would = shell.with_password("repair", "packs", "--from", "./repo", "--dry-run").expect(0)
    assert would.out.startswith("would repair ")
    assert pack.exists()
    packs = shell.with_password("repair", "packs", pack.name, "--target", "./repo", "--json").expect(0).json()
    assert packs["result"]["repair"] == {
        "what": "packs",
        "dry_run": False,
        "written": 1,
        "removed": 2,
    }
    assert [found["kind"] for found in packs["result"]["findings"]] == ["blob-lost"]
    assert not pack.exists()
    snapshots = shell.with_password("repair", "snapshots", "--from", "./repo", "--forget").expect(3)
    assert "new snapshots: 1; files removed: 1" in snapshots.out
    assert snapshots.err.count("blobs that are lost: 1") == 1
    shell.with_password("check", "--from", "./repo", "--read-data").expect(0)
    index = shell.with_password("repair", "index", "--from", "./repo", "--read-all-packs").expect(0)
    assert index.out.startswith("nothing to repair in ")
    restored = shell.folder / "restored"
    shell.with_password("restore", "latest", "--from", "./repo", "--to", str(restored)).expect(0)
    files = [path for path in restored.rglob("*") if path.is_file()]
    whole = [path for path in files if path.read_bytes() == (shell.folder / "data" / path.name).read_bytes()]
    assert (len(files), len(whole)) == (3, 2)
