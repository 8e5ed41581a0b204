"""Backups into a repository in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from snappy.bus.failures import RefusedFile
from snappy.errors import JobCancelled, SourceError, Unavailable, UnsafePath
from snappy.repository.archiver import Archiver, BackupResult, find_parent
from snappy.repository.entries import Entry, Node, Recipe, Siblings
from snappy.repository.format import MIB, BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from snappy.sources import local_node
from snappy.sources.files import FilesOptions, FilesSource
from tests.support import engine
from tests.support.backups import HOST, back_up

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths of the files that were opened for their contents."""
    paths: list[bytes] = []
    real = local_node.open_quietly

    def spy(path: bytes) -> int:
        paths.append(path)
        return real(path)

    monkeypatch.setattr(local_node, "open_quietly", spy)
    return paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "deep").write_bytes(b"deep")
    (top / "a.txt").write_bytes(b"text")
    (top / "large").write_bytes(os.urandom(9 << 20))
    return top


def folder(path: bytes) -> Entry:
    return Entry(path=path, node=Node(name=os.path.basename(path), type="dir"))


def file(path: bytes, content: bytes = b"content", **fields: object) -> Entry:
    node = Node(name=os.path.basename(path), type="file", size=len(content), mtime_ns=1, links=1)
    return Entry(path=path, node=node, open=lambda: io.BytesIO(content), **fields)  # type: ignore[arg-type]


def archive(repository: Repository, *entries: Entry) -> BackupResult:
    return Archiver(repository, now=lambda: NOON).backup(entries, paths=["/x"], hostname=HOST)


def node_of(repository: Repository, result: BackupResult, path: Path) -> Node:
    """The node that stands for ``path`` in the snapshot."""
    found, nodes = None, repository.load_tree(result.snapshot.tree_id)
    for name in os.fsencode(path).split(b"/")[1:]:
        found = next(node for node in nodes if node.name == name)
        nodes = repository.load_tree(found.subtree) if found.subtree else []
    assert found is not None
    return found


def names(repository: Repository, result: BackupResult, *path: bytes) -> list[bytes]:
    nodes = repository.load_tree(result.snapshot.tree_id)
    for name in path:
        subtree = next(node.subtree for node in nodes if node.name == name)
        assert subtree is not None
        nodes = repository.load_tree(subtree)
    return [node.name for node in nodes]


def test_the_snapshot_says_what_and_when(repository: Repository) -> None:
    result = Archiver(repository, now=lambda: NOON).backup(
        [file(b"/x")], paths=["/x"], hostname="h", username="u", tags=["one"], excludes=["*.o"]
    )
    saved = repository.find_snapshot(result.snapshot.id)
    assert (saved.time, saved.hostname, saved.username, saved.tags, saved.excludes, saved.paths) == (
        NOON, "h", "u", ["one"], ["*.o"], ["/x"],
    )  # fmt: skip
    assert saved.summary is not None
    assert (saved.summary.files_new, saved.summary.total_bytes_processed) == (1, 7)
    assert saved.summary.backup_start == saved.summary.backup_end == NOON


def test_another_process_finds_all_of_it(repository: Repository, tree: Path) -> None:
    result = back_up(repository, tree)
    again = engine.reopened(repository)
    nodes = again.load_tree(result.snapshot.tree_id)
    for name in os.fsencode(tree).split(b"/")[1:]:
        node = next(node for node in nodes if node.name == name)
        assert node.subtree is not None
        nodes = again.load_tree(node.subtree)
    assert [node.name for node in nodes] == [b"a", b"a.txt", b"large"]
    content = nodes[2].content
    assert content is not None
    assert len(content) > 2
    assert b"".join(again.load_blob(BlobType.DATA, blob) for blob in content) == (tree / "large").read_bytes()


def test_an_unchanged_backup_opens_nothing_and_stores_nothing(
    repository: Repository, tree: Path, opened: list[bytes]
) -> None:
    first = back_up(repository, tree)
    assert len(opened) == 3
    opened.clear()
    second = back_up(repository, tree, parent=first.snapshot)
    assert opened == []
    assert node_of(repository, second, tree) == node_of(repository, first, tree)
    assert second.snapshot.parent == first.snapshot.id
    summary = second.summary
    assert (summary.files_unmodified, summary.files_new, summary.files_changed) == (3, 0, 0)
    assert (summary.dirs_new, summary.data_blobs, second.bytes_read) == (0, 0, 0)
    above = len(tree.parents)  # others may write in the temporary folder meanwhile
    assert summary.dirs_unmodified >= 3
    assert summary.tree_blobs <= above


def test_only_what_changed_is_opened(repository: Repository, tree: Path, opened: list[bytes]) -> None:
    first = back_up(repository, tree)
    opened.clear()
    (tree / "a" / "b" / "deep").write_bytes(b"different")
    (tree / "new").write_bytes(b"new")
    second = back_up(repository, tree, parent=first.snapshot)
    assert sorted(map(os.path.basename, opened)) == [b"deep", b"new"]
    summary = second.summary
    assert (summary.files_changed, summary.files_new, summary.files_unmodified) == (1, 1, 2)
    assert second.bytes_read == len(b"different") + len(b"new")


@pytest.mark.parametrize("same_size", [b"abcd", b"text"])
def test_a_file_rewritten_with_its_old_time_is_read(
    repository: Repository, tree: Path, opened: list[bytes], same_size: bytes
) -> None:
    first = back_up(repository, tree)
    opened.clear()
    before = (tree / "a.txt").stat()
    (tree / "a.txt").write_bytes(same_size)
    os.utime(tree / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    back_up(repository, tree, parent=first.snapshot)
    assert opened == [os.fsencode(tree / "a.txt")]


def test_force_reads_everything(repository: Repository, tree: Path, opened: list[bytes]) -> None:
    first = back_up(repository, tree)
    opened.clear()
    second = back_up(repository, tree, parent=first.snapshot, force=True)
    assert len(opened) == 3
    assert second.summary.files_unmodified == 3
    assert second.summary.data_blobs == 0


def test_without_times_nothing_is_taken_for_unchanged(repository: Repository) -> None:
    def timeless() -> Entry:
        entry = file(b"/x")
        entry.node.mtime_ns = 0
        return entry

    first = archive(repository, timeless())
    second = Archiver(repository, parent=first.snapshot).backup([timeless()], paths=["/x"], hostname=HOST)
    assert second.bytes_read == 7


def test_a_file_whose_blobs_are_gone_is_stored_again(tree: Path, opened: list[bytes]) -> None:
    with engine.new_repository() as old:
        first = back_up(old, tree)
        trees_only = engine.reopened(old)
        engine.forget(trees_only, BlobType.DATA)
        opened.clear()
        second = back_up(trees_only, tree, parent=first.snapshot)
        trees_only.close()
    assert len(opened) == 3
    assert second.warnings_total == 3
    assert "missing in the repository" in second.warnings[0].message


def test_a_file_that_vanishes_is_reported(repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = local_node.open_quietly

    def vanish(path: bytes) -> int:
        if path.endswith(b"a.txt"):
            os.unlink(path)
        return real(path)

    monkeypatch.setattr(local_node, "open_quietly", vanish)
    result = back_up(repository, tree)
    assert [(problem.path, problem.message) for problem in result.warnings] == [
        (os.fsencode(tree / "a.txt"), "it vanished before it could be read")
    ]
    assert b"a.txt" not in names(repository, result, *os.fsencode(tree).split(b"/")[1:])
    assert result.summary.files_new == 2


def test_a_file_that_is_swapped_is_not_read(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = local_node.open_quietly

    def swap(path: bytes) -> int:
        if path.endswith(b"a.txt"):
            os.rename(tree / "a" / "b" / "deep", path)
        return real(path)

    monkeypatch.setattr(local_node, "open_quietly", swap)
    result = back_up(repository, tree)
    assert (
        "replaced by another file"
        in {problem.path: problem.message for problem in result.warnings}[os.fsencode(tree / "a.txt")]
    )


def test_a_file_that_changes_while_it_is_read_is_kept_and_reported(
    repository: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = local_node.open_quietly

    def grow(path: bytes) -> int:
        if path.endswith(b"a.txt"):
            with open(path, "ab") as more:
                more.write(b" and more")
        return real(path)

    monkeypatch.setattr(local_node, "open_quietly", grow)
    result = back_up(repository, tree)
    assert [problem.message for problem in result.warnings] == ["its content may be torn: it changed while it was read"]
    assert b"a.txt" in names(repository, result, *os.fsencode(tree).split(b"/")[1:])


def test_a_read_error_leaves_one_file_out(repository: Repository) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    broken = file(b"/b")
    broken.open = Broken
    result = archive(repository, file(b"/a"), broken, file(b"/c"))
    assert names(repository, result) == [b"a", b"c"]
    assert [problem.message for problem in result.warnings] == ["it cannot be read: Input/output error"]


def test_a_read_error_amid_large_files_leaves_one_out(repository: Repository) -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: object, /) -> int:
            raise OSError(5, "Input/output error")

    large = os.urandom(MIB)
    entries = [file(b"/%d" % number, large) for number in range(6)]
    for entry in entries:
        entry.recipe = Recipe("", ())  # as a local file, which is read by the thread that walks
    entries[2].open = lambda: Broken(large)
    entries[3].open = io.BytesIO
    result = archive(repository, *entries)
    assert names(repository, result) == [b"0", b"1", b"3", b"4", b"5"]
    assert [(problem.path, problem.message) for problem in result.warnings] == [
        (b"/2", "it cannot be read: Input/output error"),
        (b"/3", f"its content may be torn: it had {MIB} bytes and gave 0"),
    ]


def test_less_than_announced_is_reported(repository: Repository) -> None:
    short = file(b"/a", b"abc")
    short.node.size = 10
    result = archive(repository, short)
    assert "it had 10 bytes and gave 3" in result.warnings[0].message
    assert repository.load_tree(result.snapshot.tree_id)[0].size == 3


def test_what_the_source_says_of_one_object_is_reported(repository: Repository) -> None:
    gone = Entry(path=b"/b", node=Node(name=b"b", type="irregular"), error="it cannot be looked at")
    locked = folder(b"/c")
    locked.error = "the directory cannot be read"
    partly = file(b"/d")
    partly.warning = "metadata is incomplete"
    result = archive(repository, file(b"/a"), gone, locked, partly)
    assert names(repository, result) == [b"a", b"c", b"d"]
    assert [problem.path for problem in result.warnings] == [b"/b", b"/c", b"/d"]


@pytest.mark.parametrize(
    "paths",
    [
        [b"/b", b"/a"],
        [b"/a", b"/a"],
        [b"/a/x"],
        [b"/d/", b"/d/y", b"/d/x"],
        [b"/d/", b"/d/x", b"/e", b"/d/y"],
    ],
)
def test_entries_out_of_order_are_refused(repository: Repository, paths: list[bytes]) -> None:
    entries = [folder(path[:-1]) if path.endswith(b"/") else file(path) for path in paths]
    with pytest.raises(SourceError, match="out of order"):
        archive(repository, *entries)
    assert repository.snapshots() == []


@pytest.mark.parametrize("known", [True, False])
def test_siblings_out_of_order_are_refused(repository: Repository, tree: Path, known: bool) -> None:
    first = back_up(repository, tree)
    source = FilesSource(FilesOptions(paths=(str(tree),)))
    turned = (
        one._replace(looks=one.looks[::-1]) if isinstance(one, Siblings) and one.folder.endswith(b"/tree") else one
        for one in source.export(None)
    )
    archiver = Archiver(repository, parent=first.snapshot if known else None)
    with pytest.raises(SourceError, match="out of order"):
        archiver.backup(turned, paths=["/x"], hostname=HOST)
    assert len(repository.snapshots()) == 1


@pytest.mark.parametrize("path", [b"/..", b"/.", b"/a\0b", b"relative", b"//"])
def test_names_that_are_none_are_refused(repository: Repository, path: bytes) -> None:
    with pytest.raises(UnsafePath):
        archive(repository, file(path))


def test_nothing_at_all_is_an_error(repository: Repository) -> None:
    with pytest.raises(SourceError, match="nothing could be backed up"):
        archive(repository)
    assert repository.snapshots() == []


def test_an_error_of_the_source_ends_the_backup(repository: Repository) -> None:
    class Dump(io.BytesIO):
        def close(self) -> None:
            super().close()
            raise SourceError("the dump ended with status 1")

    dump = file(b"/dump")
    dump.open = Dump
    with pytest.raises(SourceError, match="status 1"):
        archive(repository, dump)
    assert repository.snapshots() == []


def test_cancelling_leaves_no_snapshot_and_what_was_stored_is_found_again(repository: Repository, tree: Path) -> None:
    left = [6]

    def cancelled() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise JobCancelled

    source = FilesSource(FilesOptions(paths=(str(tree),)))
    with pytest.raises(JobCancelled):
        Archiver(repository, cancelled=cancelled).backup(source.export(None), paths=["/x"], hostname=HOST)
    assert repository.store.list(FileType.SNAPSHOT) == []
    assert back_up(repository, tree).warnings == []


def test_a_failing_store_ends_the_backup(tree: Path) -> None:
    def refuse(method: str, path: str) -> None:
        if method == "pipe_file" and "/data/" in path:
            raise ConnectionError("gone")

    filesystem = engine.Interposed(lambda method, path: None)
    with engine.new_repository(engine.memory_store(filesystem)) as repository:
        filesystem.before = refuse
        with pytest.raises(Unavailable):
            back_up(repository, tree)
        assert repository.store.list(FileType.SNAPSHOT) == []


def test_a_damaged_parent_is_a_warning(tree: Path) -> None:
    store = engine.memory_store()
    with engine.new_repository(store) as repository:
        first = back_up(repository, tree)
        location = repository.locations(BlobType.TREE, first.snapshot.tree_id)
        pack = location[0].pack.hex()
        engine.flip(store, f"data/{pack[:2]}/{pack}", location[0].offset + 20)
    with engine.reopened(repository) as again:
        second = back_up(again, tree, parent=first.snapshot)
    assert second.warnings[0].code == "damaged"
    assert second.summary.files_new == 3


def test_progress_counts_files_and_bytes(repository: Repository, tree: Path) -> None:
    source = FilesSource(FilesOptions(paths=(str(tree),)))
    total = 4 + 4 + (9 << 20)
    progress = Progress()
    first = Archiver(repository, progress=progress).backup(source.export(None), paths=["/x"], hostname=HOST)
    assert (progress.files_done, progress.bytes_done) == (3, total)
    again = Progress()
    Archiver(repository, progress=again, parent=first.snapshot).backup(source.export(None), paths=["/x"], hostname=HOST)
    assert (again.files_done, again.bytes_done, again.files_total, again.bytes_total) == (3, total, 3, total)


def test_the_parent_is_the_newest_of_the_same_host_and_paths(repository: Repository) -> None:
    def saved(day: int, host: str, *paths: str) -> str:
        when = datetime(2026, 5, day, tzinfo=UTC)
        archiver = Archiver(repository, now=lambda: when)
        return archiver.backup([file(b"/x")], paths=paths, hostname=host).snapshot.id

    wanted = saved(3, "a", "/y", "/x")
    saved(1, "a", "/x", "/y")
    saved(4, "b", "/x", "/y")
    saved(5, "a", "/x")
    found = find_parent(repository, hostname="a", paths=["/x", "/y"])
    assert found is not None
    assert found.id == wanted
    assert find_parent(repository, hostname="c", paths=["/x"]) is None


def test_many_directories_with_few_files_each(repository: Repository) -> None:
    entries = [entry for number in range(300) for entry in small_folder(b"/%04d" % number)]
    first = archive(repository, *entries)
    assert first.summary.dirs_new == 300
    assert len(names(repository, first)) == 300


def test_the_parents_trees_are_read_many_at_a_time() -> None:
    reads: list[str] = []
    filesystem = engine.Interposed(lambda method, path: reads.append(path) if method == "cat_file" else None)
    entries = [entry for number in range(300) for entry in small_folder(b"/%04d" % number)]
    with engine.new_repository(engine.memory_store(filesystem)) as repository:
        first = archive(repository, *entries)
    with engine.reopened(repository) as again:
        reads.clear()
        second = Archiver(again, parent=first.snapshot).backup(entries, paths=["/x"], hostname=HOST)
    assert second.summary.dirs_unmodified == 300
    assert len([path for path in reads if "/data/" in path]) < 10


def group(number: int, content: bytes) -> list[Entry]:
    """A directory with two: one in which one of two directories changes, and one that stays."""
    top = b"/%03d" % number
    changing = [folder(top + b"/a/1"), file(top + b"/a/1/f", content), *small_folder(top + b"/a/2")]
    return [folder(top), folder(top + b"/a"), *changing, folder(top + b"/b"), *small_folder(top + b"/b/1")]


def test_what_lies_behind_a_changed_directory_is_read_with_what_is_in_it() -> None:
    reads: list[str] = []
    filesystem = engine.Interposed(lambda method, path: reads.append(path) if method == "cat_file" else None)
    groups, parent = 20, None
    with engine.new_repository(engine.memory_store(filesystem)) as repository:
        for content in (b"before", b"later", b"later"):
            entries = [entry for number in range(groups) for entry in group(number, content)]
            reads.clear()
            done = Archiver(repository, parent=parent).backup(entries, paths=["/x"], hostname=HOST)
            repository.load_index()
            parent = done.snapshot
    assert done.summary.dirs_unmodified == 6 * groups
    assert len([path for path in reads if "/data/" in path]) < 1.3 * groups


def small_folder(path: bytes) -> list[Entry]:
    return [folder(path), file(path + b"/f", path)]


def test_a_store_that_refuses_ends_the_backup_and_is_no_file_s_fault() -> None:
    """What a target says over the bus is an OSError as well, as users of fsspec expect."""

    def refuse(method: str, path: str) -> None:
        if "/data/" in path:
            raise RefusedFile("the target does not allow that")

    reads: list[int] = []

    def numbered(number: int) -> Entry:
        def opened() -> BinaryIO:
            reads.append(number)
            return io.BytesIO(b"%d" % number)

        name = b"%04d" % number
        return Entry(path=b"/" + name, node=Node(name=name, type="file"), open=opened)

    filesystem = engine.Interposed(lambda method, path: None)
    with engine.new_repository(engine.memory_store(filesystem), Options(pack_size=1)) as repository:
        filesystem.before = refuse
        archiver = Archiver(repository)
        with pytest.raises(RefusedFile):
            archiver.backup(map(numbered, range(2000)), paths=["/x"], hostname="h")
        assert len(reads) < 1000
        assert archiver._problems.total == 0
