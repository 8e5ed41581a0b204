"""``snappy`` with its fences down, to see that the soak notices.

    python -m bench.unfenced source run site1 ...

Three fences keep an attempt that was replaced from writing: its worker waits while it has no valid grant, it stops
when the core says that the attempt is over, and the target refuses what comes under a grant that ran out. Here none
of them stands.
"""

from __future__ import annotations

import os
import sys

from snappy.cli.main import main
from snappy.errors import AttemptOver, SnappyError
from snappy.sources.hold import Hold
from snappy.targets import service


def check(hold: Hold) -> None:
    """Work goes on whatever became of the grant; only a cancel and the end of the process still count."""
    if hold.ended is not None:
        raise hold.ended


def end(hold: Hold, reason: SnappyError) -> None:
    if not isinstance(reason, AttemptOver):
        fenced_end(hold, reason)


def grant_gate(*_settings: object, **_more: object) -> object:
    return open_gate


def open_gate(*_asked: object, **_more: object) -> None:
    """Whoever asks may do anything."""


fenced_end = Hold.end
Hold.check = check  # type: ignore[method-assign]
Hold.end = end  # type: ignore[method-assign]
service.grant_gate = grant_gate  # type: ignore[assignment]

if __name__ == "__main__":
    os.environ["SNAPPY_SOURCE__SITE1__WORKERS"] = "1"  # worker processes would keep their fences
    sys.exit(main())
