"""``snappy drill`` and ``snappy drills`` as a user runs them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.stack import Shell, site_and_vault, site_folder, snappy_up

FILES = 20
LARGE = 1 << 30


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    made.found("repo")
    (tmp_path / "data").mkdir()
    for number in range(FILES):
        (tmp_path / "data" / str(number)).write_bytes(os.urandom(20_000))
    made.with_password("backup", "./data", "--to", "./repo").expect(0)
    return made


def left(shell: Shell) -> list[Path]:
    return [path for path in (shell.state_dir / "work" / "drill").iterdir() if path.name != ".lock"]


def test_what_is_whole_is_proven_and_damage_is_named(shell: Shell) -> None:
    said = shell.with_password("drill", "--target", "./repo").expect(0)
    assert said.out.startswith("proved snapshot ")
    assert f"all of it: {FILES} files" in said.out
    assert "restored in " in said.out
    some = shell.with_password("drill", "latest", "--from", "./repo", "--sample", "30%", "--seed", "4", "--json")
    result = some.expect(0).json()["result"]
    assert (result["files"], result["drill"]["sample"], result["drill"]["seed"]) == (6, "30%", 4)
    assert 0 < result["drill"]["recovery"] < result["seconds"]
    assert left(shell) == []
    shell.with_password("drill", "--target", "./repo", "--sample", "1/7").expect(4)
    pack = max((shell.folder / "repo" / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    said = shell.with_password("drill", "--target", "./repo").expect(8)
    assert "damage: blob-damaged: blob " in said.err
    assert f"not proven: {shell.folder}/data/" in said.err
    assert pack.name in said.err
    assert "snappy: 1 objects of snapshot " in said.err
    assert left(shell) == []


def test_programs_and_what_was_proven_when(tmp_path: Path) -> None:
    configuration = site_and_vault(site_folder(tmp_path)) + (
        '[source.site.drills.look]\ncommand = ["/bin/sh", "-c", "grep -rq content ."]\n'
        '[source.site.drills.refuse]\ncommand = ["/bin/sh", "-c", "echo torn >&2; exit 7"]\n'
    )
    (tmp_path / "alice").mkdir()
    with snappy_up(tmp_path, configuration, ["site", "vault"]) as up:
        alice = up.shell(tmp_path / "alice", "alice")
        alice.run("backup", tmp_path / "data", "--to", "vault", "--init").expect(0)
        assert alice.run("drills").expect(0).out.splitlines()[1].split()[3:5] == ["never", "unproven"]
        assert "look was content" in alice.run("drill", "--target", "vault", "--program", "look").expect(0).out
        refused = alice.run("drill", "--target", "vault", "--program", "refuse").expect(1)
        assert "ended with code 7: torn" in refused.err
        (row,) = alice.run("drills", "--json").expect(0).json()
        lines = alice.run("drills").expect(0).out.splitlines()
        alice.run(
            "schedule", "add", "proof", "--every", "7d", "--max-age", "14d", "--", "drill", "--target", "vault"
        ).expect(0)
        assert alice.run("status", "--json").expect(0).json()["sources"][0]["max_drill_age"] == 14 * 86400
    assert (row["known"]["drill"]["files"], row["drill_state"]) == (1, "proven")
    assert lines[0].split()[:6] == ["SOURCE", "HOST", "TARGET", "PROVEN", "STATE", "TOOK"]
    assert "proven" in lines[1]
    assert "program-failed" in lines[1]


@pytest.mark.long
def test_the_recovery_time_is_what_a_restore_takes(shell: Shell, tmp_path: Path) -> None:
    """Of a gigabyte, beside the wall time of the command: that starts a server, too."""
    with (tmp_path / "data" / "large").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    shell.with_password("backup", "./data", "--to", "./repo").expect(0)
    began = time.monotonic()
    restored = shell.with_password("restore", "latest", "--from", "./repo", "--to", "./back", "--json").expect(0).json()
    wall = time.monotonic() - began
    drilled = shell.with_password("drill", "--target", "./repo", "--json").expect(0).json()["result"]
    assert drilled["bytes_processed"] == restored["result"]["bytes_processed"] == LARGE + FILES * 20_000
    recovery = drilled["drill"]["recovery"]
    print(f"recovery {recovery:.2f} s, restore {restored['result']['seconds']:.2f} s, its command {wall:.2f} s")
    assert restored["result"]["seconds"] / 2 < recovery < 2 * wall
    assert left(shell) == []
