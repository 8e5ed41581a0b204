"""The local sink by itself: what it refuses, what it leaves open, in which order it sets what."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SourceError, UnsafePath
from snappy.repository.entries import Node
from snappy.sources import open_folders
from snappy.sources.files import FilesRestore, FilesSource
from snappy.sources.local_metadata import by_name, by_number
from snappy.sources.local_sink import LocalSink
from snappy.sources.sparse import BLOCK, write_sparse

BAD_PATHS = [b"/..", b"/../x", b"/a/../../x", b"/.", b"//x", b"/a//b", b"relative", b"", b"/a\0", b"/"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "jail" / "place"


@pytest.fixture
def sink(place: Path) -> Iterator[LocalSink]:
    made = LocalSink(os.fsencode(place), owner=None, allow_devices=True)
    yield made
    made.close()


def node(kind: Any = "file", **fields: Any) -> Node:
    return Node(name=b"", type=kind, **{"mode": 0o644, **fields})


def put(sink: LocalSink, path: bytes, content: bytes = b"content") -> None:
    writer = sink.file(path, node(size=len(content)))
    writer.write_at(0, content)
    writer.close()


# Nothing outside


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("call", ["directory", "file", "special", "link", "finish"])
def test_paths_that_lead_outside_are_refused(sink: LocalSink, place: Path, path: bytes, call: str) -> None:
    sink.directory(b"/a", node("dir"))
    calls = {
        "directory": lambda: sink.directory(path, node("dir")),
        "file": lambda: sink.file(path, node()),
        "special": lambda: sink.special(path, node("fifo")),
        "link": lambda: sink.link(path, b"/a"),
        "finish": lambda: sink.finish(path, node()),
    }
    with pytest.raises(UnsafePath):
        calls[call]()
    assert os.listdir(place.parent) == ["place"]
    assert os.listdir(place) == ["a"]


def test_links_from_outside_are_refused(sink: LocalSink) -> None:
    with pytest.raises(UnsafePath):
        sink.link(b"/mine", b"/../../secret")


@pytest.mark.parametrize("call", ["directory", "file", "special", "finish"])
def test_a_planted_symlink_on_the_way_is_refused(sink: LocalSink, place: Path, tmp_path: Path, call: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"untouched")
    (place / "way").symlink_to(outside)
    calls = {
        "directory": lambda: sink.directory(b"/way/x", node("dir")),
        "file": lambda: sink.file(b"/way/x", node()),
        "special": lambda: sink.special(b"/way/x", node("fifo")),
        "finish": lambda: sink.finish(b"/way/x", node()),
    }
    with pytest.raises(UnsafePath, match="symlink"):
        calls[call]()
    assert (outside / "x").read_bytes() == b"untouched"
    assert os.listdir(outside) == ["x"]


def test_what_was_swapped_is_not_given_metadata(sink: LocalSink, place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    victim.chmod(0o600)
    put(sink, b"/file")
    (place / "file").unlink()
    os.link(victim, place / "file")
    with pytest.raises(UnsafePath, match="replaced"):
        sink.finish(b"/file", node(mode=0o4777))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_a_symlink_in_a_files_place_is_not_followed_by_finish(sink: LocalSink, place: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"")
    put(sink, b"/file")
    (place / "file").unlink()
    (place / "file").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        sink.finish(b"/file", node(mode=0o4777))
    assert (tmp_path / "victim").stat().st_mode & 0o4000 == 0


def test_a_symlink_in_the_place_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UnsafePath):
        LocalSink(os.fsencode(tmp_path / "link" / "below"), owner=None)
    assert os.listdir(tmp_path / "real") == []


def test_the_plug_in_resolves_the_place_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    options = FilesRestore(to=str(tmp_path / "link"), owners="never")
    assert FilesSource.restore_claims(options) == [str(tmp_path / "real")]
    sink = FilesSource.import_(options, FilesSource.restore_claims(options))
    sink.directory(b"/d", node("dir"))
    sink.close()
    assert os.listdir(tmp_path / "real") == ["d"]


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="cannot restore to"):
        LocalSink(os.fsencode(tmp_path / "file" / "below"), owner=None)


# Objects


def test_nobody_else_reads_a_file_before_it_is_finished(sink: LocalSink, place: Path) -> None:
    put(sink, b"/file")
    sink.directory(b"/dir", node("dir", mode=0o755))
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((place / "dir").stat().st_mode) == 0o700
    assert sink.finish(b"/file", node(mode=0o644)) == []
    assert sink.finish(b"/dir", node("dir", mode=0o755)) == []
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((place / "dir").stat().st_mode) == 0o755


def test_a_directory_that_is_there_is_kept(sink: LocalSink, place: Path) -> None:
    (place / "dir").mkdir()
    (place / "dir" / "kept").write_bytes(b"")
    sink.directory(b"/dir", node("dir"))
    assert os.listdir(place / "dir") == ["kept"]


def test_attributes_that_the_snapshot_does_not_have_go(sink: LocalSink, place: Path) -> None:
    (place / "dir").mkdir()
    os.setxattr(place / "dir", "user.old", b"1")
    sink.directory(b"/dir", node("dir"))
    assert sink.finish(b"/dir", node("dir", mode=0o755, xattrs={b"user.new": b"2"})) == []
    assert os.listxattr(place / "dir") == ["user.new"]


def test_a_read_only_file_gets_its_attributes(sink: LocalSink, place: Path) -> None:
    put(sink, b"/file")
    assert sink.finish(b"/file", node(mode=0o444, xattrs={b"user.a": b"1"}, mtime_ns=5, atime_ns=7)) == []
    found = (place / "file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_atime_ns) == (0o444, 5, 7)
    assert os.getxattr(place / "file", "user.a") == b"1"


def test_what_cannot_be_kept_is_told(sink: LocalSink, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    put(sink, b"/file")
    monkeypatch.setattr(os, "setxattr", refuse)
    told = sink.finish(b"/file", node(xattrs={b"user.a": b"1"}, mtime_ns=1 << 100))
    assert [message.partition(":")[0] for message in told] == [
        "its extended attributes cannot be set",
        "its times cannot be set",
    ]


def test_no_setuid_for_the_wrong_owner(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    sink = LocalSink(os.fsencode(place), owner=by_number)
    put(sink, b"/file")
    monkeypatch.setattr(os, "chown", refuse)
    assert sink.finish(b"/file", node(mode=0o4755, uid=1234)) == ["its owner cannot be set: Operation not permitted"]
    sink.close()
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o755


@pytest.mark.needs_root
def test_owners_and_setuid(place: Path) -> None:
    sink = LocalSink(os.fsencode(place), owner=by_number)
    put(sink, b"/file")
    sink.special(b"/link", node("symlink", link_target=b"file"))
    assert sink.finish(b"/file", node(mode=0o6755, uid=1234, gid=2345)) == []
    assert sink.finish(b"/link", node("symlink", uid=1234, gid=2345)) == []
    sink.close()
    found = (place / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o6755)
    assert (place / "link").lstat().st_uid == 1234


def test_owners_by_name_are_those_of_this_machine() -> None:
    here = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    made_elsewhere = node(uid=4711, gid=4712, user=here[0].pw_name, group=here[1].gr_name)
    assert by_name(made_elsewhere) == (os.getuid(), os.getgid())
    assert by_number(made_elsewhere) == (4711, 4712)


@pytest.mark.parametrize("name", ["", "no-such-name-here"])
def test_an_owner_whom_nobody_knows_by_name_keeps_the_number(name: str) -> None:
    assert by_name(node(uid=4711, gid=4712, user=name, group=name)) == (4711, 4712)


def test_devices_are_refused_unless_allowed(place: Path) -> None:
    sink = LocalSink(os.fsencode(place), owner=None)
    with pytest.raises(PermissionError, match="devices are not restored"):
        sink.special(b"/null", node("chardev", device=os.makedev(1, 3)))
    sink.close()
    assert os.listdir(place) == []


@pytest.mark.parametrize("kind", ["socket", "irregular"])
def test_what_cannot_be_made_is_refused(sink: LocalSink, kind: str) -> None:
    with pytest.raises(OSError, match="cannot be restored"):
        sink.special(b"/x", node(kind))


def test_few_directories_stay_open(sink: LocalSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_folders, "KEPT_OPEN", 4)
    before = len(os.listdir("/proc/self/fd"))
    path = b""
    for name in range(20):
        path += b"/%d" % name
        sink.directory(path, node("dir"))
        put(sink, path + b"/file")
    put(sink, b"/0/1/2/again")
    sink.link(b"/0/1/linked", path + b"/file")
    assert len(os.listdir("/proc/self/fd")) - before <= 4


def test_closing_twice_leaves_nothing_open(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    sink = LocalSink(os.fsencode(place), owner=None)
    sink.directory(b"/a", node("dir"))
    put(sink, b"/a/b")
    sink.close()
    sink.close()
    assert len(os.listdir("/proc/self/fd")) == before


# Holes


@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 7])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        bytes(1),
        bytes(3 * BLOCK),
        b"a" + bytes(4 * BLOCK) + b"b",
        bytes(BLOCK - 1) + b"x" + bytes(2 * BLOCK + 5),
        b"full" * BLOCK,
    ],
)
def test_sparse_writing_changes_nothing_but_the_space(tmp_path: Path, offset: int, data: bytes) -> None:
    handle = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(handle, offset + len(data))
    write_sparse(handle, offset, data)
    os.close(handle)
    assert (tmp_path / "f").read_bytes() == bytes(offset) + data


def test_zeros_take_no_space(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(handle, 1 << 20)
    for offset in range(0, 1 << 20, 100_001):
        write_sparse(handle, offset, bytes(min(100_001, (1 << 20) - offset)))
    assert os.fstat(handle).st_blocks == 0
    os.close(handle)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: real(handle, data[:3], offset))
    handle = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    write_sparse(handle, 0, b"0123456789")
    os.close(handle)
    assert (tmp_path / "f").read_bytes() == b"0123456789"
