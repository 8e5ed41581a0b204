"""A worker process that goes through the source from its end while the backup goes through it from its beginning: where
they meet, all is done. What a scout does is in :mod:`snappy.repository.comparison`.

The backup is the same as without it, for a scout only ever says of a directory that nothing below it has changed. Of
one that could not be started, or has died, nothing is heard.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Protocol, Self

import msgspec

from snappy import log
from snappy.decoding import from_msgpack
from snappy.repository import comparison
from snappy.repository.comparison import Found, Mission
from snappy.repository.entries import Below, Recipe
from snappy.repository.link import Brought, Errand, FromWorker, Setup
from snappy.repository.member import Captain, Member
from snappy.repository.paths import split
from snappy.repository.progress import never
from snappy.repository.repo import Repository
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import Store
from snappy.repository.team import Team, Workers

WORTH_A_SCOUT = 50_000
"""Files of the parent snapshot, and what its directories cost in files: of fewer most are compared before a scout is
ready."""
FOLDER_COSTS = 8

_LOG = log.get(__name__)


class _Sender(Captain, Protocol):
    def take(self, found: Found) -> None: ...


class _Runner(Member):
    """The scout as the backup has it."""

    def __init__(self, sender: _Sender, mission: bytes, number: int, end: socket.socket) -> None:
        super().__init__(sender, number, end)
        self._sender, self._mission = sender, mission

    def begun(self) -> None:
        self.send(Errand(self._mission))

    def hear(self, message: FromWorker) -> None:
        if isinstance(message, Brought):
            self._sender.take(from_msgpack(message.body, Found))


class Scout(Team[_Runner]):
    """Sends one scout. Raises ``OSError`` when no process can be started. Always :meth:`close` it."""

    def __init__(self, store: Store, setup: Setup, mission: Mission) -> None:
        self._knowing = threading.Lock()
        self._known: dict[bytes, Below] = {}
        self._told: list[bytes] = []
        """The same paths in the order told."""
        self._reached: list[bytes] = []
        """The names on the way to the directory that the backup opened last."""
        body = msgspec.msgpack.encode(mission)
        super().__init__(store, setup, 1, lambda number, end: _Runner(self, body, number, end), never)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def passed(self, path: bytes) -> Below | None:
        """See :data:`snappy.repository.entries.Passed`."""
        with self._knowing:
            below = self._known.pop(path, None)
            if below is None:
                self._reached = split(path)
        return below

    def take(self, found: Found) -> None:
        """Note what was found, until the directories come where the backup is."""
        with self._knowing:
            for path, below in found.folders:
                if split(path) <= self._reached:
                    self._hands[0].stop()
                    return
                self._forget_inside(path)
                self._known[path] = below
                self._told.append(path)

    def _forget_inside(self, folder: bytes) -> None:
        """Nobody asks about what lies in a directory that is passed."""
        while self._told and self._told[-1].startswith(folder + b"/"):
            self._known.pop(self._told.pop(), None)


def is_worth_it(parent: Snapshot) -> bool:
    """Whether there is so much in the snapshot that a scout saves more time than it takes to start."""
    seen = parent.summary
    if seen is None:
        return False
    folders = seen.dirs_new + seen.dirs_changed + seen.dirs_unmodified
    return seen.total_files_processed + FOLDER_COSTS * folders >= WORTH_A_SCOUT


def send(repo: Repository, parent: Snapshot, entries: Recipe, workers: Workers) -> Scout | None:
    """A scout that compares with ``parent`` what ``entries`` makes elsewhere: what the source yields, in the opposite
    order. None where there can be none, or it is not worth its start."""
    if workers.most < 2 or not is_worth_it(parent):
        return None
    setup = repo.worker_setup(comparison.work, workers.niceness)
    if setup is None or repo.cache is None:
        return None
    try:
        return Scout(repo.store, setup, Mission(*entries, parent.tree_id, str(repo.cache), repo.id))
    except OSError as error:
        _LOG.warning("no worker process could be started", reason=str(error))
        return None
