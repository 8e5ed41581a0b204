"""Reads packs and proves all that is in them, by worker processes where that is worth their start."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import msgspec

from snappy import log
from snappy.decoding import from_msgpack
from snappy.repository import proving
from snappy.repository.findings import Findings, Kind
from snappy.repository.format import MIB, PackId
from snappy.repository.pack_proof import CheckedPack, PackProof
from snappy.repository.pool import Pool
from snappy.repository.progress import Cancelled, Progress
from snappy.repository.proving import Proven
from snappy.repository.repo import Repository
from snappy.repository.team import Workers

READERS = 3
_WAITING = 2 * READERS

WORTH_WORKERS = 256 * MIB
"""Bytes; less is nearly read when workers are ready."""
HEADER_WEIGHT = 200
"""A byte of a header is a fortieth of a blob, and a blob costs as much as 8 KiB, beside its bytes."""
READY_SECONDS = 5.0
"""How long workers are waited for that are not ready when all else is done."""

_LOG = log.get(__name__)


class PackChecker:
    """Checks packs, several at a time; a context. What is found is found when they are finished."""

    def __init__(
        self, repo: Repository, findings: Findings, progress: Progress, cancelled: Cancelled, workers: Workers
    ) -> None:
        self._repo, self._progress, self._cancelled, self._workers = repo, progress, cancelled, workers
        self._findings, self._found = findings, Findings()
        self._packs: Sequence[CheckedPack] = ()
        self._pool: Pool | None = None
        self.harmed: set[PackId] = set()
        """Those that were finished and in which something was found."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.close()

    def begin(self, packs: Sequence[CheckedPack]) -> None:
        """Have workers read the packs, if that is worth it, while this process does other things."""
        self._packs = packs
        if self._workers.most > 1 and sum(map(_weight, packs)) > WORTH_WORKERS:
            self._pool = self._start_pool()

    def check(self) -> None:
        """Raises what ended the work of the workers, and what ``cancelled`` raises."""
        if self._pool:
            self._pool.raise_failure()
        self._cancelled()

    def finish(self) -> None:
        """Return when all are read. Raises StorageError, WorkerDied, and what ``cancelled`` raises."""
        if self._pool is None:
            self._read_here(self._packs)
        else:
            if not self._pool.is_ready(READY_SECONDS):
                self._read_here(from_msgpack(body, CheckedPack) for body in self._pool.recall())
            self._pool.finish()
        self._findings.absorb(self._found)

    def _start_pool(self) -> Pool | None:
        setup = self._repo.worker_setup(proving.work, self._workers.niceness)
        if setup is None:
            return None
        errands = map(msgspec.msgpack.encode, self._packs)
        try:
            return Pool(self._repo.store, setup, self._workers, errands, self._brought, self._cancelled)
        except OSError as error:
            _LOG.warning("no worker process could be started", reason=str(error))
            return None

    def _brought(self, body: bytes) -> None:
        self._take(from_msgpack(body, Proven))

    def _take(self, proven: Proven) -> None:
        if proven.findings:
            self.harmed.add(proven.pack)
        for kind, found, message in proven.findings:
            self._found.add(Kind[kind], found, message)
        self._progress.add(files=1, size=proven.size)

    def _prove(self, proof: PackProof, pack: CheckedPack) -> None:
        self._take(proving.prove(proof, pack))

    def _read_here(self, packs: Iterable[CheckedPack]) -> None:
        proof = PackProof(self._repo.reader, self._cancelled)
        running: deque[Future[None]] = deque()
        threads = ThreadPoolExecutor(READERS, thread_name_prefix="packs")
        try:
            for pack in packs:
                running.append(threads.submit(self._prove, proof, pack))
                if len(running) > _WAITING:
                    running.popleft().result()
            while running:
                running.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _weight(pack: CheckedPack) -> int:
    return pack.size + HEADER_WEIGHT * (pack.listing.header_size if pack.listing else 0)
