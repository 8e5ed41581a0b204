"""A restore: a snapshot's objects go into a sink, the contents of files pack by pack, metadata last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snappy import heap
from snappy.errors import Damaged, SnappyError, SourceError, UnsafePath
from snappy.repository.entries import Node, Problem, Sink, Standing
from snappy.repository.file_restorer import FileRestorer
from snappy.repository.paths import ROOT, shown
from snappy.repository.progress import Cancelled, Problems, Progress, never
from snappy.repository.repo import Repository
from snappy.repository.restored_file import Outcome, RestoredFile
from snappy.repository.snapshot_walk import Kind, Selection, SnapshotWalk, Step
from snappy.repository.snapshots import Snapshot
from snappy.repository.team import NO_WORKERS, Workers


@dataclass(frozen=True)
class RestoreResult:
    """What a restore did. ``warnings`` are what could not be kept (owners, devices, ...), ``errors`` what is lost or
    was refused: each the first thousand of its total."""

    files: int
    """Files whose contents are complete, hard links among them."""
    unmodified: int
    """Files whose contents were right before, and files that were to be left as they are, which do not count above."""
    directories: int
    bytes: int
    warnings: list[Problem]
    warnings_total: int
    errors: list[Problem]
    errors_total: int

    def failure(self) -> SnappyError | None:
        """The error that the restore should end with, if it lost anything; the worst of them gives its kind."""
        if not self.errors:
            return None
        codes = {problem.code for problem in self.errors}
        kind = next((kind for kind in (UnsafePath, Damaged) if kind.code in codes), SourceError)
        first = next(problem for problem in self.errors if kind is SourceError or problem.code == kind.code)
        return kind(
            f"{self.errors_total} objects could not be restored, all others were; "
            f"the first is {shown(first.path)}: {first.message}"
        )


@dataclass
class FirstName:
    """A file with several names: what became of the first, and how many were met."""

    outcome: Outcome
    met: int = 0


class Restorer:
    """Restores from a repository, whose index must be loaded, into ``sink``, which the caller closes; ``workers`` help
    where they can open the store and reach the sink's place."""

    def __init__(
        self,
        repo: Repository,
        sink: Sink,
        *,
        progress: Progress | None = None,
        cancelled: Cancelled = never,
        workers: Workers = NO_WORKERS,
    ) -> None:
        heap.tune(heap.FOR_PACKS)
        heap.collect_seldom()
        self._repo, self._sink, self._cancelled, self._workers = repo, sink, cancelled, workers
        self._progress = progress or Progress()
        self._errors, self._warnings = Problems(), Problems()
        self._dirs = self._linked = self._left = 0
        self._refused: bytes | None = None
        """The directory that could not be made last; nothing is tried below it."""
        self._first_names: dict[tuple[int, int, int], FirstName] = {}
        """Files with several names, by device, inode and content, until all their names were met."""

    def restore(
        self,
        snapshot: Snapshot,
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        subpath: bytes = ROOT,
        selection: Selection | None = None,
    ) -> RestoreResult:
        """Restore what the patterns select (see :class:`snappy.repository.patterns.Patterns`), or in their place the
        ``selection``, with the directories above it; with ``subpath`` only what is in that directory, as if it were the
        root.

        One object's failure does not stop the others. Raises :class:`SnapshotNotFound` for a ``subpath`` that is no
        directory, :class:`BadOptions` for a malformed pattern, :class:`NoSpace`, and what repository, sink and
        ``cancelled`` raise.
        """
        selection = Selection(include, exclude) if selection is None else selection
        self._expect(snapshot, everything=not selection and subpath == ROOT)
        walk = SnapshotWalk(self._repo, selection, self._errors, self._cancelled)
        with self._file_restorer() as files:
            for step in walk.steps(snapshot, subpath):
                self._cancelled()
                if not self._is_refused(step.path):
                    self._take(files, step)
            files.finish()
            return self._result(files)

    def _file_restorer(self) -> FileRestorer:
        return FileRestorer(
            self._repo, self._sink, self._progress, self._errors, self._warnings, self._cancelled, self._workers
        )

    def _result(self, files: FileRestorer) -> RestoreResult:
        errors, warnings = self._errors, self._warnings
        return RestoreResult(
            files=files.complete + self._linked,
            unmodified=files.unmodified + self._left,
            directories=self._dirs,
            bytes=self._progress.bytes_done,
            warnings=warnings.kept,
            warnings_total=warnings.total,
            errors=errors.kept,
            errors_total=errors.total,
        )

    def _expect(self, snapshot: Snapshot, *, everything: bool) -> None:
        if everything and snapshot.summary is not None:
            summary = snapshot.summary
            self._progress.expect(files=summary.total_files_processed, size=summary.total_bytes_processed)

    def _is_refused(self, path: bytes) -> bool:
        return self._refused is not None and (path + b"/").startswith(self._refused + b"/")

    def _take(self, files: FileRestorer, step: Step) -> None:
        if step.kind is Kind.ENTER:
            self._enter(files, step)
        elif step.kind is Kind.LEAVE:
            files.afterwards(lambda: self._leave(files, step))
        elif step.node.type == "file":
            self._restore_file(files, step)
        else:
            self._restore_special(files, step)

    def _enter(self, files: FileRestorer, step: Step) -> None:
        with files.guard(step.path) as guard:
            self._sink.directory(step.path, step.node)
            self._dirs += 1
        if guard.failed:
            self._refused = step.path

    def _leave(self, files: FileRestorer, step: Step) -> None:
        with files.guard(step.path, self._warnings) as guard:
            guard.remark(self._sink.finish(step.path, step.node))

    def _restore_special(self, files: FileRestorer, step: Step) -> None:
        with files.guard(step.path, self._warnings) as guard:
            if self._standing(step) is not Standing.LEFT:
                self._sink.special(step.path, step.node)
                guard.remark(self._sink.finish(step.path, step.node))

    def _restore_file(self, files: FileRestorer, step: Step) -> None:
        outcome = Outcome(step.path)
        first = self._first_name(step.node, outcome) if step.node.links > 1 else outcome
        if first is outcome:
            self._restore_first(files, step, outcome)
        else:
            files.afterwards(lambda: self._link(files, step, first))

    def _restore_first(self, files: FileRestorer, step: Step, outcome: Outcome) -> None:
        standing = None
        with files.guard(step.path):
            standing = self._standing(step)
        if standing is None:
            outcome.failed = True
        elif standing is Standing.LEFT:
            outcome.left = True
        else:
            files.add(
                RestoredFile(outcome, step.node, self._sink, len(step.node.content or ())),
                reuse=standing is Standing.USEFUL,
            )

    def _standing(self, step: Step) -> Standing:
        """What is to become of what stands there. What is left as it is counts as done."""
        found = self._sink.standing(step.path, step.node)
        if found is Standing.LEFT and step.node.type == "file":
            self._left += 1
            self._progress.add(files=1, size=step.node.size)
        return found

    def _first_name(self, node: Node, outcome: Outcome) -> Outcome:
        """What becomes of the first name of the file that ``node`` is one name of."""
        identity = (node.device_id, node.inode, hash(tuple(node.content or ())))
        first = self._first_names.setdefault(identity, FirstName(outcome))
        if first.outcome.left:
            first.outcome = outcome  # nothing may be linked to what is not of this snapshot
        first.met += 1
        if first.met == node.links:
            del self._first_names[identity]
        return first.outcome

    def _link(self, files: FileRestorer, step: Step, first: Outcome) -> None:
        if first.failed:
            self._errors.add(step.path, f"it is a hard link to {shown(first.path)}, which is lost", Damaged.code)
            return
        with files.guard(step.path):
            if self._standing(step) is not Standing.LEFT:
                self._sink.link(step.path, first.path)
                self._linked += 1
                self._progress.add(files=1, size=step.node.size)
