"""The real restic as a test's opponent: Debian's, and the newest to be had."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import tools

PROGRAMS = (
    pytest.param(tools.restic(), marks=pytest.mark.restic, id="restic"),
    pytest.param(tools.newest_restic(), marks=pytest.mark.restic_newest, id="newest"),
)
"""For ``parametrize`` and fixtures: a test is left out where its program is absent."""

COMPLAINTS = (
    "warning",
    "duplicate",
    "mixed",
    "unused",
    "not referenced",
    "additional files",
    "several indexes",
    "different data",
)
"""What none of the two may say of a repository that is in order; some of it leaves the exit code at 0."""


class Restic:
    """Runs one restic program against one repository, with a cache of its own.

    A result is the program's standard output; what fails raises :class:`AssertionError` with all it said.
    """

    def __init__(self, program: str, repository: str | Path, password: str, cache: Path, **environment: str) -> None:
        cache.mkdir(exist_ok=True)  # not above what is backed up: restic leaves its own cache out
        self.program = program
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(cache),
            "TMPDIR": str(cache),
            "RESTIC_REPOSITORY": str(repository),
            "RESTIC_PASSWORD": password,
            "RESTIC_CACHE_DIR": str(cache),
            **environment,
        }

    def attempt(self, *arguments: str | Path, cwd: str | Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run it whatever comes of it."""
        command = [self.program, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, timeout=600, check=False)

    def run(self, *arguments: str | Path, cwd: str | Path | None = None) -> bytes:
        """Run it; it must succeed."""
        done = self.attempt(*arguments, cwd=cwd)
        said = (done.stdout + done.stderr).decode(errors="backslashreplace")
        assert done.returncode == 0, f"restic {arguments} ended with {done.returncode}:\n{said}"
        return done.stdout

    def json(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Run it with ``--json``: the documents it printed, one for each line."""
        lines = self.run(*arguments, "--json").splitlines()
        documents = [json.loads(line) for line in lines if line.strip()]
        return documents[0] if len(documents) == 1 and isinstance(documents[0], list) else documents

    def check(self) -> None:
        """``check --read-data`` must pass without a word of complaint."""
        done = self.attempt("check", "--read-data")
        said = (done.stdout + done.stderr).decode(errors="backslashreplace").lower()
        assert done.returncode == 0, said
        assert "no errors were found" in said
        for complaint in COMPLAINTS:
            assert complaint not in said, said
