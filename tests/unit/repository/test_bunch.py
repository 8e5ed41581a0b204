"""Small files that are read together are described as each would be by itself, whatever befalls them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snappy.errors import UnsafePath
from snappy.repository.bunch import SMALL, Bunch, BunchReader, is_small
from snappy.repository.entries import Entry, Siblings, each_entry
from snappy.repository.format import MIB, blob_id
from snappy.repository.journal import entry_id
from snappy.repository.link import BunchOrder, Remark
from snappy.repository.tree import decode_tree, encode_tree
from snappy.sources import local_node
from snappy.sources.files import FilesOptions, FilesSource

CONTENTS = {b"a": b"text", b"b": b"", b"c <&>": b"more", b"d\xff": os.urandom(SMALL), b"e": b"text"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small files, empty, equal, with odd names, modes, times and attributes."""
    made = tmp_path / "folder"
    made.mkdir()
    for name, content in CONTENTS.items():
        (made / os.fsdecode(name)).write_bytes(content)
    os.link(made / "a", made / "hard")
    os.utime(made / "e", ns=(5, 7_000_000_000))
    (made / "e").chmod(0o4750)
    try:
        os.setxattr(made / "a", "user.note", b"\0 said")
    except OSError:
        pass  # not every file system has them
    return made


def siblings(folder: Path) -> Siblings:
    source = FilesSource(FilesOptions(paths=(str(folder),)))
    (found,) = [one for one in source.export(None) if isinstance(one, Siblings)]
    return found


def ordered(one: Siblings) -> BunchOrder:
    assert one.recipe
    return Bunch(one.folder, one.recipe, one.looks, told=lambda _: None).order(7)


def each(folder: Path) -> Iterator[Entry]:
    """The entries of the files, their contents named."""
    for entry in each_entry(FilesSource(FilesOptions(paths=(str(folder),))).export(None)):
        if entry.open:
            with entry.open() as file:
                content = file.read()
            entry.node.content = [blob_id(content)] if content else []
            yield entry


def test_files_are_described_and_known_as_by_their_entries(folder: Path) -> None:
    read = BunchReader(ordered(siblings(folder)))
    entries = list(each(folder))
    assert len(entries) == len(CONTENTS) + 1
    assert encode_tree(read.result.nodes) == encode_tree([entry.node for entry in entries])
    assert read.result.ids == [entry_id(entry) for entry in entries if entry.node.size]
    assert [data for _, data in read.chunks] == [data for data in (*CONTENTS.values(), b"text") if data]
    assert list(read.result.named()) == [(blob_id(data), len(data)) for _, data in read.chunks]
    assert (read.result.number, read.result.remarks) == (7, [])


def append(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b" and more")


def replace(file: Path) -> None:
    file.rename(file.with_name("moved-away"))
    file.write_bytes(b"text")


def make_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("happen", "remark", "size"),
    [
        (append, "its content may be torn: it changed while it was read", 13),
        (lambda file: os.truncate(file, 1), "its content may be torn: it changed while it was read", 1),
        (
            lambda file: file.write_bytes(bytes(MIB)),
            "its content may be torn: it changed while it was read",
            MIB // 2 - 1,
        ),
        (Path.unlink, "it vanished before it could be read", None),
        (replace, "it cannot be read: was replaced by another file while the backup ran", None),
        (make_fifo, "it cannot be read: was replaced by another file while the backup ran", None),
    ],
)
def test_what_befalls_a_file_is_its_own(
    folder: Path, happen: Callable[[Path], object], remark: str, size: int | None
) -> None:
    before = siblings(folder)
    happen(folder / "e")
    read = BunchReader(ordered(before)).result
    assert read.remarks == [Remark(os.fsencode(folder / "e"), remark)]
    nodes = {node.name: node for node in decode_tree(encode_tree(read.nodes))}
    assert len(nodes) == len(CONTENTS) + (size is not None)
    if size is not None:
        assert (nodes[b"e"].size, nodes[b"e"].mtime_ns) == (size, 7_000_000_000)


def test_a_file_that_vanishes_while_it_is_read_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = local_node.open_quietly

    def lose(path: bytes) -> int:
        handle = real(path)
        if path.endswith(b"/e"):
            os.unlink(path)
        return handle

    monkeypatch.setattr(local_node, "open_quietly", lose)
    read = BunchReader(ordered(siblings(folder))).result
    assert [remark.text for remark in read.remarks] == ["its content may be torn: it vanished while it was read"]
    assert len(read.nodes) == len(CONTENTS) + 1


def test_a_file_whose_attributes_cannot_be_read_is_described_again_next_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(place: bytes | int) -> dict[bytes, bytes]:
        raise PermissionError(errno.EPERM, "not yours")

    before = siblings(folder)
    monkeypatch.setattr(local_node, "read_xattrs", refuse)
    read = BunchReader(ordered(before)).result
    assert {remark.text for remark in read.remarks} == {"metadata is incomplete: not yours"}
    assert {node.error for node in decode_tree(encode_tree(read.nodes))} == {"metadata is incomplete: not yours"}


def test_no_name_leads_elsewhere(folder: Path) -> None:
    one = siblings(folder)
    with pytest.raises(UnsafePath):
        ordered(one._replace(looks=[(b"../x", one.looks[0][1])]))


def test_only_small_files_come_in_bunches(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(SMALL + 1))
    (folder / "link").symlink_to("a")
    small = {name: is_small(found) for name, found in siblings(folder).looks}
    assert [name for name, is_one in small.items() if not is_one] == [b"large", b"link"]
