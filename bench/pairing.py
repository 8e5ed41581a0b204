"""Runs of several sides in turn, A B A B ..., so that what slows the machine for a while slows each of them.

In a pair every side begins with an empty repository. Then the works follow one another, and within each work the
sides: A's first backup, B's first backup, A's unchanged backup, ... Three traps are avoided: before each run all that
it reads has just been read (so that nobody reads from a disk what another finds in memory) and all that was written is
on the disk; each restore goes to a folder of its own; and nothing is deleted until all runs of a case are done, but for
a pair's few large files: a file system makes files slowly after many were deleted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.corpora import Corpus, copy_share
from bench.matrix import BACKUPS, S3, Case
from bench.meter import Failed, Run, wait_quiet
from bench.sides import Session, Side
from tests.support.compare import Options, compare
from tests.support.places import Place, in_bucket, in_folder
from tests.support.weed import weed_server

BLOCK = 1 << 20
FEW = 10
"""Files of a corpus of which a pair does not stay."""
QUIET_CORES = 0.2
"""A machine on which nobody else uses more is quiet."""

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What came of a case. ``runs`` are by work and side, in the order of the pairs; ``left_out`` says why a work of a
    side is missing, ``stored`` how large the repositories were after the first backup."""

    case: Case
    runs: dict[tuple[str, str], list[Run]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    stored: dict[str, list[int]] = field(default_factory=dict)
    amount: int = 0
    """Bytes of the corpus."""

    def add(self, work: str, side: str, run: Run) -> None:
        self.runs.setdefault((work, side), []).append(run)

    def together(self, work: str, one: str, other: str) -> tuple[Sequence[Run], Sequence[Run]]:
        """The runs of two sides that are whole pairs: none where one of them failed, and all but the last where the
        bench was interrupted between the two."""
        ours, theirs = self.runs.get((work, one), []), self.runs.get((work, other), [])
        if (work, one) in self.left_out or (work, other) in self.left_out:
            return [], []
        whole = min(len(ours), len(theirs))
        return ours[:whole], theirs[:whole]


@dataclass
class Turn:
    """One side in one pair."""

    side: Side
    session: Session
    folder: Path
    snapshot: str = ""


class Pairing:
    """Runs one case. ``folder`` takes repositories and restored trees; ``say`` hears of each run. Before each one it
    waits for a quiet machine, up to ``patience`` seconds."""

    def __init__(
        self, case: Case, corpus: Corpus, sides: Sequence[Side], folder: Path, say: Say, patience: float = 0.0
    ) -> None:
        self.case, self.corpus, self.sides, self.folder, self.say = case, corpus, sides, folder, say
        self.patience = patience
        self.outcome = Outcome(case, amount=bytes_below(corpus.data))

    def run(self, pairs: int) -> Outcome:
        with self._places() as place:
            twin = self._twin()
            for number in range(pairs):
                self._pair(number, place, twin)
        return self.outcome

    @contextmanager
    def _places(self) -> Iterator[Callable[[Path], Place]]:
        """Makes a new place for each repository."""
        if self.case.target != S3:
            yield in_folder
            return
        (self.folder / "weed").mkdir(parents=True)
        with weed_server(self.folder / "weed") as weed:
            yield lambda _folder: in_bucket(weed)

    def _twin(self) -> Path | None:
        """What is in each repository before the first backup."""
        if self.case.duplicates in (0, 100):
            return self.corpus.data if self.case.duplicates else None
        return copy_share(self.corpus.data, self.case.duplicates / 100, self.folder / "twin")

    def _pair(self, number: int, place: Callable[[Path], Place], twin: Path | None) -> None:
        with ExitStack() as stack:
            opened = [self._open(stack, side, self.folder / f"pair {number}", place, twin) for side in self.sides]
            turns = [turn for turn in opened if turn]
            for work in self.case.works:
                with self._state_of_corpus(work):
                    for turn in turns:
                        self._try(number, work, turn)
        if not stays(self.corpus.data):
            shutil.rmtree(self.folder / f"pair {number}")

    def _open(
        self, stack: ExitStack, side: Side, pair: Path, place: Callable[[Path], Place], twin: Path | None
    ) -> Turn | None:
        """A session with what it has from the start; None for a side that cannot have one."""
        folder = pair / side.name
        folder.mkdir(parents=True)
        try:
            if why := side.cannot(self.case.target, ""):
                raise Failed(why)
            session = stack.enter_context(side.open(folder, place(folder)))
            if twin is not None:
                session.seed(twin)
        except Failed as error:
            for work in self.case.works:
                self._leave_out(work, side, str(error))
            return None
        return Turn(side, session, folder)

    def _leave_out(self, work: str, side: Side, why: str) -> None:
        self.outcome.left_out[work, side.name] = why
        self.say(f"{self.case.name}, {work}, {side.name}: {why}")

    @contextmanager
    def _state_of_corpus(self, work: str) -> Iterator[None]:
        if work != "changed":
            yield
            return
        with self.corpus.changed():
            yield

    def _try(self, number: int, work: str, turn: Turn) -> None:
        """One run, unless the side cannot do it or did not manage to in this case before."""
        key = work, turn.side.name
        why = turn.side.cannot(self.case.target, work) or self.outcome.left_out.get(key, "")
        if not why:
            try:
                run = self._run(number, work, turn)
            except Failed as error:
                why = str(error)
        if why:
            self._leave_out(work, turn.side, why)
            return
        self.outcome.add(work, turn.side.name, run)
        seconds = f"{run.wall:.2f} s, CPU {run.cpu:.2f} s, peak {run.peak / 1e6:.0f} MB"
        others = f", others {run.others:.1f} cores" if run.others > QUIET_CORES else ""
        self.say(f"{self.case.name}, pair {number + 1}, {work}, {turn.side.name}: {seconds}{others}")

    def _run(self, number: int, work: str, turn: Turn) -> Run:
        restored = turn.folder / "restored"
        if work in BACKUPS:
            self._settle([self.corpus.data])
            run, snapshot = turn.session.backup(self.corpus.data)
            self._note_backup(work, turn, snapshot)
            return run
        if work == "check":
            self._settle([self._repository(turn)])
            return turn.session.check()
        self._settle([self._repository(turn), restored])
        if not turn.snapshot:
            raise Failed("there is no first backup to restore")
        run = turn.session.restore(turn.snapshot, restored)
        if number == 0:
            self._compare(restored)
        return run

    def _note_backup(self, work: str, turn: Turn, snapshot: str) -> None:
        if work == "first":
            turn.snapshot = snapshot
            self.outcome.stored.setdefault(turn.side.name, []).append(turn.session.stored())

    def _repository(self, turn: Turn) -> Path:
        """Where a repository's bytes lie."""
        return self.folder / "weed" if self.case.target == S3 else Path(turn.session.place.root)

    def _settle(self, paths: Iterable[Path]) -> None:
        for path in paths:
            warm(path)
        os.sync()
        if not wait_quiet(QUIET_CORES, self.patience):
            self.say(f"the machine was not quiet for {self.patience:.0f} s; measuring all the same")

    def _compare(self, restored: Path) -> None:
        """Raises Failed where a restored tree is another."""
        found = compare(self.corpus.data, restored / str(self.corpus.data).lstrip("/"), Options(root=False))
        if not found.same:
            raise Failed(f"what was restored differs: {found.differences[:5]}")


def warm(path: Path) -> None:
    """Read all that lies there, so that whoever reads it next finds it in memory."""
    buffer = bytearray(BLOCK)
    for top, _, names in os.walk(path):
        for name in names:
            full = os.path.join(top, name)
            if not os.path.islink(full) and os.path.isfile(full):
                _read_all(full, buffer)


def _read_all(path: str, buffer: bytearray) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def bytes_below(path: Path) -> int:
    """The sizes of all files below a folder, holes included."""
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(path) for name in names)


def stays(corpus: Path) -> bool:
    """Whether what a pair makes of it is left until all is done."""
    return sum(len(names) for _, _, names in os.walk(corpus)) > FEW


def complain(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
