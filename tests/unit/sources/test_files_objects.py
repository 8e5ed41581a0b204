"""The ``files`` plug-in on other filesystems: objects as a source, and as a place to restore to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from snappy.errors import BadOptions, JobCancelled, SourceMissing
from snappy.repository.entries import Entry, FileWriter, Node
from snappy.repository.restorer import Restorer
from snappy.sources.exclusion import Exclusion
from snappy.sources.files import FilesOptions, FilesRestore, FilesSource
from snappy.sources.object_sink import LOST, ObjectSink
from snappy.sources.object_tree import ObjectTree, identity, modified_ns
from tests.support import engine
from tests.support.backups import back_up, bring_back


@pytest.fixture
def memory() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    for path, content in {
        "/bucket/data/a/x": b"x",
        "/bucket/data/a.txt": b"text",
        "/bucket/data/zero": b"",
        "/bucket/other/y": b"y",
    }.items():
        filesystem.pipe_file(path, content)
    yield filesystem
    for top in ("/bucket", "/out"):
        if filesystem.exists(top):
            filesystem.rm(top, recursive=True)


def export(*urls: str, **options: Any) -> list[Entry]:
    source = FilesSource(FilesOptions(paths=urls, **options))
    return list(source.export(None))


def test_objects_lie_under_protocol_and_bucket(memory: Any) -> None:
    paths = [entry.path for entry in export("memory://bucket/data/")]
    assert paths == [
        b"/memory",
        b"/memory/bucket",
        b"/memory/bucket/data",
        b"/memory/bucket/data/a",
        b"/memory/bucket/data/a/x",
        b"/memory/bucket/data/a.txt",
        b"/memory/bucket/data/zero",
    ]


def test_two_prefixes_share_what_is_above(memory: Any) -> None:
    paths = [entry.path for entry in export("memory://bucket/other", "memory://bucket/data/a")]
    assert paths == [
        b"/memory",
        b"/memory/bucket",
        b"/memory/bucket/data",
        b"/memory/bucket/data/a",
        b"/memory/bucket/data/a/x",
        b"/memory/bucket/other",
        b"/memory/bucket/other/y",
    ]


def test_a_single_object(memory: Any) -> None:
    entry = export("memory://bucket/data/a.txt")[-1]
    assert (entry.path, entry.node.size) == (b"/memory/bucket/data/a.txt", 4)
    assert entry.open is not None
    assert entry.open().read() == b"text"
    assert entry.node.mtime_ns > 1_600_000_000 * 10**9


def test_excludes(memory: Any) -> None:
    names = [entry.node.name for entry in export("memory://bucket/data", exclude=("a",), exclude_larger_than=3)]
    assert names == [b"memory", b"bucket", b"data", b"zero"]


def test_large_objects_are_streamed(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappy.sources.object_tree.WHOLE", 2)
    entry = export("memory://bucket/data/a.txt")[-1]
    assert entry.open is not None
    with entry.open() as file:
        assert file.read(100) == b"text"
    assert entry.changed is not None
    assert entry.changed() == ""
    memory.pipe_file("/bucket/data/a.txt", b"longer")
    assert entry.changed() == "it changed while it was read"
    memory.rm("/bucket/data/a.txt")
    assert entry.changed() == "it vanished while it was read"


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (("memory://bucket/a", "/local"), "one backup"),
        (("memory://bucket", "memory://bucket/data"), "lies inside"),
        (("memory://bucket/../x",), "not allowed"),
        (("nothing-has-this-scheme://x",), "nothing-has-this-scheme"),
    ],
)
def test_urls_that_are_refused(urls: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadOptions, match=said):
        export(*urls)


async def test_a_missing_prefix(memory: Any) -> None:
    with pytest.raises(SourceMissing):
        async with FilesSource(FilesOptions(paths=("memory://bucket/nowhere",))).snap():
            pass


def test_there_and_back_again(memory: Any) -> None:
    with engine.new_repository() as repository:
        first = back_up(repository, "memory://bucket/data")
        second = back_up(repository, "memory://bucket/data", parent=first.snapshot)
        result = bring_back(repository, first.snapshot, "memory://out")
    assert second.bytes_read == 0
    assert second.snapshot.tree == first.snapshot.tree
    assert memory.cat_file("/out/memory/bucket/data/a.txt") == b"text"
    assert memory.cat_file("/out/memory/bucket/data/zero") == b""
    assert result.files == 3
    assert result.errors == []
    assert [problem.message for problem in result.warnings] == [LOST]


def test_local_files_to_objects(memory: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    large = os.urandom(5 << 20)
    (tree / "large").write_bytes(large)
    (tree / "link").symlink_to("large")
    os.link(tree / "large", tree / "same")
    (tree / os.fsdecode(b"\xff")).write_bytes(b"")
    with engine.new_repository() as repository:
        result = bring_back(repository, back_up(repository, tree).snapshot, "memory://out")
    assert memory.cat_file(f"/out{tree}/large") == large
    assert memory.cat_file(f"/out{tree}/same") == large
    assert [problem.path.rpartition(b"/")[2] for problem in result.errors] == [b"\xff"]
    assert any("symlink" in problem.message for problem in result.warnings)


class Listing:
    """A filesystem that lists what it is told to."""

    protocol = ("s3", "s3a")

    def __init__(self, **folders: list[dict[str, Any]]) -> None:
        self.folders = folders
        self.made: list[str] = []

    def info(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "directory", "size": 0}

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        if path not in self.folders:
            raise RuntimeError("the library's own complaint")
        return self.folders[path]

    def exists(self, path: str) -> bool:
        return path in ("bucket", "top")

    def invalidate_cache(self, path: str | None = None) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool) -> None:
        self.made.append(path)


def listed(*found: tuple[str, str]) -> list[tuple[bytes, str]]:
    infos = [{"name": name, "type": kind, "size": 1} for name, kind in found]
    tree = ObjectTree(Listing(top=infos), "top", b"/s3/top", Exclusion())
    return [(entry.path, entry.error) for entry in tree][1:]


def test_keys_that_are_no_names_are_reported() -> None:
    (_, refused), (kept, error) = listed(("top/..", "file"), ("top/ok", "file"))
    assert "could lead outside" in refused
    assert (kept, error) == (b"/s3/top/ok", "")
    assert listed(("top/ok", "file"), ("top/", "directory")) == [(b"/s3/top/ok", "")]


def test_an_object_with_a_directorys_name_is_reported() -> None:
    found = listed(("top/a", "file"), ("top/a", "directory"))
    assert found[0] == (b"/s3/top/a", "it cannot be listed: the library's own complaint")
    assert found[1] == (b"/s3/top/a", "a directory of the same name lies beside it")


def test_what_is_neither_is_reported() -> None:
    assert listed(("top/l", "link")) == [(b"/s3/top/l", "it is no plain file")]


def test_no_bucket_is_made_by_accident() -> None:
    filesystem = Listing()
    ObjectSink(filesystem, "bucket/place").directory(b"/d", export_folder())
    assert filesystem.made == []
    with pytest.raises(SourceMissing):
        ObjectSink(filesystem, "elsewhere/place")


def test_a_librarys_own_errors_are_one_objects_errors() -> None:
    sink = ObjectSink(Failing(), "place")
    with pytest.raises(OSError, match="complaint"):
        sink.directory(b"/d", export_folder())
    with pytest.raises(OSError, match="complaint"):
        sink.link(b"/new", b"/old")
    with pytest.raises(OSError, match="complaint"):
        sink.file(b"/f", Node(name=b"f", type="file")).close()


class Failing:
    """A filesystem on which nothing works."""

    protocol = "sftp"

    def makedirs(self, *arguments: Any, **options: Any) -> None:
        raise RuntimeError("the library's own complaint")

    cp_file = pipe_file = makedirs


def export_folder() -> Any:
    return next(iter(ObjectTree(Listing(top=[]), "top", b"/s3/top", Exclusion()))).node


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}, 1767225600_000000000),
        ({"mtime": 12.5}, 12_500000000),
        ({"mtime": datetime(2026, 1, 1)}, 1767225600_000000000),
        ({"updated": "2026-01-01T00:00:00Z"}, 1767225600_000000000),
        ({"updated": "nonsense"}, 0),
        ({}, 0),
    ],
)
def test_times(info: dict[str, Any], expected: int) -> None:
    assert modified_ns(info) == expected


def test_an_entity_tag_tells_apart_what_size_and_time_do_not() -> None:
    assert identity({"ETag": '"a"'}) != identity({"ETag": '"b"'}) != 0
    assert identity({"ETag": '"a"'}) == identity({"ETag": '"a"'}) < 1 << 64
    assert identity({}) == 0


def test_restore_claims_a_url() -> None:
    assert FilesSource.restore_claims(FilesRestore(to="memory://out/")) == ["memory://out"]


def test_objects_that_are_there_stay_when_asked(memory: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"stored")
    (tree / "b").write_bytes(b"stored")
    memory.pipe_file(f"/out{tree}/a", b"mine")
    with engine.new_repository() as repository:
        snapshot = back_up(repository, tree).snapshot
        kept = bring_back(repository, snapshot, "memory://out", overwrite="never")
        assert (memory.cat_file(f"/out{tree}/a"), memory.cat_file(f"/out{tree}/b")) == (b"mine", b"stored")
        assert (kept.files, kept.unmodified) == (1, 1)
        bring_back(repository, snapshot, "memory://out")
    assert memory.cat_file(f"/out{tree}/a") == b"stored"


@pytest.mark.parametrize("overwrite", ["if-changed", "if-newer"])
def test_objects_have_no_times_to_go_by(overwrite: Any) -> None:
    with pytest.raises(BadOptions, match="times"):
        FilesSource.restore_claims(FilesRestore(to="memory://out", overwrite=overwrite))


def test_a_restore_that_is_given_up_writes_no_half_objects(memory: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(20 << 20))
    with engine.new_repository() as repository:
        snapshot = back_up(repository, tree).snapshot
        sink = ObjectSink(memory, "/out")
        written: list[int] = []

        def cancelled() -> None:
            if written:
                raise JobCancelled

        def watched(path: bytes, node: Node) -> FileWriter:
            file = real(path, node)
            monitor = file.write_at

            def write_at(offset: int, data: bytes) -> None:
                monitor(offset, data)
                written.append(offset)

            file.write_at = write_at  # type: ignore[method-assign]
            return file

        real, sink.file = sink.file, watched  # type: ignore[method-assign]
        with pytest.raises(JobCancelled):
            Restorer(repository, sink, cancelled=cancelled).restore(snapshot)
    assert written
    assert not memory.exists(f"/out{tree}/large")
