"""``snappy status`` as an operator has it: one screen, and an exit code for a monitor."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.stack import Done, Shell, site_up


def status(shell: Shell, *words: object) -> Done:
    return shell.run("status", *words)


def test_the_screen_and_its_exit_code(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    job = ["backup", folder / "data", "--to", "vault", "--source", "site", "--init"]
    with site_up(folder) as up:
        shell = up.shell(tmp_path_factory.mktemp("alice"), "alice")
        assert status(shell).expect(0).out == "0 sources, no promises\n"
        shell.run("schedule", "add", "nightly", "--cron", "0 2 * * *", "--max-age", "4s", "--", *job).expect(0)
        head, row, summary = status(shell).expect(0).out.splitlines()
        assert head.split() == [
            *["SOURCE", "HOST", "TARGET", "BACKUP", "PROMISED", "STATE"],
            *["PROVEN", "FAILED", "NEXT", "PATHS"],
        ]
        assert row.split()[:7] == ["site", "-", "vault", "never", "4", "s", "never"]
        assert row.endswith(f"(nightly)  {folder / 'data'}")
        assert summary == "1 source, promises for 1, all kept"

        shell.run(*job).expect(0)
        (source,) = status(shell, "--json").expect(0).json()["sources"]
        assert (source["state"], source["is_kept"], source["known"]["paths"]) == ("fresh", True, [str(folder / "data")])
        assert source["known"]["host"]
        deadline = time.monotonic() + 30
        while (late := status(shell)).status == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert " STALE " in late.expect(13).out
        assert late.out.endswith("1 source, promises for 1, of which 1 broken\n")
        assert " STALE " in status(shell, "--stale").expect(13).out
        shell.run("schedule", "add", "nightly", "--cron", "0 2 * * *", "--replace", "--", *job).expect(0)
        assert "unpromised" in status(shell).expect(0).out
        assert status(shell, "--stale").expect(0).out == "1 source, no promises\n"


def test_without_a_server_nothing_is_followed(folder: Path) -> None:
    shell = Shell(folder)
    shell.with_password("backup", "./data", "--to", "./vault", "--init").expect(0)
    assert len(shell.run("jobs", "list", "--json").expect(0).json()) == 1
    assert status(shell).expect(0).out == "0 sources, no promises\n"
