"""A backup with a scout is the one without, whatever has changed and whatever becomes of the scout."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from snappy.errors import SourceError
from snappy.repository import scout
from snappy.repository.archiver import Archiver, BackupResult
from snappy.repository.comparison import Comparison, Found
from snappy.repository.entries import Below, Directory, Entry, Node, Passed
from snappy.repository.format import BlobType
from snappy.repository.repo import Repository
from snappy.repository.scout import Scout
from snappy.repository.snapshots import Snapshot, Summary
from snappy.repository.store import Store
from snappy.repository.team import Workers
from snappy.repository.tree_reader import TreeReader
from snappy.sources.files import FilesOptions, FilesSource
from tests.support.backups import HOST, tree_below
from tests.support.engine import CHEAP, PASSWORD
from tests.support.worker_stores import Elsewhere

TWO = Workers(most=2)
SECONDS = 20.0
COUNTED = ("files_unmodified", "files_changed", "files_new", "total_files_processed", "total_bytes_processed")


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scout, "WORTH_A_SCOUT", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Four directories, each with two that hold a file, a link and a pipe."""
    top = tmp_path / "tree"
    for outer in "abcd":
        for inner in "xy":
            folder = top / outer / inner
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(f"{outer}{inner}".encode())
            (folder / "link").symlink_to("file")
            os.mkfifo(folder / "pipe")
    return top


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with opened(Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "repository")), tmp_path) as made:
        yield made


def opened(store: Store, tmp_path: Path) -> Repository:
    return Repository.init(store, PASSWORD, cost=CHEAP, cache=tmp_path / "cache")


def source_of(tree: Path) -> FilesSource:
    return FilesSource(FilesOptions(paths=(str(tree),)))


def back_up(
    repository: Repository, tree: Path, parent: Snapshot | None = None, passed: Passed = lambda _: None
) -> BackupResult:
    repository.load_index()
    archiver = Archiver(repository, parent=parent)
    return archiver.backup(source_of(tree).export_rest(None, passed), paths=[str(tree)], hostname=HOST)


def sent(repository: Repository, tree: Path, parent: Snapshot) -> Scout:
    recipe = source_of(tree).backwards(None)
    assert recipe
    made = scout.send(repository, parent, recipe, TWO)
    assert made
    return made


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def rewrite(tree: Path) -> None:
    (tree / "c" / "x" / "file").write_bytes(b"other")


def add(tree: Path) -> None:
    (tree / "c" / "x" / "new").write_bytes(b"new")


def remove(tree: Path) -> None:
    (tree / "c" / "x" / "pipe").unlink()


def lead_elsewhere(tree: Path) -> None:
    (tree / "c" / "x" / "link").unlink()
    (tree / "c" / "x" / "link").symlink_to("elsewhere")


def forbid(tree: Path) -> None:
    (tree / "c" / "x").chmod(0o700)


def make_folder(tree: Path) -> None:
    (tree / "c" / "x" / "new").mkdir()


def make_tree(tree: Path) -> None:
    shutil.copytree(tree / "a" / "x", tree / "c" / "x" / "new", ignore=lambda *_: ["pipe"])


def turn_into_file(tree: Path) -> None:
    shutil.rmtree(tree / "c" / "x")
    (tree / "c" / "x").write_bytes(b"no folder")


CHANGES = [rewrite, add, remove, lead_elsewhere, forbid, make_folder, make_tree, turn_into_file]


def compared(repository: Repository, tree: Path, parent: Snapshot) -> dict[str, Below]:
    """What a scout tells, by the paths below the tree."""
    told: dict[str, Below] = {}

    def tell(path: bytes, below: Below) -> None:
        told[os.path.relpath(os.fsdecode(path), tree)] = below

    has = lambda blobs: repository.has_blobs(BlobType.DATA, blobs)  # noqa: E731
    comparison = Comparison(TreeReader(repository), has, parent.tree_id, tell)
    for one in source_of(tree).entries_backwards(None):
        comparison.take(one)
    comparison.finish()
    return told


def test_all_that_is_as_it_was_is_told_from_the_end(repository: Repository, tree: Path) -> None:
    first = back_up(repository, tree)
    told = compared(repository, tree, first.snapshot)
    here = [path for path in told if not path.startswith("..")]
    assert here == [*(f"{a}{end}" for a in "dcba" for end in ("/y", "/x", "")), "."]
    assert told["."][1:] == (8, 16, 12)
    tops = {os.fsdecode(node.name): node.subtree for node in tree_below(repository, first, tree)}
    assert {path: told[path].tree for path in "abcd"} == tops


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_not_told(repository: Repository, tree: Path, change: Callable[[Path], None]) -> None:
    first = back_up(repository, tree)
    change(tree)
    told = compared(repository, tree, first.snapshot)
    assert not {".", "c"} & set(told)
    assert ("c/x" in told) == (change is forbid)  # of the directory itself nothing is said
    assert {"a", "b", "d", "c/y"} <= set(told)


def test_a_file_whose_blob_is_gone_is_no_more_the_same(repository: Repository, tree: Path) -> None:
    first = back_up(repository, tree)
    comparison_told: list[bytes] = []
    comparison = Comparison(
        TreeReader(repository), lambda _: False, first.snapshot.tree_id, lambda path, _: comparison_told.append(path)
    )
    for one in source_of(tree).entries_backwards(None):
        comparison.take(one)
    comparison.finish()
    assert comparison_told == []


def test_what_the_source_remarks_on_is_not_told(repository: Repository, tree: Path) -> None:
    first = back_up(repository, tree)
    told: list[bytes] = []
    comparison = Comparison(
        TreeReader(repository), lambda _: True, first.snapshot.tree_id, lambda path, _: told.append(path)
    )
    for one in source_of(tree).entries_backwards(None):
        if isinstance(one, Directory) and one.path.endswith(b"/c/x"):
            comparison.take(Entry(path=one.path, node=Node(name=b"x", type="dir"), warning="its tag is unreadable"))
        else:
            comparison.take(one)
    comparison.finish()
    assert [path for path in told if path.endswith((b"/c", b"/c/x", b"/tree"))] == []
    assert os.fsencode(tree / "c" / "y") in told


@pytest.mark.parametrize(("changed", "gives_up"), [("abcd", True), ("ab", False), ("", False)])
def test_it_gives_up_where_nearly_everything_has_changed(
    repository: Repository, tree: Path, changed: str, gives_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snappy.repository.comparison.MOST_IN_VAIN", 10)
    first = back_up(repository, tree)
    for folder in changed:
        for inner in "xy":
            (tree / folder / inner / "file").write_bytes(b"another")
    comparison = Comparison(TreeReader(repository), lambda _: True, first.snapshot.tree_id, lambda *_: None)
    in_vain = []
    for one in source_of(tree).entries_backwards(None):
        comparison.take(one)
        in_vain.append(comparison.is_in_vain())
    assert any(in_vain) == gives_up


def test_entries_in_no_order_are_refused(repository: Repository, tree: Path) -> None:
    first = back_up(repository, tree)
    comparison = Comparison(TreeReader(repository), lambda _: True, first.snapshot.tree_id, lambda *_: None)
    with pytest.raises(SourceError):
        comparison.take(Entry(path=b"/not/entered", node=Node(name=b"entered", type="fifo")))


@pytest.mark.parametrize("change", [lambda _: None, *CHANGES])
def test_the_backup_is_the_same_with_a_scout(
    repository: Repository, tree: Path, change: Callable[[Path], None]
) -> None:
    first = back_up(repository, tree).snapshot
    change(tree)
    passed: list[bytes] = []
    with sent(repository, tree, first) as helper:
        wait_for(lambda: helper._hands[0].ended)

        def spy(path: bytes) -> Below | None:
            if below := helper.passed(path):
                passed.append(path)
            return below

        done = back_up(repository, tree, first, spy)
    alone = back_up(repository, tree, first)
    assert tree_below(repository, done, tree) == tree_below(repository, alone, tree)
    assert [getattr(done.summary, name) for name in COUNTED] == [getattr(alone.summary, name) for name in COUNTED]
    assert done.summary.dirs_new == alone.summary.dirs_new
    assert done.bytes_read == alone.bytes_read
    assert done.warnings == alone.warnings == []
    assert passed


def test_a_directory_that_another_has_moved_is_kept_with_what_is_in_it(repository: Repository, tree: Path) -> None:
    """Its own node is not the parent snapshot's any more, its tree is."""
    first = back_up(repository, tree)
    forbid(tree)
    with sent(repository, tree, first.snapshot) as helper:
        wait_for(lambda: helper._hands[0].ended)
        done = back_up(repository, tree, first.snapshot, helper.passed)
    (before,), (after,) = (
        [node for node in tree_below(repository, one, tree / "c") if node.name == b"x"] for one in (first, done)
    )
    assert (after.mode, after.subtree) == (0o700, before.subtree)


def test_a_scout_that_dies_is_not_missed(repository: Repository, tree: Path) -> None:
    first = back_up(repository, tree).snapshot
    with sent(repository, tree, first) as helper:
        assert helper.is_ready(SECONDS)
        os.kill(helper.processes[0], signal.SIGKILL)
        wait_for(lambda: helper._hands[0].ended)
        done = back_up(repository, tree, first, helper.passed)
    assert done.summary.files_unmodified == 8
    assert done.warnings == []


def test_a_scout_that_gets_no_answer_holds_nobody_up(tmp_path: Path, tree: Path) -> None:
    fsspec.filesystem("file").makedirs(str(tmp_path / "repository"))
    with opened(Elsewhere(tmp_path / "repository", "open_stuck"), tmp_path) as repository:
        first = back_up(repository, tree).snapshot
        began = time.monotonic()
        with sent(repository, tree, first) as helper:
            assert helper.is_ready(SECONDS)
            done = back_up(repository, tree, first, helper.passed)
    assert done.summary.files_unmodified == 8
    assert time.monotonic() - began < SECONDS / 4


def test_where_they_meet_it_is_told_to_stop(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up(repository, tree).snapshot
    with sent(repository, tree, first) as helper:
        stopped: list[bool] = []
        wait_for(lambda: helper._hands[0].ended)
        monkeypatch.setattr(helper._hands[0], "stop", lambda: stopped.append(True))
        helper._known.clear()
        assert helper.passed(b"/m/n") is None
        below = Below(bytes(32), 1, 2, 3)
        helper.take(Found([(b"/z/y", below), (b"/z", below), (b"/m/p", below)]))
        assert (stopped, set(helper._known)) == ([], {b"/z", b"/m/p"})
        helper.take(Found([(b"/m/n", below)]))
        helper.take(Found([(b"/m", below)]))
        assert (stopped, helper.passed(b"/m/p"), helper.passed(b"/m/p")) == ([True, True], below, None)


@pytest.mark.parametrize(
    ("files", "folders", "workers", "is_sent"),
    [(100, 0, 2, True), (0, 50, 2, True), (9, 1, 2, False), (100, 100, 1, False)],
)
def test_it_has_to_be_worth_it(
    repository: Repository,
    tree: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
    folders: int,
    workers: int,
    is_sent: bool,
) -> None:
    monkeypatch.setattr(scout, "WORTH_A_SCOUT", 100)
    parent = back_up(repository, tree).snapshot
    now = parent.time
    parent.summary = Summary(backup_start=now, backup_end=now, total_files_processed=files, dirs_unmodified=folders)
    recipe = source_of(tree).backwards(None)
    assert recipe
    made = scout.send(repository, parent, recipe, Workers(most=workers))
    assert (made is not None) == is_sent
    if made:
        made.close()
    parent.summary = None
    assert scout.send(repository, parent, recipe, TWO) is None
