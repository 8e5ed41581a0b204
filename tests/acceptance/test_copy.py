"""``snappy copy`` as a user runs it: from one place to another, each with a password of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stack import Shell, secret


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"what is in it")
    secret(tmp_path / "other", "another password")
    made.with_password("backup", "./data", "--to", "./repo", "--init").expect(0)
    made.run("init", "--to", "./second", "--password-file", "other").expect(0)
    return made


def test_what_was_copied_is_restored(shell: Shell, tmp_path: Path) -> None:
    words = ("copy", "--from", "./repo", "--from-password-file", shell.password_file, "--to", "./second")
    first = shell.run(*words, "--password-file", "other").expect(0)
    assert first.out.startswith("copied 1 snapshots, 0 were there")
    again = shell.run(*words, "--password-file", "other", "--json").expect(0).json()
    assert (again["result"]["snapshots"], again["result"].get("copied", 0)) == (1, 0)
    shell.run("restore", "latest", "--from", "./second", "--to", "./back", "--password-file", "other").expect(0)
    assert [path.read_bytes() for path in (tmp_path / "back").rglob("file")] == [b"what is in it"]
    shell.run(*words, "--password-file", shell.password_file).expect(12)
    shell.run("copy", "--from", "vault", "--to", "./second", "--password-file", "other").expect(2)
