"""What a source service does for a drill: a snapshot, or a sample of it, is restored into a folder that goes
afterwards, and what lies there is compared with what was backed up."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from snappy import log
from snappy.config import DrillProgram
from snappy.errors import Damaged, NoSpace, NotProven, SnappyError, SnapshotNotFound
from snappy.jobs.messages import Drilled, Result
from snappy.jobs.upkeep import DrillCommand
from snappy.repository.entries import Problem
from snappy.repository.findings import Findings
from snappy.repository.format import BlobType
from snappy.repository.losses import Losses
from snappy.repository.paths import shown
from snappy.repository.progress import Problems, Progress
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer, RestoreResult
from snappy.repository.sample import Sample, choose
from snappy.repository.snapshot_walk import Selection
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType
from snappy.sources import drill_programs, telling
from snappy.sources.allow import Ask
from snappy.sources.local_metadata import Owner, by_number
from snappy.sources.local_sink import LocalSink
from snappy.sources.proofs import Prover
from snappy.sources.site import Site
from snappy.sources.workshop import Task, Workshop, locked_if_allowed

FOLDER = "drill"
"""Below the service's work folder."""

_log = log.get(__name__)


def prepare(command: DrillCommand, asks: Ask, site: Site) -> Task:
    """Raises BadOptions."""
    sample = Sample.parse(command.sample) if command.sample else None
    program = site.drill_program(command.program) if command.program else None
    return Task(asks, lambda shop: asyncio.to_thread(_Drill(shop, command, sample, program).run, site))


@dataclass(kw_only=True)
class _Seen(Progress):
    """How far the restore is. Who watches is shown the proof as well, which reads as much again."""

    shown: Progress
    first: float = 0.0
    """When the first content was in its place, in monotonic seconds."""

    def add(self, *, files: int = 0, size: int = 0) -> None:
        if size and not self.first:
            self.first = time.monotonic()
        super().add(files=files, size=size)
        self.shown.add(files=files, size=size)

    def expect(self, *, files: int, size: int) -> None:
        self.shown.expect(files=2 * files, size=2 * size)


class _Drill:
    """One drill, and what is known of it by now."""

    def __init__(
        self, shop: Workshop, command: DrillCommand, sample: Sample | None, program: DrillProgram | None
    ) -> None:
        self._shop, self._command, self._sample, self._program = shop, command, sample, program
        self._owner: Owner | None = by_number if os.geteuid() == 0 else None
        self._losses: Losses | None = None
        self._met = Problems()
        """What could not be read while the sample was drawn."""
        self._result, self._drilled = Result(), Drilled(sample=command.sample or "", program=command.program or "")

    def run(self, site: Site) -> Result:
        """An error that ends it has in its details what is known by then."""
        began = time.monotonic()
        try:
            with site.work_folder(FOLDER) as folder:
                self._drill(Path(os.path.realpath(folder), "restored"))
        except SnappyError as error:
            error.details["result"] = self._told(time.monotonic() - began)
            raise
        return self._told(time.monotonic() - began)

    def _told(self, seconds: float) -> Result:
        findings = self._losses.findings if self._losses else Findings()
        return msgspec.structs.replace(
            self._result,
            drill=self._drilled,
            seconds=seconds,
            findings=telling.findings(findings.kept()),
            finding_count=findings.damage,
        )

    def _drill(self, place: Path) -> None:
        """Restore, and compare; only then, and without a lock, comes what may take long."""
        shop, began = self._shop, time.monotonic()
        with (
            Repository.open(shop.store, shop.password, cache=shop.index_cache) as repository,
            locked_if_allowed(repository, shop),
        ):
            snapshot = self._find(repository)
            repository.load_index()
            with self._kept(repository, snapshot):
                self._bring_and_compare(repository, snapshot, place, began)
        self._run(place)

    @contextmanager
    def _kept(self, repository: Repository, snapshot: Snapshot) -> Iterator[None]:
        """Who may only read has no lock, so that the snapshot may be removed meanwhile: then nothing is damaged."""
        try:
            yield
        except Damaged:
            if repository.store.exists(FileType.SNAPSHOT, snapshot.id):
                raise
            self._losses = None
            self._note(faults=[], fault_count=0)
            raise SnapshotNotFound(f"snapshot {snapshot.id[:8]} was removed while it was drilled") from None

    def _bring_and_compare(self, repository: Repository, snapshot: Snapshot, place: Path, began: float) -> None:
        self._losses = losses = Losses(repository)
        losses.load_blob(BlobType.TREE, snapshot.tree_id)  # so that damage to the root is told as any other is
        seen = _Seen(shown=self._shop.progress)
        drawing = time.monotonic()
        selection = self._draw(snapshot, losses, seen)
        began += time.monotonic() - drawing  # a restore draws no sample
        done = self._restore(repository, snapshot, selection, place, seen)
        self._note(recovery=time.monotonic() - began, first_byte=max(0.0, seen.first - began))
        self._prove(snapshot, selection, losses, place, done)

    def _find(self, repository: Repository) -> Snapshot:
        command = self._command
        hosts = [command.host] if command.host else []
        snapshot = repository.find_snapshot(command.snapshot, hosts=hosts, paths=command.paths)
        self._result = msgspec.structs.replace(
            self._result,
            snapshot=snapshot.id,
            host=snapshot.hostname,
            paths=snapshot.paths or [],
            time=snapshot.time.timestamp(),
            repository=repository.id,
        )
        return snapshot

    def _draw(self, snapshot: Snapshot, losses: Losses, seen: _Seen) -> Selection:
        if self._sample is None:
            return Selection()
        seed = secrets.randbits(32) if self._command.seed is None else self._command.seed
        self._note(seed=seed)
        chosen = choose(losses, snapshot, self._sample, seed, self._met, self._shop.hold.check)
        seen.expect(files=len(chosen.files), size=sum(chosen.files.values()))
        return chosen

    def _restore(
        self, repository: Repository, snapshot: Snapshot, selection: Selection, place: Path, seen: _Seen
    ) -> RestoreResult:
        """Raises NoSpace."""
        cancelled, workers = self._shop.hold.check, self._shop.workers
        with closing(LocalSink(os.fsencode(place), owner=self._owner)) as sink:
            restorer = Restorer(repository, sink, progress=seen, cancelled=cancelled, workers=workers)
            try:
                done = restorer.restore(snapshot, selection=selection)
            except NoSpace as error:
                raise NoSpace(
                    f"the source service's disk is full: no room for the drill after {seen.bytes_done} bytes",
                    hint="drill a sample, or let the source service's `work` be a folder with more room",
                ) from error
        self._result = msgspec.structs.replace(
            self._result, warnings=telling.warnings(done.warnings), warning_count=done.warnings_total
        )
        return done

    def _prove(
        self, snapshot: Snapshot, selection: Selection, losses: Losses, place: Path, done: RestoreResult
    ) -> None:
        """Raises Damaged or NotProven."""
        began, shop = time.monotonic(), self._shop
        prover = Prover(
            losses, os.fsencode(place), done, owner=self._owner, progress=shop.progress, cancelled=shop.hold.check
        )
        proof = prover.prove(snapshot, selection)
        self._result = msgspec.structs.replace(
            self._result, files=proof.files, directories=proof.directories, bytes_processed=proof.bytes
        )
        faults = list(dict.fromkeys([*self._met.kept, *proof.faults]))
        count = max(len(faults), self._met.total + proof.fault_count)
        self._note(proof=time.monotonic() - began, faults=telling.warnings(faults), fault_count=count)
        if faults:
            raise self._failure(faults, count)
        if failure := done.failure():
            raise failure

    def _failure(self, faults: list[Problem], count: int) -> SnappyError:
        for fault in faults:
            _log.error("not proven", path=telling.path(fault.path), reason=fault.message)
        assert self._losses
        lost = self._losses.findings.damage or any(fault.code == Damaged.code for fault in faults)
        kind = Damaged if lost else NotProven
        first = f"the first is {telling.shortened(shown(faults[0].path))}: {faults[0].message}"
        return kind(f"{count} objects of snapshot {self._result.snapshot[:8]} cannot be restored; {first}")

    def _run(self, place: Path) -> None:
        """Raises ProgramMissing and ProgramFailed."""
        if self._program:
            told = {"SNAPPY_SNAPSHOT": self._result.snapshot, "SNAPPY_SAMPLE": self._drilled.sample}
            seconds = drill_programs.run(self._program, place, told, self._shop.hold.check)
            self._note(program_seconds=seconds)

    def _note(self, **fields: Any) -> None:
        self._drilled = msgspec.structs.replace(self._drilled, **fields)
