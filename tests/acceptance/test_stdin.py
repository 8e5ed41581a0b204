"""`snappy backup --stdin` and `--stdin-from-command`, as a user runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.stack import PROGRAM, Shell

MIB = 1 << 20


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def piped(shell: Shell, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [PROGRAM, "backup", "--to", "./repo", "--init", "--password-file", str(shell.password_file), *arguments]
    return subprocess.run(
        command, input=data, cwd=shell.folder, env=shell.environment(), capture_output=True, timeout=90, check=False
    )


def test_standard_input_becomes_a_file_of_that_name(shell: Shell) -> None:
    data = os.urandom(5 * MIB)
    assert piped(shell, data, "--stdin", "--stdin-filename", "dumps/all.sql").returncode == 0
    shell.with_password("restore", "latest", "--from", "./repo", "--to", "./back").expect(0)
    assert (shell.folder / "back" / "dumps" / "all.sql").read_bytes() == data
    (snapshot,) = shell.with_password("snapshots", "--from", "./repo", "--json").expect(0).json()
    assert snapshot["paths"] == ["/dumps/all.sql"]
    refused = shell.with_password("restore", "latest", "--from", "./repo", "--plugin", "stdin").expect(4)
    assert "snappy dump" in refused.err


def test_what_a_command_writes_is_kept_only_if_it_ends_well(shell: Shell) -> None:
    script = "echo whole; echo 'ran out of tape' >&2; exit $0"
    made = ["backup", "--to", "./repo", "--init", "--password-file", shell.password_file]
    arguments = [*made, "--stdin-from-command", "--", "sh", "-c", script]
    failed = shell.run(*arguments, 3)
    assert (failed.status, "ended with code 3: ran out of tape" in failed.err) == (1, True)
    assert shell.with_password("snapshots", "--from", "./repo", "--json").expect(0).json() == []
    shell.run(*arguments, 0).expect(0)
    assert shell.with_password("dump", "latest", "/stdin", "--from", "./repo").expect(0).out == "whole\n"
