"""A command line that follows a job, and what becomes of it."""

from __future__ import annotations

import asyncio
import time

from tests.support.faults import ASK_SECONDS, Arena
from tests.support.monitors import newest

NAME = "snappy-cli"
FIRST_QUESTION_SECONDS = 0.5
"""One that has just connected asks a core, and is right to give up where there is none."""
END_SECONDS = 120.0


class Client:
    """A command line that submitted the job and follows it; ``snappy jobs watch`` where the first one died."""

    def __init__(self, site: Arena, *command: str) -> None:
        self._site = site
        self._process = site.run_client(*command)

    async def watch(self, job: str) -> None:
        """Follow the job with another command line, as who lost the first would; until it does."""
        server, deadline = self._site.server.server, time.monotonic() + END_SECONDS
        before = newest(server, NAME)
        self._process = self._site.run_client("jobs", "watch", job)
        while self._process.poll() is None and newest(server, NAME) <= before:
            assert time.monotonic() < deadline, "the command line does not connect"
            await asyncio.sleep(ASK_SECONDS)
        await asyncio.sleep(FIRST_QUESTION_SECONDS)

    def kill(self) -> None:
        assert self._process.poll() is None, "the command line was over already"
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, soon after the job's end."""
        return await asyncio.to_thread(self._process.wait, END_SECONDS)
