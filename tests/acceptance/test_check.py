"""``snappy check`` as a user runs it: what it says, and its exit codes."""

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
    for number in range(5):
        (tmp_path / "data" / str(number)).write_bytes(os.urandom(100_000))
    made.with_password("backup", "./data", "--to", "./repo").expect(0)
    return made


def largest_pack(shell: Shell) -> Path:
    return max((shell.folder / "repo" / "data").glob("*/*"), key=lambda path: path.stat().st_size)


def test_a_whole_repository(shell: Shell) -> None:
    said = shell.with_password("check", "--from", "./repo").expect(0)
    assert said.out.startswith("no damage in ")
    assert "read 0 packs" in said.out
    read = shell.with_password("check", "--target", "./repo", "--read-data", "--json").expect(0).json()
    assert (read["kind"], read["state"], read["result"]["findings"]) == ("check", "succeeded", [])
    assert read["result"]["packs_read"] == read["result"]["packs"] == 2
    halves = [
        shell.with_password("check", "--from", "./repo", "--read-data-subset", part, "--json").expect(0).json()
        for part in ("1/2", "2/2")
    ]
    assert sum(half["result"]["packs_read"] for half in halves) == 2


def test_damage_ends_it_with_8_and_is_named(shell: Shell) -> None:
    pack = largest_pack(shell)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    shell.with_password("check", "--from", "./repo").expect(0)
    said = shell.with_password("check", "--from", "./repo", "--read-data").expect(8)
    assert f"damage: pack-changed: pack {pack.name}: " in said.err
    assert "hint: " in said.err
    record = shell.with_password("check", "--from", "./repo", "--read-data", "--json").expect(8).json()
    assert record["error"]["code"] == "damaged"
    assert [(found["kind"], found["id"]) for found in record["result"]["findings"]] == [("pack-changed", pack.name)]
    pack.unlink()
    gone = shell.with_password("check", "--from", "./repo").expect(8)
    assert f"damage: pack-missing: pack {pack.name}: " in gone.err


def test_what_an_unfinished_backup_left_is_a_hint(shell: Shell) -> None:
    index = next((shell.folder / "repo" / "index").iterdir())
    snapshot = next((shell.folder / "repo" / "snapshots").iterdir())
    index.unlink()
    snapshot.unlink()
    said = shell.with_password("check", "--from", "./repo", "--read-data").expect(0)
    assert said.err.count("hint: pack-unlisted: ") == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--read-data", "--read-data-subset", "1/7"], 2),
        (["--read-data-subset", "8/7"], 4),
        (["--read-data-subset", "some"], 4),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, words: list[str], status: int) -> None:
    Shell(tmp_path).with_password("check", "--from", "./repo", *words).expect(status)


def test_where_there_is_none(shell: Shell) -> None:
    shell.with_password("check", "--from", "./elsewhere").expect(10)
    shell.password_file.write_text("wrong")
    shell.with_password("check", "--from", "./repo").expect(12)
