"""Restores from a repository in memory: whole, in part, damaged, and hostile."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import BadOptions, Damaged, JobCancelled, NoSpace, SnapshotNotFound, Unavailable, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.pack_writer import Options
from snappy.repository.progress import Progress
from snappy.repository.repo import Repository
from snappy.repository.restorer import Restorer
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree import encode_tree
from snappy.sources.local_sink import LocalSink
from snappy.sources.restored_local_file import LocalFile
from tests.support import engine
from tests.support.backups import back_up, bring_back, inside
from tests.support.compare import compare
from tests.support.odd_tree import make_odd_tree


@pytest.fixture
def repository() -> Iterator[Repository]:
    with engine.new_repository() as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "docs" / "api").mkdir(parents=True)
    (top / "src").mkdir()
    (top / "docs" / "api" / "index.html").write_bytes(b"<html>")
    (top / "docs" / "readme.txt").write_bytes(b"read me")
    (top / "src" / "main.c").write_bytes(b"int main")
    (top / "src" / "main.o").write_bytes(b"\x7fELF")
    return top


def files_below(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir())


# Whole trees


def test_an_odd_tree_comes_back_as_it_was(repository: Repository, tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "tree")
    result = bring_back(repository, back_up(repository, tmp_path / "tree").snapshot, tmp_path / "out")
    found = compare(tmp_path / "tree", inside(tmp_path / "out", tmp_path / "tree"))
    assert found.same, found.differences
    assert (result.errors, result.warnings, result.failure()) == ([], [], None)
    assert result.files == found.files
    assert result.bytes >= found.bytes


def test_sparse_files_come_back_sparse(repository: Repository, tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "tree")
    bring_back(repository, back_up(repository, tmp_path / "tree").snapshot, tmp_path / "out")
    restored = inside(tmp_path / "out", tmp_path / "tree")
    assert (restored / "sparse").stat().st_blocks * 512 < 200_000
    assert (restored / "all zeros").stat().st_blocks * 512 < 50_000


def test_many_batches_and_many_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappy.repository.batch_runner.BATCH_BYTES", 1 << 20)
    monkeypatch.setattr("snappy.repository.batch_runner.BATCH_BLOBS", 5)
    make_odd_tree(tmp_path / "tree")
    with engine.new_repository(options=Options(pack_size=1 << 20)) as repository:
        snapshot = back_up(repository, tmp_path / "tree").snapshot
        result = bring_back(repository, snapshot, tmp_path / "out")
    found = compare(tmp_path / "tree", inside(tmp_path / "out", tmp_path / "tree"))
    assert found.same, found.differences
    assert result.failure() is None


def test_a_restore_over_an_older_state_replaces_it(repository: Repository, tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "tree")
    snapshot = back_up(repository, tmp_path / "tree").snapshot
    place = inside(tmp_path / "out", tmp_path / "tree")
    (place / "one").mkdir(parents=True)
    (place / "link").write_bytes(b"was a file")
    (place / "zero").symlink_to("one")
    (place / "empty").write_bytes(b"was a file")
    (place / "setgid").symlink_to("/nowhere")
    result = bring_back(repository, snapshot, tmp_path / "out")
    found = compare(tmp_path / "tree", place)
    assert result.failure() is None
    assert found.same, found.differences


def test_a_full_directory_where_a_file_should_be_is_an_error(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    snapshot = back_up(repository, tree).snapshot
    place = inside(tmp_path / "out", tree)
    (place / "src" / "main.c" / "kept").mkdir(parents=True)
    result = bring_back(repository, snapshot, tmp_path / "out")
    assert [problem.path for problem in result.errors] == [os.fsencode(tree / "src" / "main.c")]
    assert (place / "src" / "main.c" / "kept").is_dir()
    assert (place / "src" / "main.o").read_bytes() == b"\x7fELF"


def test_progress_ends_at_what_was_expected(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    progress = Progress()
    sink = LocalSink(os.fsencode(tmp_path / "out"), owner=None)
    Restorer(repository, sink, progress=progress).restore(snapshot)
    sink.close()
    assert (progress.files_done, progress.bytes_done) == (progress.files_total, progress.bytes_total)
    assert progress.files_done == 4


# Over what is there


@pytest.fixture
def large(tree: Path) -> Path:
    """A file of several blobs, with a hole."""
    place = tree / "large"
    place.write_bytes(os.urandom(5 << 20))
    os.truncate(place, 12 << 20)
    return place


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[BlobLocation]:
    """The data blobs that restores fetch."""
    found: list[BlobLocation] = []
    real = Repository.load_blobs

    def load_blobs(self: Repository, pack: bytes, blobs: list[BlobLocation]) -> Any:
        found.extend(blob for blob in blobs if blob.kind is BlobType.DATA)
        return real(self, pack, blobs)

    monkeypatch.setattr(Repository, "load_blobs", load_blobs)
    return found


@pytest.mark.parametrize("overwrite", ["always", "if-changed"])
def test_what_is_right_stays(
    repository: Repository, tree: Path, large: Path, tmp_path: Path, fetched: list[BlobLocation], overwrite: str
) -> None:
    (tree / "empty").touch()
    snapshot = back_up(repository, tree).snapshot
    place = inside(tmp_path / "out", tree)
    first = bring_back(repository, snapshot, tmp_path / "out")
    before = {path: path.stat() for path in place.rglob("*") if path.is_file()}
    fetched.clear()
    again = bring_back(repository, snapshot, tmp_path / "out", overwrite=overwrite)
    assert fetched == []
    assert (first.unmodified, again.unmodified) == (0, 6)
    assert (first.files, first.bytes) == (again.files, again.bytes)
    for path, found in before.items():
        now = path.stat()
        assert (now.st_ino, now.st_ctime_ns, now.st_atime_ns) == (found.st_ino, found.st_ctime_ns, found.st_atime_ns)


def test_only_what_differs_is_fetched(
    repository: Repository, tree: Path, large: Path, tmp_path: Path, fetched: list[BlobLocation]
) -> None:
    snapshot = back_up(repository, tree).snapshot
    place = inside(tmp_path / "out", tree)
    bring_back(repository, snapshot, tmp_path / "out")
    fetched.clear()
    old = (place / "large").stat().st_ino
    with (place / "large").open("r+b") as file:
        file.write(b"other")
        reader = (place / "large").open("rb")
    (place / "docs" / "readme.txt").write_bytes(b"READ ME")
    (place / "src" / "main.c").chmod(0o777)
    result = bring_back(repository, snapshot, tmp_path / "out")
    found = compare(tree, place)
    assert found.same, found.differences
    assert result.unmodified == 2
    assert len(fetched) == 2
    assert (place / "large").stat().st_blocks * 512 < 6 << 20
    with reader:  # who reads the old file goes on reading that
        assert os.fstat(reader.fileno()).st_ino == old
        assert reader.read(5) == b"other"


def test_a_longer_and_a_shorter_file(repository: Repository, tree: Path, large: Path, tmp_path: Path) -> None:
    (tree / "empty").touch()
    snapshot = back_up(repository, tree).snapshot
    place = inside(tmp_path / "out", tree)
    bring_back(repository, snapshot, tmp_path / "out")
    (place / "empty").write_bytes(b"no more")
    (place / "src" / "main.o").write_bytes(b"\x7fELF and more")
    os.truncate(place / "large", 1 << 20)
    result = bring_back(repository, snapshot, tmp_path / "out")
    found = compare(tree, place)
    assert found.same, found.differences
    assert result.unmodified == 3


def test_times_are_trusted_only_when_asked(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out")
    forged = inside(tmp_path / "out", tree) / "docs" / "readme.txt"
    stamp = forged.stat().st_mtime_ns
    forged.write_bytes(b"READ ME")
    os.utime(forged, ns=(stamp, stamp))
    bring_back(repository, snapshot, tmp_path / "out", overwrite="if-changed")
    assert forged.read_bytes() == b"READ ME"
    bring_back(repository, snapshot, tmp_path / "out")
    assert forged.read_bytes() == b"read me"


@pytest.mark.parametrize(
    ("overwrite", "shift", "kept"), [("never", -1, True), ("if-newer", 0, True), ("if-newer", -1, False)]
)
def test_what_is_to_stay_as_it_is(
    repository: Repository, tree: Path, tmp_path: Path, overwrite: str, shift: int, kept: bool
) -> None:
    os.link(tree / "src" / "main.c", tree / "src" / "twin.c")
    (tree / "link").symlink_to("src")
    snapshot = back_up(repository, tree).snapshot
    place = inside(tmp_path / "out", tree)
    bring_back(repository, snapshot, tmp_path / "out")
    (place / "src" / "twin.c").unlink()
    for name in ("docs/readme.txt", "src/main.c", "link"):
        stamp = (tree / name).lstat().st_mtime_ns + shift
        (place / name).unlink()
        (place / name).write_bytes(b"mine")
        os.utime(place / name, ns=(stamp, stamp))
    result = bring_back(repository, snapshot, tmp_path / "out", overwrite=overwrite)
    assert result.failure() is None
    assert [(place / name).read_bytes() == b"mine" for name in ("docs/readme.txt", "src/main.c")] == [kept, kept]
    assert (place / "link").is_symlink() is not kept
    twin = place / "src" / "twin.c"
    assert (twin.read_bytes(), twin.samefile(place / "src" / "main.c")) == (
        (tree / "src" / "main.c").read_bytes(),
        not kept,
    )
    assert (result.files, result.unmodified) == ((1, 4) if kept else (3, 2))


def test_what_cannot_be_read_is_fetched(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out")

    def fail(handle: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        result = bring_back(repository, snapshot, tmp_path / "out")
    assert (result.failure(), result.unmodified) == (None, 0)
    assert compare(tree, inside(tmp_path / "out", tree)).same


def test_a_full_disk_over_what_is_there(
    repository: Repository, tree: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out")
    os.truncate(inside(tmp_path / "out", tree) / "large", 4 << 20)

    def full(self: LocalFile, offset: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFile, "write_at", full)
    handles = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NoSpace):
        bring_back(repository, snapshot, tmp_path / "out")
    assert len(os.listdir("/proc/self/fd")) == handles


# Parts of trees


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.c"], [], ["src/main.c"]),
        ([], ["*.o"], ["docs/api/index.html", "docs/readme.txt", "src/main.c"]),
        (["docs"], [], ["docs/api/index.html", "docs/readme.txt"]),
        (["docs"], ["api"], ["docs/readme.txt"]),
        (["docs/api"], [], ["docs/api/index.html"]),
        (["src/*", "!*.o"], [], ["src/main.c"]),
        (["nothing"], [], []),
    ],
)
def test_patterns_select(
    repository: Repository, tree: Path, tmp_path: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    snapshot = back_up(repository, tree).snapshot
    result = bring_back(repository, snapshot, tmp_path / "out", include=include, exclude=exclude)
    assert files_below(inside(tmp_path / "out", tree)) == expected
    assert result.files == len(expected)


def test_an_absolute_include_brings_the_directories_above_with_their_metadata(
    repository: Repository, tree: Path, tmp_path: Path
) -> None:
    (tree / "docs").chmod(0o751)
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out", include=[f"{tree}/docs/api"])
    place = inside(tmp_path / "out", tree)
    assert files_below(place) == ["docs/api/index.html"]
    assert (place / "docs").stat().st_mode & 0o777 == 0o751
    assert (place / "docs").stat().st_mtime_ns == (tree / "docs").stat().st_mtime_ns


def test_an_absolute_include_does_not_read_trees_aside(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out", include=[f"{tree}/docs"])
    assert not (inside(tmp_path / "out", tree) / "src").exists()


def test_a_directory_alone(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    bring_back(repository, snapshot, tmp_path / "out", subpath=os.fsencode(tree / "docs"))
    assert files_below(tmp_path / "out") == ["api/index.html", "readme.txt"]


def test_a_directory_that_is_not_there(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    with pytest.raises(SnapshotNotFound, match="nowhere"):
        bring_back(repository, snapshot, tmp_path / "out", subpath=b"/nowhere")


def test_a_malformed_pattern(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    with pytest.raises(BadOptions):
        bring_back(repository, snapshot, tmp_path / "out", include=["!"])


# Damage


def test_one_damaged_file_does_not_stop_the_others(tree: Path, tmp_path: Path) -> None:
    store = engine.memory_store()
    with engine.new_repository(store) as repository:
        snapshot = back_up(repository, tree).snapshot
    with engine.reopened(repository) as again:
        node = find(again, snapshot, tree / "src" / "main.c")
        assert node.content is not None
        location = again.locations(BlobType.DATA, node.content[0])[0]
        pack = location.pack.hex()
        engine.flip(store, f"data/{pack[:2]}/{pack}", location.offset + 20)
        result = bring_back(again, snapshot, tmp_path / "out")
    assert [(problem.path, problem.code) for problem in result.errors] == [
        (os.fsencode(tree / "src" / "main.c"), "damaged")
    ]
    failure = result.failure()
    assert isinstance(failure, Damaged)
    assert "main.c" in failure.message
    place = inside(tmp_path / "out", tree)
    assert (place / "src" / "main.o").read_bytes() == b"\x7fELF"
    assert result.files == 3


def test_a_blob_in_no_index(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    node = find(repository, snapshot, tree / "src" / "main.c")
    assert node.content is not None
    engine.forget(repository, BlobType.DATA, node.content[0])
    result = bring_back(repository, snapshot, tmp_path / "out")
    assert [problem.path for problem in result.errors] == [os.fsencode(tree / "src" / "main.c")]
    assert "in no index" in result.errors[0].message


def test_a_lost_directory_is_reported_and_made(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot
    node = find(repository, snapshot, tree / "src")
    assert node.subtree is not None
    engine.forget(repository, BlobType.TREE, node.subtree)
    result = bring_back(repository, snapshot, tmp_path / "out")
    assert [problem.path for problem in result.errors] == [os.fsencode(tree / "src")]
    assert (inside(tmp_path / "out", tree) / "src").is_dir()
    assert (inside(tmp_path / "out", tree) / "docs" / "readme.txt").exists()


def test_hard_links_to_a_lost_file_are_lost(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"linked")
    os.link(tmp_path / "tree" / "a", tmp_path / "tree" / "b")
    snapshot = back_up(repository, tmp_path / "tree").snapshot
    engine.forget(repository, BlobType.DATA)
    result = bring_back(repository, snapshot, tmp_path / "out")
    assert [problem.code for problem in result.errors] == ["damaged", "damaged"]


def test_a_store_that_is_gone_ends_the_restore(tree: Path, tmp_path: Path) -> None:
    filesystem = engine.Interposed(lambda method, path: None)
    with engine.new_repository(engine.memory_store(filesystem)) as repository:
        snapshot = back_up(repository, tree).snapshot
        data = {blob.pack.hex() for blob in repository.index if blob.kind is BlobType.DATA}

        def refuse(method: str, path: str) -> None:
            if method == "cat_file" and path.rpartition("/")[2] in data:
                raise ConnectionError("gone")

        filesystem.before = refuse
        with pytest.raises(Unavailable):
            bring_back(repository, snapshot, tmp_path / "out")


def test_cancelling_ends_the_restore(repository: Repository, tree: Path, tmp_path: Path) -> None:
    snapshot = back_up(repository, tree).snapshot

    def cancelled() -> None:
        raise JobCancelled

    sink = LocalSink(os.fsencode(tmp_path / "out"), owner=None)
    with pytest.raises(JobCancelled):
        Restorer(repository, sink, cancelled=cancelled).restore(snapshot)
    sink.close()
    assert files_below(tmp_path / "out") == []


def test_a_full_disk_ends_the_restore(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = back_up(repository, tree).snapshot

    def full(self: LocalFile, offset: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFile, "write_at", full)
    with pytest.raises(NoSpace):
        bring_back(repository, snapshot, tmp_path / "out")


def test_a_write_error_is_one_files_error(
    repository: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = back_up(repository, tree).snapshot
    real = LocalFile.write_at

    def fail(self: LocalFile, offset: int, data: bytes) -> None:
        if data == b"read me":
            raise OSError(errno.EIO, "Input/output error")
        real(self, offset, data)

    monkeypatch.setattr(LocalFile, "write_at", fail)
    result = bring_back(repository, snapshot, tmp_path / "out")
    assert [(problem.path, problem.message) for problem in result.errors] == [
        (os.fsencode(tree / "docs" / "readme.txt"), "Input/output error")
    ]
    assert result.files == 3


# Hostile trees


def forged(repository: Repository, *nodes: Node) -> Snapshot:
    """A snapshot whose root holds these nodes, whatever their names."""
    tree = repository.save_tree(list(nodes)).id
    repository.flush()
    snapshot = Snapshot(time=datetime(2026, 1, 1, tzinfo=UTC), tree=tree.hex(), paths=["/"])
    repository.save_snapshot(snapshot)
    return snapshot


def forged_file(repository: Repository, name: bytes, content: bytes = b"evil") -> Node:
    blob = repository.save_blob(BlobType.DATA, content).id
    return Node(name=name, type="file", mode=0o644, size=len(content), content=[blob], links=1)


def forged_folder(repository: Repository, name: bytes, *nodes: Node) -> Node:
    return Node(name=name, type="dir", mode=0o755, subtree=repository.save_tree(list(nodes)).id)


@pytest.mark.parametrize("name", [b"..", b".", b"", b"../escaped", b"/escaped", b"a/b", b"a\0b"])
@pytest.mark.parametrize("kind", ["file", "dir", "symlink"])
def test_names_that_lead_elsewhere_are_refused(repository: Repository, tmp_path: Path, name: bytes, kind: str) -> None:
    inner = forged_file(repository, b"escaped")
    node = {
        "file": forged_file(repository, name),
        "dir": forged_folder(repository, name, inner),
        "symlink": Node(name=name, type="symlink", link_target=b"/etc"),
    }[kind]
    good = forged_file(repository, b"good", b"fine")
    snapshot = forged(repository, node, good)
    result = bring_back(repository, snapshot, tmp_path / "jail" / "out")
    assert isinstance(result.failure(), UnsafePath)
    assert [problem.code for problem in result.errors] == ["unsafe-path"]
    assert sorted(os.listdir(tmp_path / "jail")) == ["out"]
    assert os.listdir(tmp_path / "jail" / "out") == ["good"]


def test_a_symlink_and_a_directory_of_one_name(repository: Repository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = Node(name=b"x", type="symlink", link_target=os.fsencode(outside))
    folder = forged_folder(repository, b"x", forged_file(repository, b"escaped"))
    tree = _unchecked_tree(repository, link, folder)
    bring_back(repository, tree, tmp_path / "out")
    assert os.listdir(outside) == []


def test_a_directory_and_a_symlink_of_one_name(repository: Repository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = forged_folder(repository, b"x", forged_file(repository, b"escaped"))
    link = Node(name=b"x", type="symlink", link_target=os.fsencode(outside))
    tree = _unchecked_tree(repository, folder, link)
    result = bring_back(repository, tree, tmp_path / "out")
    assert os.listdir(outside) == []
    assert result.errors


def _unchecked_tree(repository: Repository, *nodes: Node) -> Snapshot:
    """A tree in which two nodes have one name, in the order given, as only a forger writes it."""
    parts = []
    for node in nodes:
        parts.append(encode_tree([node]).strip().removeprefix(b'{"nodes":[').removesuffix(b"]}"))
    tree = repository.save_blob(BlobType.TREE, b'{"nodes":[' + b",".join(parts) + b"]}\n").id
    repository.flush()
    snapshot = Snapshot(time=datetime(2026, 1, 1, tzinfo=UTC), tree=tree.hex(), paths=["/"])
    repository.save_snapshot(snapshot)
    return snapshot


def test_a_symlink_planted_while_the_restore_runs(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, place = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    snapshot = forged(repository, forged_folder(repository, b"x", forged_file(repository, b"escaped")))
    real = LocalSink.directory

    def plant(self: LocalSink, path: bytes, node: Node) -> None:
        real(self, path, node)
        self._folders.forget(path)
        (place / "x").rmdir()
        (place / "x").symlink_to(outside)

    monkeypatch.setattr(LocalSink, "directory", plant)
    result = bring_back(repository, snapshot, place)
    assert os.listdir(outside) == []
    assert isinstance(result.failure(), UnsafePath)


def test_a_symlink_that_was_there_is_replaced_not_followed(repository: Repository, tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    place.mkdir()
    (place / "x").symlink_to(outside)
    (place / "f").symlink_to(outside / "victim")
    snapshot = forged(
        repository,
        forged_file(repository, b"f"),
        forged_folder(repository, b"x", forged_file(repository, b"victim", b"overwritten")),
    )
    result = bring_back(repository, snapshot, place)
    assert result.failure() is None
    assert (outside / "victim").read_bytes() == b"untouched"
    assert (place / "x" / "victim").read_bytes() == b"overwritten"
    assert not (place / "f").is_symlink()


def test_contents_longer_than_the_node_says_come_whole(repository: Repository, tmp_path: Path) -> None:
    node = forged_file(repository, b"f", b"eleven byte")
    node.size = 3
    result = bring_back(repository, forged(repository, node), tmp_path / "out")
    assert (tmp_path / "out" / "f").read_bytes() == b"eleven byte"
    assert "says 3 bytes, there are 11" in result.warnings[0].message


def test_a_directory_without_a_tree(repository: Repository, tmp_path: Path) -> None:
    result = bring_back(repository, forged(repository, Node(name=b"d", type="dir")), tmp_path / "out")
    assert isinstance(result.failure(), Damaged)


def find(repository: Repository, snapshot: Snapshot, path: Path) -> Node:
    """The node that stands for ``path`` in the snapshot."""
    tree, node = snapshot.tree_id, None
    for name in os.fsencode(path).split(b"/")[1:]:
        node = next(one for one in repository.load_tree(tree) if one.name == name)
        tree = node.subtree or b""
    assert node is not None
    return node


@pytest.mark.parametrize("overwrite", ["never", "if-newer"])
def test_nothing_is_linked_to_a_file_that_was_left(repository: Repository, tmp_path: Path, overwrite: str) -> None:
    tree, out = tmp_path / "linked", tmp_path / "out"
    tree.mkdir()
    (tree / "a").write_bytes(b"of the snapshot")
    os.link(tree / "a", tree / "b")
    os.link(tree / "a", tree / "c")
    snapshot = back_up(repository, tree).snapshot
    inside = out / str(tree).lstrip("/")
    inside.mkdir(parents=True)
    (inside / "a").write_bytes(b"of somebody else, and newer")
    result = bring_back(repository, snapshot, out, overwrite=overwrite)
    assert result.failure() is None
    assert (inside / "a").read_bytes() == b"of somebody else, and newer"
    assert (inside / "a").stat().st_nlink == 1
    assert (inside / "b").read_bytes() == b"of the snapshot"
    assert (inside / "b").samefile(inside / "c")


def test_what_is_to_stay_is_not_replaced_by_a_folder(repository: Repository, tmp_path: Path) -> None:
    tree, out = tmp_path / "with-folder", tmp_path / "out"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_bytes(b"x")
    snapshot = back_up(repository, tree).snapshot
    inside = out / str(tree).lstrip("/")
    inside.mkdir(parents=True)
    (inside / "folder").write_bytes(b"precious")
    result = bring_back(repository, snapshot, out, overwrite="never")
    assert (inside / "folder").read_bytes() == b"precious"
    assert result.failure() is not None
