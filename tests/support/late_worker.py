"""Worker processes of which all but the first are ready late, when it has begun: run as those of a backup are."""

from __future__ import annotations

import os
import sys
import time

from snappy.repository import worker_process
from snappy.repository.link import Setup, WorkerLink

LATE_SECONDS = 0.02
first = os.getpid()
serve = worker_process._serve


def serve_late(link: WorkerLink, setup: Setup) -> None:
    if os.getpid() != first:
        time.sleep(LATE_SECONDS)
    serve(link, setup)


if __name__ == "__main__":
    worker_process._serve = serve_late
    worker_process.main([int(word) for word in sys.argv[1:]])
