"""Has batches of a restore brought: by a few threads of this process, or, once so much has come that it is worth it, by
worker processes. What waits for a batch is done when it and all before it are there, in the caller's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Executor, Future

from snappy import log
from snappy.repository import restoring
from snappy.repository.batch import Batch, Places, Plan
from snappy.repository.bringer import Bringer
from snappy.repository.entries import Identity, SharedSink, Sink
from snappy.repository.format import MIB
from snappy.repository.progress import Cancelled
from snappy.repository.repo import Repository
from snappy.repository.restore_team import RestoreTeam
from snappy.repository.restored_file import Piece, RestoredFile, plain_length
from snappy.repository.restoring import FileErrand, Restored, RestoreErrand
from snappy.repository.team import Workers

BATCHES_RUNNING = 2
BATCH_BYTES = 64 * MIB
BATCH_BLOBS = 4096

FILES_FOR_WORKERS = 4000
BYTES_FOR_WORKERS = 256 * MIB
"""When so much was planned, worker processes are started: before, they would cost more time than they save."""
ERRANDS_RUNNING = 4
"""Of each worker."""
ERRAND_BYTES = 32 * MIB
"""Neighbours in a large file lie in several packs: the more are brought together, the fewer reads."""
ERRAND_BLOBS = 1024

_log = log.get(__name__)


class BatchRunner:
    """Use it from one thread; :meth:`close` it. ``bringer`` works in ``threads``."""

    def __init__(
        self,
        repo: Repository,
        sink: Sink,
        workers: Workers,
        bringer: Bringer,
        threads: Executor,
        cancelled: Cancelled,
    ) -> None:
        self._repo, self._workers, self._bringer, self._threads = repo, workers, bringer, threads
        self._cancelled = cancelled
        self._sink = sink if isinstance(sink, SharedSink) and workers.most > 1 else None
        self._team: RestoreTeam | None = None
        self._running: deque[Batch] = deque()
        self._files = self._bytes = self._errands = 0

    def is_enough(self, batch: Batch) -> bool:
        """Whether it is to be sent before more is planned."""
        if self._team:
            return batch.is_full(ERRAND_BYTES, ERRAND_BLOBS)
        return batch.is_full(BATCH_BYTES, BATCH_BLOBS)

    def send(self, batch: Batch) -> None:
        """Have it brought. Blocks while much else is. Raises what stops the whole restore."""
        team = self._team_if_worth(batch)
        self._running.append(batch)
        if team and team.is_ready():
            self._hand_out(team, batch)
            self._settle(ERRANDS_RUNNING * len(team.processes))
        else:
            batch.futures = self._bring_here(batch.plans.items())
            self._settle(BATCHES_RUNNING)

    def finish(self) -> None:
        """Return when all that was sent is done. Raises what stops the whole restore."""
        self._settle(0)
        if self._team:
            self._team.end()

    def close(self) -> None:
        """Give up what is not done. The threads must have ended."""
        if self._team:
            self._team.close()
        for batch in self._running:
            batch.abandon()

    def _bring_here(self, plans: Iterable[Plan]) -> list[Future[None]]:
        wanted = Places(plans)
        return [self._threads.submit(self._bringer.fetch, wanted, pack) for pack in wanted.packs]

    def _settle(self, left: int) -> None:
        """Wait for the batches that have run longest, and do what waits for them, until so many are left."""
        while len(self._running) > left:
            batch = self._running[0]
            if self._team and batch.errand:
                batch.futures = self._take(batch, self._team.result(batch.errand))
            for future in batch.futures:
                future.result()
            self._running.popleft()
            for action in batch.afterwards:
                action()

    # Worker processes

    def _team_if_worth(self, batch: Batch) -> RestoreTeam | None:
        self._files += len(batch.plans)
        self._bytes += batch.bytes
        if self._sink and not self._team and (self._files > FILES_FOR_WORKERS or self._bytes > BYTES_FOR_WORKERS):
            self._team = self._start_team()
            self._sink = self._sink if self._team else None
        return self._team

    def _start_team(self) -> RestoreTeam | None:
        setup = self._repo.worker_setup(restoring.work, self._workers.niceness)
        if setup is None:
            return None
        try:
            return RestoreTeam(self._repo.store, setup, self._workers, self._cancelled)
        except OSError as error:
            _log.warning("no worker process could be started", reason=str(error))
            return None

    def _hand_out(self, team: RestoreTeam, batch: Batch) -> None:
        assert self._sink
        for file, pieces in batch.plans.items():
            identity = self._share(file) if file.is_large or file.is_begun else None
            if file.outcome.failed:
                self._count(file, pieces)
            else:
                batch.sent.append(((file, pieces), identity))
        if batch.sent:
            self._errands += 1
            batch.errand = self._errands
            files = [FileErrand(file.path, file.node, pieces, known) for (file, pieces), known in batch.sent]
            team.submit(RestoreErrand(batch.errand, *self._sink.recipe(), files))

    def _share(self, file: RestoredFile) -> Identity | None:
        """Create the file, if nobody did; workers fill it."""
        if file.outcome.failed:
            return None
        identity = None
        with self._bringer.guard(file.path) as guard:
            identity = file.identity()
        file.outcome.failed = guard.failed
        return identity

    def _take(self, batch: Batch, restored: Restored) -> list[Future[None]]:
        """Count what a worker did. What it could not read is brought here: other copies of it may be known."""
        self._bringer.problems.join(*restored.problems)
        self._bringer.remarks.join(*restored.remarks)
        failed, again = set(restored.failed), set(restored.again)
        for number, ((file, pieces), _) in enumerate(batch.sent):
            if number not in again:
                file.outcome.failed |= number in failed
                self._count(file, pieces)
        return self._bring_here(batch.sent[number][0] for number in again)

    def _count(self, file: RestoredFile, pieces: list[Piece]) -> None:
        """These pieces were dealt with; a file that this process has open is completed here."""
        self._bringer.progress.add(size=sum(plain_length(piece.blob) for piece in pieces))
        if not (file.is_large or file.is_begun):
            self._bringer.count(file)
        elif file.arrived(len(pieces)):
            self._bringer.close(file)
