"""A snapshot's names and modes as Python and Unix have them.

Names are bytes. As text, what is not UTF-8 is a lone surrogate for each byte, as everywhere in Python (PEP 383): so
each name has one text, and each text that was given here leads back to its name.
"""

from __future__ import annotations

import stat

from snappy.repository.entries import Node

TYPES = {
    "file": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "irregular": 0,
}


def text(name: bytes) -> str:
    """A name or path as text."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The bytes of a name or path."""
    return name.encode("utf-8", "surrogateescape")


def st_mode(node: Node) -> int:
    """Type and permissions, as ``os.stat_result`` has them."""
    return TYPES[node.type] | node.mode


def size(node: Node) -> int:
    """Bytes, as ``lstat`` has them."""
    return len(node.link_target) if node.type == "symlink" else node.size
