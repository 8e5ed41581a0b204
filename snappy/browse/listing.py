"""Nodes of a snapshot as restic prints them: in a line, or as JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from snappy.repository.entries import Node
from snappy.repository.gotext import format_time, json_string
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree import go_mode

_LETTERS = "dalTLDpSugct?"
_RWX = "rwxrwxrwx"
_TOP_BIT = 31

Entry = tuple[bytes, Node]
"""A path and what is there."""

Measure = Callable[[int], str]

ORDERS: dict[str, Callable[[Entry], Any]] = {
    "size": lambda entry: (entry[1].size, entry[0]),
    "time": lambda entry: (entry[1].mtime_ns, entry[0]),
    "mtime": lambda entry: (entry[1].mtime_ns, entry[0]),
    "atime": lambda entry: (entry[1].atime_ns, entry[0]),
    "ctime": lambda entry: (entry[1].ctime_ns, entry[0]),
    "extension": lambda entry: (entry[1].name.rpartition(b".")[1:] if b"." in entry[1].name else (), entry[0]),
    "name": lambda entry: entry[0],
}
"""What entries are sorted by."""


def permissions(node: Node) -> str:
    """Type and mode as Go writes them (https://pkg.go.dev/io/fs#FileMode.String)."""
    mode = go_mode(node.type, node.mode)
    kind = "".join(letter for place, letter in enumerate(_LETTERS) if mode >> _TOP_BIT - place & 1)
    return (kind or "-") + "".join(letter if mode >> 8 - place & 1 else "-" for place, letter in enumerate(_RWX))


def line(path: bytes, node: Node, measure: Measure) -> bytes:
    """Mode, owner, group, size and time (this machine's), then the path and where a link leads."""
    when = datetime.fromtimestamp(node.mtime_ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")
    head = f"{permissions(node)} {node.uid:5d} {node.gid:5d} {measure(node.size)} {when} ".encode()
    return head + path + (b" -> " + node.link_target if node.type == "symlink" else b"")


def local_time(snapshot: Snapshot) -> str:
    """When it was made, by this machine's zone, as everything in a line."""
    return snapshot.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plain_size(size: int) -> str:
    """Bytes, right-aligned as in restic."""
    return f"{size:6d}"


def document(path: bytes, node: Node) -> dict[str, Any]:
    """As in ``ls --json``."""
    found: dict[str, Any] = {"name": json_string(node.name), "type": node.type, "path": json_string(path)}
    found |= {"uid": node.uid, "gid": node.gid}
    if node.type == "file":
        found["size"] = node.size
    found |= {"mode": go_mode(node.type, node.mode), "permissions": permissions(node), **_times(node)}
    return found | {"inode": node.inode, "message_type": "node", "struct_type": "node"}


def match_document(path: bytes, node: Node) -> dict[str, Any]:
    """As in ``find --json``: without what is empty."""
    found: dict[str, Any] = {"path": json_string(path), "permissions": permissions(node), "type": node.type}
    found |= {"mode": go_mode(node.type, node.mode), **_times(node), "uid": node.uid, "gid": node.gid}
    more = {
        "user": node.user,
        "group": node.group,
        "inode": node.inode,
        "device_id": node.device_id,
        "size": node.size,
        "links": node.links,
        "linktarget": json_string(node.link_target),
    }
    return found | {name: value for name, value in more.items() if value}


def snapshot_document(snapshot: Snapshot) -> dict[str, Any]:
    """As in ``ls --json``."""
    names = {"id": snapshot.id, "short_id": snapshot.id[:8]}
    return {**msgspec.to_builtins(snapshot), **names, "message_type": "snapshot", "struct_type": "snapshot"}


def _times(node: Node) -> dict[str, str]:
    return {
        "mtime": format_time(node.mtime_ns),
        "atime": format_time(node.atime_ns),
        "ctime": format_time(node.ctime_ns),
    }
