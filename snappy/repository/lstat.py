"""What ``lstat`` says as a node, and whether a stored node says the same.

Conventions are restic's: the access time is recorded as the modification time, the device is kept only for files with
several hard links.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from functools import lru_cache

from snappy.errors import Damaged
from snappy.repository.entries import Node, NodeType
from snappy.repository.format import parse_id
from snappy.repository.gotext import parse_time
from snappy.repository.tree import StoredNode, go_mode

TYPES: dict[int, NodeType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_FILE, _DIRECTORY, _LINK = TYPES[stat.S_IFREG], TYPES[stat.S_IFDIR], TYPES[stat.S_IFLNK]
_COMPARED = {kind: name for kind, name in TYPES.items() if name in (_FILE, _DIRECTORY, _LINK)}


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """The user's name, or an empty string."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(maxsize=4096)
def group_name(gid: int) -> str:
    """The group's name, or an empty string."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def node_of(name: bytes, found: os.stat_result) -> Node:
    """The node of what ``lstat`` found; link target and extended attributes are not in it yet."""
    kind = TYPES.get(stat.S_IFMT(found.st_mode), "irregular")
    counted = kind in ("file", "symlink", "dev", "chardev")
    return Node(
        name=name,
        type=kind,
        mode=stat.S_IMODE(found.st_mode),
        mtime_ns=found.st_mtime_ns,
        atime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        uid=found.st_uid,
        gid=found.st_gid,
        user=user_name(found.st_uid),
        group=group_name(found.st_gid),
        inode=found.st_ino,
        device_id=found.st_dev if counted and found.st_nlink > 1 else 0,
        size=found.st_size if kind == "file" else 0,
        links=found.st_nlink if counted else 0,
        device=found.st_rdev if kind in ("dev", "chardev") else 0,
    )


def says_same(stored: StoredNode, found: os.stat_result) -> bool:
    """Whether a node is what a file, directory or symlink of this ``lstat`` would be stored as, but for its content,
    link target and extended attributes: none of these changes without the inode's time of change, which no program can
    set, or in a directory the times of what is in it. A file system without times says nothing of change."""
    kind = _COMPARED.get(stat.S_IFMT(found.st_mode))
    counted = kind is not _DIRECTORY
    try:
        return (
            kind == stored.type
            and (found.st_mtime_ns, found.st_ctime_ns) != (0, 0)
            and stored.inode == found.st_ino
            and stored.size == (found.st_size if kind is _FILE else 0)
            and parse_time(stored.ctime) == found.st_ctime_ns
            and parse_time(stored.mtime) == found.st_mtime_ns
            and stored.atime == stored.mtime
            and stored.mode == go_mode(kind, found.st_mode & 0o7777)
            and stored.links == (found.st_nlink if counted else 0)
            and stored.uid == found.st_uid
            and stored.gid == found.st_gid
            and stored.user == user_name(found.st_uid)
            and stored.group == group_name(found.st_gid)
            and stored.device_id == (found.st_dev if counted and found.st_nlink > 1 else 0)
            and not (stored.device or stored.error)
            and _leads_where_it_should(stored, kind)
        )
    except Damaged:
        return False


def _leads_where_it_should(stored: StoredNode, kind: NodeType) -> bool:
    """Whether it has what its type asks for, and nothing else. Raises :class:`Damaged`."""
    has_target = bool(stored.linktarget or stored.linktarget_raw)
    if kind is _FILE:
        return not (stored.subtree or has_target)
    if stored.content is not None:
        return False
    if kind is _DIRECTORY:
        return bool(parse_id(stored.subtree or "")) and not has_target
    return has_target and not stored.subtree
