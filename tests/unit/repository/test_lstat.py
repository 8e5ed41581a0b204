"""A stored node is kept for what would be stored again just so, and for nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from snappy.repository.lstat import node_of, says_same
from snappy.repository.tree import StoredNode, encode_tree, read_tree

FIELDS = [name for name in StoredNode.__struct_fields__ if name not in ("name", "content", "extended_attributes")]
OTHER = {"subtree": "00" * 32, "linktarget_raw": b"x", "atime": "2001-01-01T00:00:00Z", "type": "symlink"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"some content")
    os.utime(path, ns=(1, 1_700_000_000_123_456_780))
    return path


def stored(found: os.stat_result) -> StoredNode:
    (node,) = read_tree(encode_tree([node_of(b"file", found)]))
    return node


@pytest.mark.parametrize("mode", [0o644, 0o4755, 0o2600, 0o1777, 0])
def test_what_was_stored_is_known_again(place: Path, mode: int) -> None:
    place.chmod(mode)
    found = place.lstat()
    assert says_same(stored(found), found)
    assert stored(found).equals(node_of(b"file", found))


def test_a_file_of_two_names_is_known_again(place: Path) -> None:
    os.link(place, place.with_name("other"))
    assert says_same(stored(place.lstat()), place.lstat())


def directory(path: Path) -> StoredNode:
    path.mkdir()
    node = node_of(b"folder", path.lstat())
    node.subtree = bytes(range(32))
    return read_tree(encode_tree([node]))[0]


def link(path: Path) -> StoredNode:
    path.symlink_to("somewhere")
    node = node_of(b"link", path.lstat())
    node.link_target = b"somewhere"
    return read_tree(encode_tree([node]))[0]


OTHERS = {
    directory: OTHER | {"type": "file", "subtree": "no id"},
    link: OTHER | {"type": "file", "linktarget": ""},
}


@pytest.mark.parametrize("make", [directory, link])
def test_a_directory_and_a_link_are_known_again(tmp_path: Path, make: Callable[[Path], StoredNode]) -> None:
    node, found = make(tmp_path / "it"), (tmp_path / "it").lstat()
    assert says_same(node, found)


@pytest.mark.parametrize(
    ("make", "field"),
    [(make, field) for make in OTHERS for field in FIELDS if (make, field) != (link, "linktarget_raw")],
)
def test_one_that_differs_in_any_field_is_not_kept(
    tmp_path: Path, make: Callable[[Path], StoredNode], field: str
) -> None:
    node, found = make(tmp_path / "it"), (tmp_path / "it").lstat()
    value = getattr(node, field)
    other = OTHERS[make].get(field, f"{value}x" if isinstance(value, str) else (value or 0) + 1)
    assert not says_same(msgspec.structs.replace(node, **{field: other}), found)


def test_a_directory_or_link_with_content_is_not_kept(tmp_path: Path) -> None:
    for make in (directory, link):
        node, found = make(tmp_path / make.__name__), (tmp_path / make.__name__).lstat()
        assert not says_same(msgspec.structs.replace(node, content=[]), found)


@pytest.mark.parametrize("field", FIELDS)
def test_a_node_that_differs_in_any_field_is_not_kept(place: Path, field: str) -> None:
    found = place.lstat()
    node = stored(found)
    value = getattr(node, field)
    other = OTHER.get(field, f"{value}x" if isinstance(value, str) else (value or 0) + 1)
    assert not says_same(msgspec.structs.replace(node, **{field: other}), found)


def test_without_times_nothing_is_known(place: Path) -> None:
    fields = list(place.lstat())
    found = os.stat_result([*fields[:7], 0, 0, 0], {"st_atime_ns": 0, "st_mtime_ns": 0, "st_ctime_ns": 0})
    assert (found.st_mtime_ns, found.st_ctime_ns) == (0, 0)
    assert not says_same(stored(found), found)


def test_a_time_in_another_zone_is_the_same_time(place: Path) -> None:
    os.utime(place, ns=(0, 1_700_000_000_000_000_000))
    found = place.lstat()
    node = stored(found)
    node.mtime = node.atime = "2023-11-15T00:13:20+02:00"
    assert says_same(node, found)
    node.mtime = node.atime = "2023-11-15T00:13:20+01:00"
    assert not says_same(node, found)


@pytest.mark.parametrize(
    "change",
    [
        lambda place: os.utime(place, ns=(1, place.lstat().st_mtime_ns)),
        lambda place: os.setxattr(place, "user.snappy", b"x"),
        lambda place: os.replace(place, place.with_name("other")) or os.replace(place.with_name("other"), place),
    ],
    ids=["times", "attributes", "name"],
)
def test_any_change_is_seen_by_the_time_of_change(place: Path, change: Callable[[Path], object]) -> None:
    node = stored(place.lstat())
    wait_for_the_next_tick(place)
    change(place)
    assert not says_same(node, place.lstat())


def wait_for_the_next_tick(place: Path) -> None:
    """The system's clock for files goes in steps of some milliseconds."""
    other = place.with_name("clock")
    other.touch()
    while other.lstat().st_ctime_ns <= place.lstat().st_ctime_ns:
        other.touch()
