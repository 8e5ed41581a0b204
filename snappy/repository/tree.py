"""Trees: a directory's nodes as restic's JSON, byte for byte what restic would write.

Sources: restic's ``doc/design.rst``, "Trees and Data", and its ``internal/data/node.go``. The mode is Go's
``os.FileMode`` (https://pkg.go.dev/io/fs#FileMode): type and special bits lie elsewhere than in ``st_mode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import get_args

import msgspec

from snappy.errors import Damaged, InternalError
from snappy.repository.entries import Node, NodeType
from snappy.repository.format import BlobId, decode_json, encode_json, parse_id
from snappy.repository.gotext import escape_html, format_time, json_string, parse_time, quote, unquote

_TYPES: dict[str, NodeType] = {name: name for name in get_args(NodeType)}
_TYPE_BITS: dict[NodeType, int] = {
    "file": 0,
    "dir": 1 << 31,
    "symlink": 1 << 27,
    "dev": 1 << 26,
    "chardev": 1 << 26 | 1 << 21,
    "fifo": 1 << 25,
    "socket": 1 << 24,
    "irregular": 1 << 19,
}
_SPECIAL_BITS = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))
_GO_SPECIAL = 1 << 23 | 1 << 22 | 1 << 20


class _Xattr(msgspec.Struct):
    name: str | msgspec.Raw
    value: bytes | None


class _XattrIn(msgspec.Struct):
    name: str
    value: bytes | None = None


# None of these can be part of a cycle, so the garbage collector need not look at them: a fifth of the time.
class _NodeOut(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    name: str
    type: str
    mode: int = 0
    mtime: str
    atime: str
    ctime: str
    uid: int
    gid: int
    user: str | msgspec.Raw = ""
    group: str | msgspec.Raw = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str | msgspec.Raw = ""
    linktarget_raw: bytes = b""
    extended_attributes: list[_Xattr] = []
    device: int = 0
    content: list[str] | None
    subtree: str = ""
    error: str | msgspec.Raw = ""


class StoredNode(msgspec.Struct, kw_only=True, gc=False, eq=False):
    """A node as its tree holds it. To make a :class:`Node` of it costs more than to see that it is still true."""

    name: str
    type: str
    mode: int = 0
    mtime: str = "0001-01-01T00:00:00Z"
    atime: str = "0001-01-01T00:00:00Z"
    ctime: str = "0001-01-01T00:00:00Z"
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: list[_XattrIn] | None = None
    device: int = 0
    content: list[str] | None = None
    subtree: str | None = None
    error: str = ""

    def node(self) -> Node:
        """Raises :class:`Damaged` where a field is not what it should be."""
        link_target = self.linktarget.encode() if self.linktarget_raw is None else self.linktarget_raw
        return Node(
            name=unquote(self.name),
            type=_TYPES.get(self.type, "irregular"),
            mode=unix_mode(self.mode),
            mtime_ns=parse_time(self.mtime),
            atime_ns=parse_time(self.atime),
            ctime_ns=parse_time(self.ctime),
            uid=self.uid,
            gid=self.gid,
            user=self.user,
            group=self.group,
            inode=self.inode,
            device_id=self.device_id,
            size=_not_negative(self.size),
            links=self.links,
            link_target=link_target,
            device=self.device,
            xattrs={xattr.name.encode(): xattr.value or b"" for xattr in self.extended_attributes or ()},
            content=self.blobs(),
            subtree=parse_id(self.subtree) if self.subtree else None,
            error=self.error,
        )

    def equals(self, node: Node) -> bool:
        """Whether it says exactly the same."""
        try:
            return self.node() == node
        except Damaged:
            return False

    def blobs(self) -> list[BlobId] | None:
        """The ids of a file's content, ``None`` where there are none. Raises :class:`Damaged`."""
        return None if self.content is None else [parse_id(blob) for blob in self.content]


class _OwnerOut(msgspec.Struct, kw_only=True, omit_defaults=True):
    uid: int
    gid: int
    user: str | msgspec.Raw = ""
    group: str | msgspec.Raw = ""


_COMMON_FILE = (
    '{"name":"%s","type":"file","mode":%d,"mtime":"%s","atime":"%s","ctime":"%s",%s,'
    '"inode":%d,"size":%d,"links":1,"content":["%s"]}'
)


class EncodedNode(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A node as its tree will hold it, but for what HTML asks for: made by whoever had the file."""

    name: bytes
    document: bytes


class _TreeOut(msgspec.Struct):
    nodes: list[_NodeOut | msgspec.Raw]


class _TreeIn(msgspec.Struct):
    nodes: list[StoredNode] | None


class _Documents(msgspec.Struct):
    nodes: list[msgspec.Raw] | None


def encode_node(node: Node) -> EncodedNode:
    """The node, for :func:`encode_tree`."""
    return EncodedNode(node.name, _common_file(node).encode() or encode_json(_encode(node)))


def _common_file(node: Node) -> str:
    """The document of what most files are, in half the time; of anything else nothing."""
    if node.type != "file" or node.links != 1 or not (node.mode and node.inode and node.size and node.content):
        return ""
    if node.xattrs or node.error or node.device_id or node.device or node.link_target or node.subtree:
        return ""
    name = quote(node.name)
    if "\\" in name or not name.isascii():
        return ""
    mtime = format_time(node.mtime_ns)
    return _COMMON_FILE % (
        name,
        go_mode("file", node.mode),
        mtime,
        mtime if node.atime_ns == node.mtime_ns else format_time(node.atime_ns),
        format_time(node.ctime_ns),
        _owner(node.uid, node.gid, node.user, node.group),
        node.inode,
        node.size,
        '","'.join([blob.hex() for blob in node.content]),
    )


@lru_cache(maxsize=256)
def _owner(uid: int, gid: int, user: str, group: str) -> str:
    owner = encode_json(_OwnerOut(uid=uid, gid=gid, user=_text(user), group=_text(group)))
    return owner[1:-1].decode()


def encode_tree(nodes: Sequence[Node | EncodedNode]) -> bytes:
    """The JSON of a directory with these nodes, sorted by the bytes of their names.

    Raises :class:`InternalError` when two have one name: no reader could tell them apart.
    """
    ordered = sorted(nodes, key=lambda node: node.name)
    for one, next_one in pairwise(ordered):
        if one.name == next_one.name:
            raise InternalError(f"two entries of one directory are named {one.name!r}")
    document = encode_json(
        _TreeOut([_encode(node) if isinstance(node, Node) else msgspec.Raw(node.document) for node in ordered])
    )
    return escape_html(document) + b"\n"


def decode_tree(data: bytes) -> list[Node]:
    """The nodes of a directory, in the order stored. Raises :class:`Damaged`.

    Names are as they were stored: whoever makes paths of them must refuse ``..`` and its like.
    """
    return [node.node() for node in read_tree(data)]


def read_tree(data: bytes) -> list[StoredNode]:
    """The same, without a look at what its nodes say. Raises :class:`Damaged`."""
    return decode_json(data, _TreeIn, "a tree").nodes or []


def documents(data: bytes) -> list[bytes]:
    """Each node's own JSON, in the order stored. Raises :class:`Damaged`."""
    return [bytes(node) for node in decode_json(data, _Documents, "a tree").nodes or []]


def _encode(node: Node) -> _NodeOut:
    mtime = format_time(node.mtime_ns)
    return _NodeOut(
        name=quote(node.name),
        type=node.type,
        mode=go_mode(node.type, node.mode),
        mtime=mtime,
        atime=mtime if node.atime_ns == node.mtime_ns else format_time(node.atime_ns),
        ctime=format_time(node.ctime_ns),
        uid=node.uid,
        gid=node.gid,
        user=_text(node.user),
        group=_text(node.group),
        inode=node.inode,
        device_id=node.device_id,
        size=node.size,
        links=node.links,
        linktarget=json_string(node.link_target) if node.link_target else "",
        linktarget_raw=node.link_target if node.link_target and not _is_utf8(node.link_target) else b"",
        extended_attributes=[_Xattr(json_string(name), value) for name, value in node.xattrs.items()],
        device=node.device,
        content=None if node.content is None else [blob.hex() for blob in node.content],
        subtree=node.subtree.hex() if node.subtree else "",
        error=_text(node.error),
    )


def go_mode(kind: NodeType, mode: int) -> int:
    """Go's ``os.FileMode`` for a type and twelve Unix permission bits."""
    special = sum(go for unix, go in _SPECIAL_BITS if mode & unix) if mode & 0o7000 else 0
    return _TYPE_BITS[kind] | special | mode & 0o777


def unix_mode(mode: int) -> int:
    """The twelve Unix permission bits of Go's ``os.FileMode``."""
    special = sum(unix for unix, go in _SPECIAL_BITS if mode & go) if mode & _GO_SPECIAL else 0
    return special | mode & 0o777


def _text(text: str) -> str | msgspec.Raw:
    return text if text.isascii() else json_string(text.encode("utf-8", "surrogateescape"))


def _is_utf8(raw: bytes) -> bool:
    return isinstance(json_string(raw), str)


def _not_negative(number: int) -> int:
    if number < 0:
        raise Damaged("a file in a tree has a negative size")
    return number
