from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from bench.corpora import corpus
from bench.matrix import Case
from bench.meter import Failed, Run
from bench.pairing import Outcome, Pairing, bytes_below, warm
from bench.sides import Session, Side
from tests.support.places import Place

SECONDS = count(1)


def run(wall: float = 1.0) -> Run:
    return Run(wall, wall, 1 << 20, {})


class CopyingSession(Session):
    """Its snapshots are copies."""

    def __init__(self, side: CopyingSide, folder: Path, place: Place) -> None:
        super().__init__(folder, place)
        self.side = side

    def make(self) -> None:
        Path(self.place.root).mkdir()

    def seed(self, path: Path) -> None:
        self.side.heard.append((self.side.name, f"seed {path.name}"))

    def backup(self, path: Path) -> tuple[Run, str]:
        name = str(len(list(Path(self.place.root).iterdir())))
        shutil.copytree(path, Path(self.place.root, name), symlinks=True)
        return self._done(f"backup {name}"), name

    def restore(self, snapshot: str, to: Path) -> Run:
        whole = to / str(self.side.corpus).lstrip("/")
        shutil.copytree(Path(self.place.root, snapshot), whole, symlinks=True, dirs_exist_ok=True)
        if self.side.forgets:
            next(path for path in whole.rglob("*") if path.is_file()).unlink()
        return self._done(f"restore {snapshot}")

    def check(self) -> Run:
        raise Failed("broken\nwith a long tale")

    def _done(self, what: str) -> Run:
        self.side.heard.append((self.side.name, what))
        return run(next(SECONDS))


class CopyingSide(Side):
    def __init__(self, name: str, corpus: Path, heard: list[tuple[str, str]]) -> None:
        self.name, self.corpus, self.heard = name, corpus, heard
        self.forgets, self.refuses = False, ""

    def version(self) -> str:
        return "1"

    def how(self) -> str:
        return "by hand"

    def cannot(self, target: str, work: str) -> str:
        return self.refuses

    @contextmanager
    def open(self, folder: Path, place: Place) -> Iterator[Session]:
        session = CopyingSession(self, folder, place)
        session.make()
        yield session


class Bench:
    """Two sides and a small tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = corpus("tiny", folder, 0.0005)
        self.corpus.build()
        self.heard: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.a, self.b = (CopyingSide(name, self.corpus.data, self.heard) for name in ("a", "b"))

    def run(self, works: Sequence[str], pairs: int = 1, duplicates: int = 0) -> Outcome:
        case = Case("tiny", duplicates=duplicates, works=works)
        return Pairing(case, self.corpus, [self.a, self.b], self.folder / "work", self.said.append).run(pairs)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_sides_take_turns_in_every_work_of_every_pair(bench: Bench) -> None:
    outcome = bench.run(["first", "unchanged", "restore"], pairs=2)
    once = [("a", "backup 0"), ("b", "backup 0"), ("a", "backup 1"), ("b", "backup 1")]
    once += [("a", "restore 0"), ("b", "restore 0")]
    assert bench.heard == once * 2
    assert {key: len(runs) for key, runs in outcome.runs.items()} == {
        (work, side): 2 for work in ("first", "unchanged", "restore") for side in "ab"
    }


def test_a_pair_is_what_ran_beside_each_other(bench: Bench) -> None:
    ours, theirs = bench.run(["first"], pairs=3).together("first", "a", "b")
    assert [other.wall - one.wall for one, other in zip(ours, theirs, strict=True)] == [1, 1, 1]


def test_a_run_whose_partner_never_came_is_no_pair(bench: Bench) -> None:
    outcome = bench.run(["first"], pairs=2)
    outcome.add("first", "a", run())
    ours, theirs = outcome.together("first", "a", "b")
    assert (len(ours), len(theirs)) == (2, 2)


def test_both_see_the_same_changes_and_then_none(bench: Bench) -> None:
    bench.run(["first", "changed", "unchanged"])
    a, b = (bench.folder / "work" / "pair 0" / side / "repository" for side in "ab")
    contents = [
        {path.relative_to(root / number): path.read_bytes() for path in (root / number).rglob("*") if path.is_file()}
        for root in (a, b)
        for number in ("0", "1", "2")
    ]
    assert contents[:3] == contents[3:]
    assert contents[0] == contents[2] != contents[1]


def test_repositories_are_measured_after_the_first_backup(bench: Bench) -> None:
    outcome = bench.run(["first", "unchanged"], pairs=2)
    assert outcome.stored == {"a": [100 * 1024] * 2, "b": [100 * 1024] * 2}
    assert outcome.amount == 100 * 1024


def test_nothing_is_deleted_and_every_restore_has_a_folder(bench: Bench) -> None:
    bench.run(["first", "restore"], pairs=2)
    restored = [bench.folder / "work" / f"pair {pair}" / side / "restored" for pair in (0, 1) for side in "ab"]
    assert [bytes_below(path) for path in restored] == [100 * 1024] * 4


def test_what_is_known_already_is_seeded(bench: Bench) -> None:
    bench.run(["first"], duplicates=100)
    assert bench.heard[:2] == [("a", "seed data"), ("b", "seed data")]
    bench.heard.clear()
    shutil.rmtree(bench.folder / "work")
    bench.run(["first"], duplicates=2)
    assert bench.heard[:2] == [("a", "seed twin"), ("b", "seed twin")]
    assert bytes_below(bench.folder / "work" / "twin") == 2 * 1024


def test_a_work_that_fails_is_left_out_and_said(bench: Bench) -> None:
    outcome = bench.run(["first", "check"], pairs=2)
    assert outcome.left_out == {("check", side): "broken\nwith a long tale" for side in "ab"}
    assert outcome.together("check", "a", "b") == ([], [])
    assert sum("broken" in line for line in bench.said) == 4
    assert len(outcome.runs["first", "a"]) == 2


def test_a_side_that_cannot_is_left_out_alone(bench: Bench) -> None:
    bench.b.refuses = "speaks no such thing"
    outcome = bench.run(["first"])
    assert outcome.left_out == {("first", "b"): "speaks no such thing"}
    assert set(outcome.runs) == {("first", "a")}


def test_a_restore_that_lost_a_file_is_no_result(bench: Bench) -> None:
    bench.a.forgets = True
    outcome = bench.run(["first", "restore"])
    assert "what was restored differs" in outcome.left_out["restore", "a"]
    assert ("restore", "b") in outcome.runs


def test_warming_reads_every_byte(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(bytes(3 << 20))
    (tmp_path / "link").symlink_to("nowhere")
    before = _read_so_far()
    warm(tmp_path)
    assert _read_so_far() - before >= 3 << 20


def _read_so_far() -> int:
    return int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "rchar" in line).split()[1])
