"""Keys beside the real restic: each opens, lists and removes what the other made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snappy.repository.repo import Repository
from tests.support.engine import CHEAP
from tests.support.littered import store_of
from tests.support.restic import Restic
from tests.support.stack import Shell, secret


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    Repository.init(store_of(tmp_path / "repo"), made.password, cost=CHEAP).close()
    return made


def restic_of(shell: Shell, program: str, password: str) -> Restic:
    return Restic(program, shell.folder / "repo", password, shell.folder / "cache")


def test_there_and_back_again(shell: Shell, restic_program: str) -> None:
    new = secret(shell.folder / "new", "second\n")
    first = restic_of(shell, restic_program, shell.password)
    second = restic_of(shell, restic_program, "second")
    again = ("--from", "./repo", "--password-file", new)
    added = shell.with_password(
        "key", "add", "--from", "./repo", "--new-password-file", new, "--user", "joe", "--host", "moon", "--json"
    ).expect(0)
    key = added.json()["result"]["keys"]["added"]
    listed = second.json("key", "list")
    assert {(each["userName"], each["hostName"]) for each in listed if each["current"]} == {("joe", "moon")}
    shown = shell.run("key", "list", *again, "--json").expect(0).json()
    assert sorted(shown, key=lambda each: str(each["id"])) == sorted(
        ({**each, "id": next(one["id"] for one in shown if one["id"].startswith(each["id"]))} for each in listed),
        key=lambda each: str(each["id"]),
    )
    old = next(each["id"] for each in shown if each["id"] != key)
    shell.run("key", "remove", old[:8], *again).expect(0)
    assert first.attempt("snapshots").returncode != 0
    second.run("key", "add", "--new-password-file", secret(shell.folder / "third", "third"))
    changed = shell.run("key", "change", *again, "--new-password-file", shell.password_file).expect(0)
    assert "added the key" in changed.out
    assert f"removed the key {key[:8]}" in changed.out
    assert second.attempt("snapshots").returncode != 0
    restic_of(shell, restic_program, "third").check()
    assert len(json.loads(first.run("key", "list", "--json"))) == 2
