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
from snappy.errors import ProgramFailed
from snappy.repository.progress import Cancelled
from snappy.sources.programs import Program

LOOK_SECONDS = 0.1


def run(program: DrillProgram, folder: Path, told: Mapping[str, str], cancelled: Cancelled) -> float:
    """Run it in ``folder``, with ``told`` in its environment; how many seconds it took. What it leaves running is
    ended. Raises :class:`snappy.errors.ProgramMissing`, :class:`ProgramFailed` and what ``cancelled`` raises."""
    began = time.monotonic()
    running = Program([*program.command, str(folder)], environment=told, stdout=subprocess.DEVNULL, folder=str(folder))
    try:
        while not _is_over(running):
            cancelled()
            if time.monotonic() - began > program.seconds:
                words = running.last_words()
                raise ProgramFailed(f"{running.name} did not end within {program.seconds:g} seconds{words}")
            time.sleep(LOOK_SECONDS)
    finally:
        _kill_all(running)
    running.wait()
    return time.monotonic() - began


def _is_over(running: Program) -> bool:
    """Without letting its id go, by which what it started is known too."""
    return os.waitid(os.P_PID, running.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_all(running: Program) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
