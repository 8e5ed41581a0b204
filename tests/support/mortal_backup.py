"""A backup with worker processes, for a test to kill: ``python -m tests.support.mortal_backup REPOSITORY TREE``.

It prints the workers' process ids as soon as they are there, and holds its breath then.
"""

from __future__ import annotations

import sys
import threading

import fsspec

from snappy import log
from snappy.repository import file_storer
from snappy.repository.archiver import Archiver
from snappy.repository.crew import Crew
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from snappy.repository.team import Workers
from snappy.sources.files import FilesOptions, FilesSource
from tests.support.engine import PASSWORD
from tests.support.worker_stores import all_are_ready


def main() -> None:
    root, tree = sys.argv[1:]
    log.setup("warning")
    file_storer.FILES_FOR_WORKERS = 0
    repository = Repository.open(Store(fsspec.filesystem("file"), root), PASSWORD)
    repository.load_index()
    finish = Crew.finish

    def tell_and_wait(crew: Crew) -> None:
        all_are_ready(crew)
        print(*crew.processes, flush=True)
        threading.Event().wait()
        finish(crew)

    Crew.finish = tell_and_wait  # type: ignore[method-assign]
    source = FilesSource(FilesOptions(paths=(tree,)))
    Archiver(repository, workers=Workers(most=2)).backup(source.export(None), paths=[tree], hostname="h")


if __name__ == "__main__":
    main()
