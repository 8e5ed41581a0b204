from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import tools

NEVER = tools.Need("restic", lambda: None, "install it")
NOT_HERE = tools.Need("loop", lambda: None, "", "run elsewhere")

SUITE = """
import pytest
@pytest.mark.restic
def test_wants_restic(): pass
def test_wants_nothing(): pass
"""

CONFTEST = """
from tests.support import tools
tools.absent = lambda: {"restic": tools.Need("restic", lambda: None, "install it")}
from tests.conftest import *
"""


def test_only_what_is_not_found_is_absent() -> None:
    assert tools.absent([NEVER, NOT_HERE._replace(found=lambda: True)]) == {"restic": NEVER}


def test_a_line_says_what_to_do() -> None:
    lacking = {"restic": NEVER, "loop": NOT_HERE}
    assert tools.report(Counter(restic=2, loop=1), lacking) == [
        "left out for want of loop: 1 tests; run elsewhere",
        "left out for want of restic: 2 tests; install it",
    ]
    assert tools.installable(lacking) == ["there is no restic: install it"]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "tests" / "unit"
    folder.mkdir(parents=True)
    (folder / "test_wants.py").write_text(SUITE)
    (folder.parent / "conftest.py").write_text(CONFTEST)
    return tmp_path


def run(suite: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(suite), "-c", "/dev/null"]
    command += ["-W", "ignore::pytest.PytestUnknownMarkWarning", str(suite / "tests"), *options]
    settings = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tools.ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=settings)


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_a_suite_runs_without_what_is_absent(suite: Path, options: list[str]) -> None:
    done = run(suite, *options)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert "left out for want of restic: 1 tests; install it" in done.stdout


@pytest.mark.parametrize("options", [[], ["-n", "2"]])
def test_in_ci_leaving_out_is_an_error(suite: Path, options: list[str]) -> None:
    done = run(suite, *options, SNAPPY_CI="1")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "install it" in done.stdout + done.stderr
