"""``snappy`` whose source service does nothing, and writes down when.

    python -m tests.support.null_source source run site1 ...

Claim, hold, attempt and reports are Snappy's own; the work is a short wait, and no repository is opened. Each attempt
leaves a line in the file ``journal`` of its home folder: job, attempt, when it began and ended (monotonic seconds of
the whole machine).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from snappy.cli.main import main
from snappy.jobs.messages import Result
from snappy.repository.progress import Progress
from snappy.sources.hold import Hold
from snappy.sources.service import SourceService

PROGRAM = [sys.executable, "-m", "tests.support.null_source"]
JOURNAL = "journal"
LONGEST_SECONDS = 0.5
AT_ONCE = "4"


class Line(NamedTuple):
    """One attempt that came to its end."""

    job: str
    attempt: int
    began: float
    ended: float


async def do_nothing(service: SourceService, hold: Hold, progress: Progress) -> Result:
    """In the place of what :class:`SourceService` does under a hold."""
    began = time.monotonic()
    await asyncio.sleep(random.uniform(0.0, LONGEST_SECONDS))
    write(Line(hold.job.id, hold.attempt, began, time.monotonic()))
    return Result(snapshot=f"{hold.job.id}-{hold.attempt}")


def write(line: Line) -> None:
    """In one piece, whoever else writes."""
    file = os.open(Path.home() / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (" ".join(map(str, line)) + "\n").encode())
    finally:
        os.close(file)


def read(home: Path) -> list[Line]:
    """What was written so far, by job and time."""
    path = home / JOURNAL
    words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return sorted(Line(job, int(number), float(began), float(ended)) for job, number, began, ended in words)


def overlapping(lines: Iterable[Line]) -> list[tuple[Line, Line]]:
    """Attempts at one job of which the next began before the last ended."""
    found, last = [], dict[str, Line]()
    for line in sorted(lines, key=lambda line: (line.job, line.began)):
        before = last.get(line.job)
        if before and line.began < before.ended:
            found.append((before, line))
        last[line.job] = line
    return found


if __name__ == "__main__":
    os.environ["SNAPPY_SOURCE__SITE1__CONCURRENT_JOBS"] = AT_ONCE
    SourceService._work = do_nothing  # type: ignore[assignment, method-assign]
    sys.exit(main())
