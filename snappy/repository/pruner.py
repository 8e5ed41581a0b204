"""A prune: what no snapshot uses is deleted, and what is used of packs that are mostly unused is stored anew.

It plans and repacks beside others, under a shared lock. To delete, it needs the repository for itself, and looks again
at what those others left: the plan proposes, the last look decides. The order is: new packs, new index files, then the
old index files are deleted, and the packs that none lists any more. Whenever it dies, all that snapshots use is listed
where it lies, and the next prune goes on from what is there.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from snappy import log
from snappy.errors import Damaged, InternalError, NotFound, Unavailable
from snappy.repository.format import BlobLocation, PackId, parse_id
from snappy.repository.index import decode_index, encode_index, in_files
from snappy.repository.listed_blobs import ListedBlobs
from snappy.repository.patience import PATIENCE, PAUSE, Held, alone
from snappy.repository.progress import Cancelled, Progress, never
from snappy.repository.prune_plan import PruneOptions, PrunePlan, PrunePlanner, PruneStats
from snappy.repository.repacker import Repacker
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from snappy.repository.used_blobs import UsedBlobs

_DELETERS = 8

_LOG = log.get(__name__)


class PruneResult(NamedTuple):
    """What was planned, and what was deleted: packs and their bytes. Nothing, if it was a dry run."""

    stats: PruneStats
    packs_deleted: int = 0
    bytes_deleted: int = 0


class _Leaving(NamedTuple):
    """What the last look leaves to delete: packs that index files list, some of them not there any more, by their
    numbers, and packs that none lists."""

    listed: set[int]
    missing: set[int]
    unlisted: list[PackId]


class Pruner:
    """One prune of an open repository whose index nobody has loaded. Every method raises StorageError,
    :class:`Damaged` and what ``cancelled`` raises; where something cannot be read, nothing was deleted.

    A dry run may plan as if the snapshots of the ids in ``without`` were gone."""

    def __init__(
        self,
        repo: Repository,
        options: PruneOptions,
        *,
        without: Iterable[str] = (),
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        patience: float = PATIENCE,
        pause: float = PAUSE,
    ) -> None:
        self._repo, self._limits, self._cancelled = repo, options.limits(), cancelled
        self._patience, self._pause = patience, pause
        self._progress = progress or Progress()
        self._blobs = ListedBlobs(repo, cancelled)
        self._used = UsedBlobs(repo, self._blobs, cancelled, without)

    def prune(self, held: Held, *, dry_run: bool = False) -> PruneResult:
        """Do it all. Raises :class:`RepositoryLocked` too, and :class:`snappy.errors.AccessDenied` before anything is
        written where nothing may be deleted."""
        with held(False):
            plan = self.plan()
            if dry_run or plan.is_empty:
                return PruneResult(plan.stats)
            self._demand_deletion()
            self.repack(plan)
        with alone(held, self._cancelled, self._patience, self._pause):
            return self.delete(plan)

    def plan(self) -> PrunePlan:
        """What is to be done. Under a lock."""
        self._look()
        stored = self._stored()
        plan = PrunePlanner(self._blobs, self._limits, compressing=self._repo.config.has_compression).plan(stored)
        _LOG.info("planned", repack=len(plan.repack), delete=len(plan.delete), unlisted=len(plan.unlisted))
        deleted = len(plan.repack) + len(plan.delete) + len(plan.unlisted)
        self._progress.expect(files=deleted + len(plan.repack), size=plan.stats.bytes.repack)
        return plan

    def repack(self, plan: PrunePlan) -> None:
        """Store again what is used of the packs that are to be repacked. Under the lock of the plan."""
        if plan.repack:
            repacker = Repacker(self._repo, self._blobs, self._progress, self._cancelled)
            repacker.repack(self._numbers(plan.repack), self._numbers(plan.repack + plan.delete))

    def delete(self, plan: PrunePlan) -> PruneResult:
        """Delete what still nobody needs. Under an exclusive lock."""
        self._look()
        stored = self._stored()
        leaving = self._leaving(plan, self._missing(stored), stored)
        self._rewrite_index(leaving.listed | leaving.missing)
        packs = [self._blobs.packs[number] for number in leaving.listed] + leaving.unlisted
        self._remove(FileType.PACK, [pack.hex() for pack in packs])
        return PruneResult(plan.stats, len(packs), sum(stored[pack] for pack in packs))

    def _demand_deletion(self) -> None:
        """Ask for the right before much is stored that only a deletion makes worth it."""
        with suppress(NotFound):
            self._repo.store.remove(FileType.PACK, os.urandom(32).hex())

    def _look(self) -> None:
        """Learn what is listed, and what is used; what others stored since the last look, too."""
        roots = self._used.roots()
        self._blobs.learn()
        self._used.mark(roots)

    def _stored(self) -> dict[PackId, int]:
        return {parse_id(name): size for name, size in self._repo.store.list(FileType.PACK)}

    def _numbers(self, packs: Iterable[PackId]) -> set[int]:
        return {number for pack in packs if (number := self._blobs.number(pack)) is not None}

    def _missing(self, stored: dict[PackId, int]) -> set[int]:
        """The packs that are listed and not there. Nothing that is used may be in these alone."""
        missing = {number for number in self._blobs.listed_packs() if self._blobs.packs[number] not in stored}
        if self._is_lost(missing):
            self._used.start_over()  # of snapshots that were forgotten meanwhile, another prune may have deleted it
            self._look()
            if self._is_lost(missing):
                raise Damaged("packs that snapshots need are missing; nothing was deleted")
        return missing

    def _is_lost(self, packs: set[int]) -> bool:
        return any(map(operator.gt, self._blobs.used, self._blobs.kept_without(packs)))

    def _leaving(self, plan: PrunePlan, missing: set[int], stored: dict[PackId, int]) -> _Leaving:
        blobs, listed = self._blobs, self._blobs.listed_packs()
        leaving = (self._numbers(plan.repack + plan.delete) & listed) - missing
        kept = blobs.kept_without(leaving | missing)
        for first, pack in blobs.places():
            if pack in leaving and blobs.used[first] > kept[first]:
                leaving.remove(pack)  # a backup came to use it, or another prune took the other copy away
                kept[first] = 1
        if self._is_lost(leaving | missing):
            raise InternalError("a prune would have deleted what snapshots use; nothing was deleted")
        unlisted = [pack for pack in plan.unlisted if pack in stored and blobs.number(pack) not in listed]
        return _Leaving(leaving, missing, unlisted)

    def _rewrite_index(self, gone: set[int]) -> None:
        """Have the index files list these packs no more, nor any pack twice."""
        old, listed = self._to_rewrite(gone)
        if not old:
            return
        rest = in_files(self._rest(old, listed))
        new = {self._repo.documents.save(FileType.INDEX, encode_index(blobs)) for blobs in rest}
        if not new <= {name for name, _ in self._repo.store.list(FileType.INDEX)}:
            raise Unavailable("the storage does not show the new index files; the old ones stay")
        self._remove(FileType.INDEX, old)

    def _to_rewrite(self, gone: set[int]) -> tuple[list[str], set[int]]:
        """The index files that cannot stay, and the packs that need not be listed again."""
        old, listed = [], set(gone)
        for name, packs in self._blobs.files.items():
            if listed.isdisjoint(packs):
                listed.update(packs)
            else:
                old.append(name)
        return old, listed

    def _rest(self, old: list[str], listed: set[int]) -> Iterator[BlobLocation]:
        """What the old files list, but for the packs in ``listed``; each pack once."""
        for name in old:
            self._cancelled()
            for pack, blobs in decode_index(self._repo.documents.load(FileType.INDEX, name)).packs().items():
                number = self._blobs.number(pack)
                assert number is not None, "the file was read before"
                if number not in listed:
                    listed.add(number)
                    yield from (blob.in_pack(pack) for blob in blobs)

    def _remove(self, kind: FileType, names: list[str]) -> None:
        threads = ThreadPoolExecutor(_DELETERS, thread_name_prefix="delete")
        try:
            for _ in threads.map(lambda name: self._remove_one(kind, name), names):
                self._progress.add(files=kind is FileType.PACK)
        finally:
            threads.shutdown(cancel_futures=True)

    def _remove_one(self, kind: FileType, name: str) -> None:
        self._cancelled()
        with suppress(NotFound):
            self._repo.store.remove(kind, name)
