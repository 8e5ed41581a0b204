"""How far a job is, on standard error: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from snappy.cli import output

if TYPE_CHECKING:
    from snappy.jobs.messages import Progress

PLAIN_SECONDS = 10.0


class Display(Protocol):
    """Something that shows the progress of one job."""

    def show(self, progress: Progress) -> None: ...

    def close(self) -> None: ...


def choose(*, quiet: bool) -> Display:
    """The display for this process's standard error."""
    if quiet:
        return Nothing()
    return Bar() if sys.stderr.isatty() else Lines()


class Nothing:
    """Shows nothing."""

    def show(self, progress: Progress) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """A plain line, at most one every :data:`PLAIN_SECONDS`; ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def show(self, progress: Progress) -> None:
        if progress.files and self._clock() - self._last >= PLAIN_SECONDS:
            self._last = self._clock()
            output.note(line(progress))

    def close(self) -> None:
        """Nothing is held."""


class Bar:
    """A bar with counts, rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (BarColumn(bar_width=30), TaskProgressColumn(), TextColumn("{task.fields[text]}", markup=False))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=None, text="waiting for a worker")
        self._progress.start()

    def show(self, progress: Progress) -> None:
        total = progress.bytes_total or None
        self._progress.update(self._task, total=total, completed=progress.bytes, text=line(progress))

    def close(self) -> None:
        self._progress.stop()


def line(progress: Progress) -> str:
    """Progress in one line: files, bytes, rate and time left as far as they are known."""
    files = f"{progress.files}/{progress.files_total}" if progress.files_total else f"{progress.files}"
    done = output.size(progress.bytes)
    known = [
        f"{files} files",
        f"{done} of {output.size(progress.bytes_total)}" if progress.bytes_total else done,
        f"{output.size(progress.rate)}/s",
    ]
    if progress.remaining is not None:
        known.append(f"{output.duration(progress.remaining)} left")
    return ", ".join(known)
