"""Runs a program on what a drill restored. It decides, by its exit code, whether what is there is of use."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from snappy.config import DrillProgram
from snappy.repository.progress import Cancelled
from snappy.sources.programs import Program


def run(program: DrillProgram, folder: Path, told: Mapping[str, str], cancelled: Cancelled) -> float:
    """Run it in ``folder``, with ``told`` in its environment; how many seconds it took. What it leaves running is
    ended. Raises ProgramMissing, ProgramFailed and what ``cancelled`` raises."""
    began = time.monotonic()
    running = Program([*program.command, str(folder)], environment=told, stdout=subprocess.DEVNULL, folder=str(folder))
    try:
        running.watch(program.seconds, cancelled)
    finally:
        _kill_all(running)
    running.wait()
    return time.monotonic() - began


def _kill_all(running: Program) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
