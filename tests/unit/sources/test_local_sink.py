"""The local sink by itself: what it refuses, what it leaves open, in which order it sets what."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import SourceError, UnsafePath
from snappy.repository.entries import Node, Standing
from snappy.sources import open_folders
from snappy.sources.files import FilesRestore, FilesSource
from snappy.sources.local_metadata import Owner, by_name, by_number
from snappy.sources.local_sink import LocalSink, shared
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


def put(sink: LocalSink, path: bytes, content: bytes = b"content", **fields: Any) -> list[str]:
    """Returns what could not be kept."""
    writer = sink.file(path, node(size=len(content), **fields))
    writer.write_at(0, content)
    with closing(writer):
        return writer.finish()


# Nothing outside


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("call", ["standing", "reuse", "directory", "file", "special", "link", "finish"])
def test_paths_that_lead_outside_are_refused(sink: LocalSink, place: Path, path: bytes, call: str) -> None:
    sink.directory(b"/a", node("dir"))
    calls: dict[str, Callable[[], object]] = {
        "standing": lambda: sink.standing(path, node()),
        "reuse": lambda: sink.reuse(path, node()),
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


@pytest.mark.parametrize("call", ["standing", "reuse", "directory", "file", "special", "finish"])
def test_a_planted_symlink_on_the_way_is_refused(sink: LocalSink, place: Path, tmp_path: Path, call: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"untouched")
    (place / "way").symlink_to(outside)
    calls: dict[str, Callable[[], object]] = {
        "standing": lambda: sink.standing(b"/way/x", node()),
        "reuse": lambda: sink.reuse(b"/way/x", node()),
        "directory": lambda: sink.directory(b"/way/x", node("dir")),
        "file": lambda: sink.file(b"/way/x", node()),
        "special": lambda: sink.special(b"/way/x", node("fifo")),
        "finish": lambda: sink.finish(b"/way/x", node()),
    }
    with pytest.raises(UnsafePath, match="symlink"):
        calls[call]()
    assert (outside / "x").read_bytes() == b"untouched"
    assert os.listdir(outside) == ["x"]


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_what_was_swapped_is_not_given_metadata(sink: LocalSink, place: Path, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    victim.chmod(0o600)
    if kind == "file":
        writer = sink.file(b"/x", node(mode=0o4777))
    else:
        sink.special(b"/x", node(kind))
    (place / "x").unlink()
    os.link(victim, place / "x")
    if kind == "file":
        assert writer.finish() == []
        writer.close()
    else:
        with pytest.raises(UnsafePath, match="replaced"):
            sink.finish(b"/x", node(kind, mode=0o4777))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_a_symlink_in_a_directorys_place_is_not_followed_by_finish(
    sink: LocalSink, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").mkdir(mode=0o700)
    sink.directory(b"/dir", node("dir"))
    (place / "dir").rmdir()
    (place / "dir").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        sink.finish(b"/dir", node("dir", mode=0o777))
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o700


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
    writer = sink.file(b"/file", node(mode=0o644))
    sink.directory(b"/dir", node("dir", mode=0o755))
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600
    assert stat.S_IMODE((place / "dir").stat().st_mode) == 0o700
    with closing(writer):
        assert writer.finish() == []
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
    assert put(sink, b"/file", mode=0o444, xattrs={b"user.a": b"1"}, mtime_ns=5, atime_ns=7) == []
    found = (place / "file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns, found.st_atime_ns) == (0o444, 5, 7)
    assert os.getxattr(place / "file", "user.a") == b"1"


def test_what_cannot_be_kept_is_told(sink: LocalSink, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    told = put(sink, b"/file", xattrs={b"user.a": b"1"}, mtime_ns=1 << 100)
    assert [message.partition(":")[0] for message in told] == [
        "its extended attributes cannot be set",
        "its times cannot be set",
    ]


def test_no_setuid_for_the_wrong_owner(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    sink = LocalSink(os.fsencode(place), owner=by_number)
    monkeypatch.setattr(os, "chown", refuse)
    assert put(sink, b"/file", mode=0o4755, uid=1234) == ["its owner cannot be set: Operation not permitted"]
    sink.close()
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o755


@pytest.mark.needs_root
def test_owners_and_setuid(place: Path) -> None:
    sink = LocalSink(os.fsencode(place), owner=by_number)
    assert put(sink, b"/file", mode=0o6755, uid=1234, gid=2345) == []
    sink.special(b"/link", node("symlink", link_target=b"file"))
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


# What stands there


@pytest.fixture
def standing(place: Path) -> Path:
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"content")
    (place / "file").chmod(0o644)
    os.utime(place / "file", ns=(5, 5))
    return place / "file"


def reused(place: Path, overwrite: Any = "always", owner: Owner | None = None, **fields: Any) -> tuple[bool, bool]:
    """Whether the file there may stay, and whether it is trusted."""
    sink = LocalSink(os.fsencode(place), owner=owner, overwrite=overwrite)
    found = sink.reuse(b"/file", node(**{"size": 7, "mtime_ns": 5, **fields}))
    assert found is not None
    with closing(found), closing(sink):
        assert found.read_at(3, 100) == b"tent"
        return found.may_stay, found.is_trusted


def test_a_file_like_the_one_wanted_may_stay(standing: Path) -> None:
    assert reused(standing.parent) == (True, False)
    assert reused(standing.parent, "if-changed") == (True, True)
    assert reused(standing.parent, "if-changed", mtime_ns=6) == (True, False)
    assert reused(standing.parent, "if-changed", size=8) == (False, False)


def test_a_file_that_others_could_open_may_not_stay(standing: Path) -> None:
    standing.chmod(0o664)
    assert reused(standing.parent, "if-changed") == (False, False)
    assert reused(standing.parent, "if-changed", mode=0o664) == (True, True)


def test_a_file_that_a_list_lets_another_write_may_not_stay(standing: Path) -> None:
    rights = ((1, 6, -1), (2, 6, 12345), (4, 6, -1), (16, 6, -1), (32, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *right) for right in rights)
    os.setxattr(standing, "system.posix_acl_access", acl)
    assert reused(standing.parent, "if-changed", mode=0o660) == (False, False)
    same = {b"system.posix_acl_access": acl}
    assert reused(standing.parent, "if-changed", mode=0o660, xattrs=same) == (True, True)


def test_a_file_with_another_name_may_not_stay(standing: Path) -> None:
    os.link(standing, standing.with_name("other"))
    assert reused(standing.parent, "if-changed") == (False, False)


@pytest.mark.needs_root
def test_anothers_file_may_not_stay(standing: Path) -> None:
    os.chown(standing, 1234, 2345)
    assert reused(standing.parent, "if-changed") == (False, False)
    assert reused(standing.parent, "if-changed", by_number, uid=1234, gid=2345) == (True, True)
    assert reused(standing.parent, "if-changed", by_number, uid=1234, gid=0) == (False, False)


def test_what_is_no_file_is_of_no_use(place: Path, sink: LocalSink) -> None:
    os.mkfifo(place / "fifo")
    (place / "link").symlink_to("/etc/passwd")
    assert {sink.standing(path, node()) for path in (b"/fifo", b"/link", b"/none")} == {Standing.IN_THE_WAY}
    assert sink.reuse(b"/link", node()) is None
    found = sink.reuse(b"/fifo", node())
    assert found is not None
    assert (found.may_stay, found.read_at(0, 10)) == (False, b"")
    found.close()


@pytest.mark.parametrize(
    ("overwrite", "newer", "older"),
    [
        ("always", Standing.USEFUL, Standing.USEFUL),
        ("if-changed", Standing.USEFUL, Standing.USEFUL),
        ("if-newer", Standing.USEFUL, Standing.LEFT),
        ("never", Standing.LEFT, Standing.LEFT),
    ],
)
def test_what_is_left(standing: Path, overwrite: Any, newer: Standing, older: Standing) -> None:
    sink = LocalSink(os.fsencode(standing.parent), owner=None, overwrite=overwrite)
    assert sink.standing(b"/file", node(mtime_ns=6)) is newer
    assert sink.standing(b"/file", node(mtime_ns=5)) is older
    assert sink.standing(b"/none", node(mtime_ns=5)) is Standing.IN_THE_WAY
    sink.close()


def test_a_file_that_stays_is_given_what_it_lacks_and_nothing_else(standing: Path) -> None:
    sink = LocalSink(os.fsencode(standing.parent), owner=None)
    for wanted in (node(size=7, atime_ns=8, mtime_ns=9), node(size=7, atime_ns=8, mtime_ns=9)):
        before = standing.stat()
        found = sink.reuse(b"/file", wanted)
        assert found is not None
        with closing(found):
            assert found.finish() == []
    assert (standing.stat().st_atime_ns, standing.stat().st_mtime_ns) == (8, 9)
    assert standing.stat().st_ctime_ns == before.st_ctime_ns
    sink.close()


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


# Files that another process fills


def test_another_process_fills_a_file_that_is_open_here(sink: LocalSink, place: Path) -> None:
    whole = sink.file(b"/file", node(size=10))
    other = shared(*sink.recipe().arguments)  # type: ignore[arg-type]
    part = other.part(b"/file", whole.identity())
    part.write_at(2, b"part")
    assert part.finish() == []
    part.close()
    whole.finish()
    whole.close()
    assert (place / "file").read_bytes() == bytes(2) + b"part" + bytes(4)


@pytest.mark.parametrize("kind", ["file", "symlink"])
def test_another_process_fills_no_other_file(sink: LocalSink, place: Path, tmp_path: Path, kind: str) -> None:
    whole = sink.file(b"/file", node(size=10))
    (place / "file").rename(tmp_path / "moved")
    (tmp_path / "precious").write_bytes(b"precious")
    if kind == "file":
        os.link(tmp_path / "precious", place / "file")
    else:
        (place / "file").symlink_to(tmp_path / "moved")
    with pytest.raises((UnsafePath, OSError)):
        sink.part(b"/file", whole.identity())
    whole.close()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_owners_are_the_same_in_another_process(place: Path) -> None:
    with closing(LocalSink(os.fsencode(place), owner=by_name)) as made:
        assert made.recipe().arguments == (os.fsencode(place), "snappy.sources.local_metadata:by_name")
