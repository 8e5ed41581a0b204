from __future__ import annotations

import json

import pytest

from snappy.errors import Damaged, InternalError
from snappy.repository.entries import Node
from snappy.repository.tree import decode_tree, encode_tree, go_mode, unix_mode

FILE = Node(
    name=b"f<1>\xff",
    type="file",
    mode=0o6751,
    mtime_ns=1,
    atime_ns=2,
    ctime_ns=3,
    uid=1000,
    gid=100,
    user="fd0",
    group="users",
    inode=42,
    device_id=7,
    size=5,
    links=2,
    xattrs={b"user.note": b"\x00\xff", b"user.empty": b""},
    content=[b"\x01" * 32],
)
TREE = (
    b'{"nodes":[{"name":"f\\u003c1\\u003e\\\\xff","type":"file","mode":12583401,'
    b'"mtime":"1970-01-01T00:00:00.000000001Z","atime":"1970-01-01T00:00:00.000000002Z",'
    b'"ctime":"1970-01-01T00:00:00.000000003Z","uid":1000,"gid":100,"user":"fd0","group":"users",'
    b'"inode":42,"device_id":7,"size":5,"links":2,"extended_attributes":[{"name":"user.note","value":"AP8="},'
    b'{"name":"user.empty","value":""}],"content":["' + b"01" * 32 + b'"]}]}\n'
)


def test_the_bytes_of_a_tree() -> None:
    assert encode_tree([FILE]) == TREE
    assert decode_tree(TREE) == [FILE]


def test_an_empty_directory() -> None:
    assert encode_tree([]) == b'{"nodes":[]}\n'
    assert decode_tree(b'{"nodes":null}') == []


@pytest.mark.parametrize(
    "node",
    [
        Node(name=b"empty", type="file", content=[]),
        Node(name=b"folder", type="dir", mode=0o1777, subtree=b"\x02" * 32),
        Node(name=b"link", type="symlink", link_target=b"to"),
        Node(name=b"link", type="symlink", link_target=b"to \xff\xe2\x82"),
        Node(name=b"disk", type="dev", device=0x800),
        Node(name=b"tty", type="chardev", device=0x500),
        Node(name=b"pipe", type="fifo"),
        Node(name=b"socket", type="socket", error="odd <thing>"),
        Node(name=b"who", type="file", user="us\u00e9r", group="gr\ufffdup"),
    ],
)
def test_every_kind_of_node(node: Node) -> None:
    assert decode_tree(encode_tree([node])) == [node]


def test_nodes_are_sorted_by_the_bytes_of_their_names() -> None:
    names = [b"b", b"\xff", b"a", "é".encode(), b"B"]
    encoded = encode_tree([Node(name=name, type="file") for name in names])
    assert [node.name for node in decode_tree(encoded)] == sorted(names)


def test_one_name_twice_is_refused() -> None:
    with pytest.raises(InternalError):
        encode_tree([FILE, FILE])


def test_content_is_null_unless_there_is_some() -> None:
    nodes = json.loads(encode_tree([Node(name=b"a", type="fifo"), Node(name=b"b", type="file", content=[])]))
    assert [node["content"] for node in nodes["nodes"]] == [None, []]


def test_a_link_target_that_is_not_utf8_is_kept_twice() -> None:
    node = json.loads(encode_tree([Node(name=b"l", type="symlink", link_target=b"\xffx")]))["nodes"][0]
    assert node["linktarget"] == "\ufffdx"
    assert node["linktarget_raw"] == "/3g="


@pytest.mark.parametrize("mode", [0, 0o644, 0o1777, 0o2755, 0o4755, 0o7777])
def test_modes(mode: int) -> None:
    assert unix_mode(go_mode("dir", mode)) == mode
    assert go_mode("dir", mode) >> 31 == 1


def test_what_a_newer_writer_adds_is_skipped() -> None:
    document = TREE.replace(b'"uid"', b'"later":{"x":1},"uid"').replace(b'{"nodes"', b'{"v":9,"nodes"')
    assert decode_tree(document) == [FILE]


def test_an_unknown_type_is_irregular() -> None:
    assert decode_tree(TREE.replace(b'"type":"file"', b'"type":"door"'))[0].type == "irregular"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"nodes":[', b'{"nodes":{'),
        (b'"nodes"', b'"knots"'),
        (b"0101", b"01zz"),
        (b"1970", b"abcd"),
        (b"\\\\xff", b"\\\\xf"),
        (b'"size":5', b'"size":-5'),
        (b'"uid":1000', b'"uid":"root"'),
        (b'"AP8="', b'"A"'),
    ],
)
def test_damage_is_said(old: bytes, new: bytes) -> None:
    assert old in TREE
    with pytest.raises(Damaged):
        decode_tree(TREE.replace(old, new, 1))
