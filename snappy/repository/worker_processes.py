"""The processes of a job's workers. One is started, and makes the others like itself: they share what it loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from socket import socket

import msgspec

from snappy.repository.link import Setup

PROGRAM = [sys.executable, "-P", "-m", "snappy.repository.worker_process"]
END_SECONDS = 1.0
"""How long the first process may take to end when the others have ended."""


class WorkerProcesses:
    """They work for who holds the other ends of the sockets ``ends``, one each, and are a process group of their own.

    Raises ``OSError`` when no process can be started.
    """

    def __init__(self, setup: Setup, ends: Sequence[socket]) -> None:
        numbers = [end.fileno() for end in ends]
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._first = subprocess.Popen(
            [*PROGRAM, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
            pass_fds=numbers,
            process_group=0,
        )
        assert self._first.stdin is not None
        with suppress(BrokenPipeError), self._first.stdin as pipe:
            pipe.write(msgspec.msgpack.encode(setup))

    def status_of_first(self) -> int | None:
        """The status with which the first process has ended or soon does; None when it goes on."""
        try:
            return self._first.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End all that are left. To be called only while one of them is known to be there: the number of a group that
        is gone may be another's."""
        with suppress(ProcessLookupError):
            os.killpg(self._first.pid, signal.SIGKILL)

    def leave(self) -> None:
        """Return when the first process has ended, and so have the others unless it was killed."""
        if self.status_of_first() is None:
            self.kill()
            self._first.wait()
