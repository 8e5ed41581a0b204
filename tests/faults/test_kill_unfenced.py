"""The soak must notice a build whose fences are down: two workers then write for one job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.restic
@pytest.mark.timeout(400)
def test_a_build_without_fences_ends_red(tmp_path: Path) -> None:
    chosen = [
        "--minutes",
        "1",
        "--seed",
        "5",
        "--only",
        "stop source",
        "--broken",
        "fencing",
        "--folder",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", *chosen], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("red\n")
    assert "Done or told twice: 0" not in done.stdout
