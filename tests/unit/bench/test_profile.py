from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.meter import Run
from bench.profile import PY_SPY, RATE, read_stacks, recording, told

STACKS = [
    "thread (1): MainThread;run (snappy/a.py:3);work (snappy/a.py:9) 100",
    "thread (1): MainThread;run (snappy/a.py:3);work (snappy/a.py:10) 50",
    "thread (2): read_0;run (snappy/a.py:3);wait (threading.py:320) 50",
]


def test_shares_are_of_the_wall_time() -> None:
    stacks = read_stacks([*STACKS, STACKS[0]])
    assert sum(stacks.values()) == 300
    run = Run(2.0, 1.0, 0, {"source": {"cpu": 1.25, "pss": 0}})
    lines = told("source", stacks, run, 2).splitlines()
    assert 2.0 * RATE == 400
    assert lines[0] == "source: 75% of a core by samples, CPU 1.25 s"
    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["62.5%", "thread (1): MainThread"],
        ["12.5%", "thread (2): read_0"],
        ["62.5%", "work (snappy/a.py)"],
        ["12.5%", "wait (threading.py) < run (snappy/a.py)"],
    ]


@pytest.mark.skipif(not PY_SPY or os.geteuid() != 0, reason="py-spy is not installed, or may not look into others")
def test_a_busy_function_is_seen(tmp_path: Path) -> None:
    code = "print(flush=True)\ndef spin():\n    while True: pass\nspin()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            with recording({"spinner": process.pid}, tmp_path) as stacks:
                subprocess.run([sys.executable, "-c", "import time; time.sleep(1.5)"], check=True)
        finally:
            process.kill()
    assert any("spin" in stack for stack in stacks["spinner"])
