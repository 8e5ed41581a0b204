"""The ``files`` plug-in on local paths: what it yields, in which order, and what it leaves out."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snappy.errors import BadOptions, SourceMissing
from snappy.repository.entries import Entry, each_entry
from snappy.sources import base, local_tree
from snappy.sources.exclusion import CACHE_SIGNATURE
from snappy.sources.files import FilesOptions, FilesRestore, FilesSource
from tests.support.odd_tree import WHEN, make_odd_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    for name in ("a/b/deep.o", "a/keep.txt", "a.txt", "Build.LOG", "big"):
        (top / name).write_bytes(b"x" * (2000 if name == "big" else 10))
    return top


def export(*paths: str | Path, **options: Any) -> list[Entry]:
    source = FilesSource(FilesOptions(paths=tuple(map(str, paths)), **options))
    return list(each_entry(source.export(None)))


def below(tree: Path, entries: list[Entry]) -> list[str]:
    """The paths below ``tree``; those above it are left out."""
    top = os.fsencode(tree) + b"/"
    return [os.fsdecode(entry.path.removeprefix(top)) for entry in entries if entry.path.startswith(top)]


def one(entries: list[Entry], name: str) -> Entry:
    return next(entry for entry in entries if entry.node.name == os.fsencode(name))


# Order and metadata


def test_directories_come_before_what_is_in_them_and_siblings_sorted(tree: Path) -> None:
    expected = ["Build.LOG", "a", "a/b", "a/b/deep.o", "a/keep.txt", "a.txt", "big"]
    assert below(tree, export(tree)) == expected


def test_the_directories_above_are_yielded_and_nothing_else_in_them(tree: Path) -> None:
    paths = [entry.path for entry in export(tree / "a.txt")]
    parts = os.fsencode(tree / "a.txt").split(b"/")
    assert paths == [b"/".join(parts[:length]) for length in range(2, len(parts) + 1)]


@pytest.mark.parametrize("paths", [["", "a"], ["a", ""], ["a/b", "", "a/b/deep.o"], ["", ""]])
def test_nested_paths_are_taken_once(tree: Path, paths: list[str]) -> None:
    assert below(tree, export(*(tree / path for path in paths))) == below(tree, export(tree))


def test_two_paths_share_what_is_above_them(tree: Path) -> None:
    assert below(tree, export(tree / "a" / "keep.txt", tree / "a.txt")) == ["a", "a/keep.txt", "a.txt"]


def test_names_are_bytes(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"\xff\xfe")
    with open(name, "wb"):
        pass
    assert export(tmp_path)[-1].path == name


def test_metadata(tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "tree")
    entries = export(tmp_path / "tree")
    found = {entry.node.name: entry.node for entry in entries}
    setuid, large = found[b"setuid"], found[b"large"]
    assert setuid.mode & 0o4000
    assert setuid.uid == (tmp_path / "tree" / "setuid").stat().st_uid
    assert (large.size, large.links, large.type) == (9 << 20, 2, "file")
    assert large.device_id == (tmp_path / "tree" / "large").stat().st_dev
    assert (setuid.links, setuid.device_id) == (1, 0)
    assert large.atime_ns == large.mtime_ns > WHEN
    assert found[b"one"].xattrs[b"user.binary"] == bytes(range(256))
    assert found[b"odd target"].link_target == b"\xff target"
    assert found[b"loop"].type == "symlink"
    assert (found[b"fifo"].type, found[b"fifo"].mode) == ("fifo", 0o640)
    assert found[b"sticky"].mode == 0o1777
    assert not [entry for entry in entries if entry.error or entry.warning]


def test_contents_are_read_when_asked_for(tree: Path) -> None:
    entry = one(export(tree), "a.txt")
    assert entry.open is not None
    with entry.open() as file:
        assert file.read() == b"x" * 10


def test_a_symlink_is_taken_as_itself(tree: Path) -> None:
    (tree / "link").symlink_to("a")
    assert one(export(tree / "link"), "link").node.link_target == b"a"
    assert below(tree, export(tree / "link")) == ["link"]


def test_symlinks_above_are_resolved(tree: Path) -> None:
    (tree / "link").symlink_to("a")
    source = FilesSource(FilesOptions(paths=(str(tree / "link" / "keep.txt"),)))
    assert source.claims() == [str(tree / "a" / "keep.txt")]
    assert below(tree, list(each_entry(source.export(None)))) == ["a", "a/keep.txt"]


def test_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert below(tmp_path, export(tmp_path)) == []


def test_deeper_than_there_are_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_tree, "OPEN_FOLDERS", 3)
    deep = tmp_path.joinpath(*"abcdefghij")
    deep.mkdir(parents=True)
    for folder in [deep, *list(deep.parents)[:9]]:
        (folder / "z").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    entries = export(tmp_path)
    assert not [entry.error for entry in entries if entry.error]
    assert len([entry for entry in entries if entry.node.name == b"z"]) == 10
    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=handle)
        below_it = os.open("n" * 250, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below_it
    os.close(handle)
    entries = export(tmp_path)
    assert len(entries[-1].path) > 5000
    assert not [entry for entry in entries if entry.error or entry.warning]


# Trouble


def test_a_directory_swapped_for_a_symlink_is_not_entered(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def swap(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == b"a" and (tree / "a").is_dir() and not (tree / "a").is_symlink():
            (tree / "a").rename(tree.parent / "moved")
            (tree / "a").symlink_to(tree.parent / "moved")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", swap)
    entries = export(tree)
    assert "a/keep.txt" not in below(tree, entries)
    assert "cannot be read" in one(entries, "a").error


def test_another_directory_in_its_place_is_not_entered(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def swap(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == b"a" and not (tree.parent / "moved").exists():
            (tree / "a").rename(tree.parent / "moved")
            (tree / "a").mkdir()
            (tree / "a" / "planted").write_bytes(b"")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", swap)
    entries = export(tree)
    assert "a/planted" not in below(tree, entries)
    assert "replaced" in one(entries, "a").error


def test_an_unreadable_directory_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == b"a":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    entries = export(tree)
    assert one(entries, "a").error == "the directory cannot be read: Permission denied"
    assert "a.txt" in below(tree, entries)


def test_unreadable_attributes_are_a_warning(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listxattr", refuse)
    entry = one(export(tree), "a.txt")
    assert entry.warning == "metadata is incomplete: Permission denied"
    assert entry.node.error == entry.warning, "else the next backup would keep the node"
    assert entry.node.size == 10


def test_a_fifo_in_a_files_place_does_not_hang(tree: Path) -> None:
    entry = one(export(tree), "a.txt")
    (tree / "a.txt").unlink()
    os.mkfifo(tree / "a.txt")
    assert entry.open is not None
    with pytest.raises(OSError, match="replaced"):
        entry.open()


async def test_what_is_missing_is_refused_before_the_walk(tree: Path) -> None:
    source = FilesSource(FilesOptions(paths=(str(tree), str(tree / "nowhere"))))
    with pytest.raises(SourceMissing, match="nowhere"):
        async with source.snap():
            pass


async def test_what_is_there_is_not_refused(tree: Path) -> None:
    (tree / "dangling").symlink_to("nowhere")
    async with FilesSource(FilesOptions(paths=(str(tree), str(tree / "dangling")))).snap() as frozen:
        assert frozen == {}


@pytest.mark.parametrize("path", ["relative", "", "./x", "~/x", "/nul\0", "s3::x://y", "s3://user:secret@host/x"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(BadOptions) as refused:
        FilesSource(FilesOptions(paths=(path,)))
    assert "secret" not in str(refused.value)


def test_dots_are_resolved_in_claims(tree: Path) -> None:
    source = FilesSource(FilesOptions(paths=(f"{tree}/a/../a.txt", f"file://{tree}//a/")))
    assert source.claims() == [str(tree / "a"), str(tree / "a.txt")]


# Options


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"paths": []},
        {"paths": ["/x"], "unknown": 1},
        {"paths": "/x"},
        {"paths": ["/x"], "exclude_larger_than": -1},
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any]) -> None:
    with pytest.raises(BadOptions):
        base.parse(FilesOptions, options)


def test_options_document_themselves() -> None:
    schema = msgspec.json.schema(FilesOptions)["$defs"]["FilesOptions"]
    assert schema["additionalProperties"] is False
    assert all("description" in field or "anyOf" in field for field in schema["properties"].values())


def test_the_plug_in_is_found_by_name() -> None:
    assert base.load("files") is FilesSource
    assert FilesSource.RestoreOptions is FilesRestore


# Excludes


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        (["*.o"], ["a/b/deep.o"]),
        (["b"], ["a/b", "a/b/deep.o"]),
        (["b/"], ["a/b", "a/b/deep.o"]),
        (["keep.txt/"], []),
        (["/b"], []),
        (["a/b"], ["a/b", "a/b/deep.o"]),
        (["a/*.txt"], ["a/keep.txt"]),
        (["*.txt", "!keep.txt"], ["a.txt"]),
        (["# comment", "", "big"], ["big"]),
        (["build.log"], []),
    ],
)
def test_patterns(tree: Path, patterns: list[str], gone: list[str]) -> None:
    everything = below(tree, export(tree))
    kept = below(tree, export(tree, exclude=tuple(patterns)))
    assert [path for path in everything if path not in kept] == gone


def test_an_absolute_pattern_names_one_path(tree: Path) -> None:
    kept = below(tree, export(tree, exclude=(f"{tree}/a/b",)))
    assert "a/b" not in kept
    assert "a/keep.txt" in kept


def test_patterns_that_ignore_case(tree: Path) -> None:
    assert "Build.LOG" not in below(tree, export(tree, iexclude=("BUILD.log",)))


def test_what_is_named_itself_is_never_excluded(tree: Path) -> None:
    assert below(tree, export(tree / "a.txt", exclude=("*.txt",))) == ["a.txt"]


def test_malformed_patterns_are_refused(tree: Path) -> None:
    with pytest.raises(BadOptions):
        export(tree, exclude=("!",))


def test_large_files(tree: Path) -> None:
    assert "big" not in below(tree, export(tree, exclude_larger_than=1999))
    assert "big" in below(tree, export(tree, exclude_larger_than=2000))


def test_a_tag_leaves_itself_alone_in_its_directory(tree: Path) -> None:
    (tree / "a" / ".nobackup").write_bytes(b"")
    kept = below(tree, export(tree, exclude_if_present=(".nobackup",)))
    assert [path for path in kept if path.startswith("a/")] == ["a/.nobackup"]
    assert "a" in kept


@pytest.mark.parametrize(("content", "excluded"), [(b"yes, leave it", True), (b"no", False), (b"", False)])
def test_a_tag_with_a_header(tree: Path, content: bytes, excluded: bool) -> None:
    (tree / "a" / "tag").write_bytes(content)
    kept = below(tree, export(tree, exclude_if_present=("tag:yes",)))
    assert ("a/keep.txt" not in kept) is excluded


@pytest.mark.parametrize(("signature", "excluded"), [(CACHE_SIGNATURE + b"\n# why", True), (b"Signature: no", False)])
def test_cache_directories(tree: Path, signature: bytes, excluded: bool) -> None:
    (tree / "a" / "CACHEDIR.TAG").write_bytes(signature)
    assert ("a/b" not in below(tree, export(tree, exclude_caches=True))) is excluded
    assert "a/b" in below(tree, export(tree))


def test_a_tag_that_is_a_symlink_is_reported(tree: Path) -> None:
    (tree / "a" / "tag").symlink_to("/etc/hostname")
    entries = export(tree, exclude_if_present=("tag:x",))
    assert "cannot be read" in one(entries, "a").warning
    assert "a/keep.txt" in below(tree, entries)


@pytest.mark.parametrize("tag", ["", ":header", "a/b"])
def test_tags_that_are_none(tree: Path, tag: str) -> None:
    with pytest.raises(BadOptions):
        export(tree, exclude_if_present=(tag,))


@pytest.fixture
def mounted(tree: Path) -> Iterator[Path]:
    """Another file system at ``a/b``."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "a" / "b"], check=True)
    (tree / "a" / "b" / "mounted").write_bytes(b"")
    yield tree
    subprocess.run(["umount", tree / "a" / "b"], check=True)


@pytest.mark.needs_root
def test_one_file_system(mounted: Path) -> None:
    assert "a/b/mounted" in below(mounted, export(mounted))
    kept = below(mounted, export(mounted, one_file_system=True))
    assert "a/b" in kept
    assert "a/b/mounted" not in kept


@pytest.mark.needs_root
def test_one_file_system_named_itself(mounted: Path) -> None:
    assert "a/b/mounted" in below(mounted, export(mounted, mounted / "a" / "b", one_file_system=True))


def test_sizes_are_those_of_the_files_that_a_backup_reads(tree: Path) -> None:
    (tree / "left-out").write_bytes(b"x" * 1000)
    source = FilesSource(FilesOptions(paths=(str(tree),), exclude=("left-out",)))
    read = [entry.node.size for entry in each_entry(source.export(None)) if entry.node.type == "file"]
    assert sum(read) > 0
    assert list(source.sizes(None)) == read
