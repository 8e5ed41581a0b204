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
    """Whether a node is what a regular file of this ``lstat`` would be stored as, but for its content and extended
    attributes: none of these changes without the inode's time of change, which no program can set. A file system
    without times says nothing of change."""
    try:
        return (
            (found.st_mtime_ns, found.st_ctime_ns) != (0, 0)
            and stored.inode == found.st_ino
            and stored.size == found.st_size
            and parse_time(stored.ctime) == found.st_ctime_ns
            and parse_time(stored.mtime) == found.st_mtime_ns
            and stored.atime == stored.mtime
            and stored.type == "file"
            and stored.mode == go_mode("file", found.st_mode & 0o7777)
            and stored.links == found.st_nlink
            and stored.uid == found.st_uid
            and stored.gid == found.st_gid
            and stored.user == user_name(found.st_uid)
            and stored.group == group_name(found.st_gid)
            and stored.device_id == (found.st_dev if found.st_nlink > 1 else 0)
            and not (stored.device or stored.subtree or stored.error or stored.linktarget or stored.linktarget_raw)
        )
    except Damaged:
        return False
