"""Entries of what is no file: the folders above it, and streams."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from snappy.repository.entries import Entry, Node
from snappy.repository.paths import ROOT, join, split


def folder_node(name: bytes) -> Node:
    """The node of a directory that exists only as part of names."""
    return Node(name=name, type="dir", mode=0o755)


def folders_above(path: bytes) -> Iterator[Entry]:
    """The directories on the way from the root to ``path``."""
    here = ROOT
    for name in split(path)[:-1]:
        here = join(here, name)
        yield Entry(path=here, node=folder_node(name))


def stream(path: bytes, open_: Callable[[], BinaryIO], *, size: int = 0) -> Entry:
    """A file that a program or a server gives, once and from its beginning; ``size`` in bytes, 0 where nobody knows.
    It is never taken for unchanged, since its time is now."""
    now = time.time_ns()
    node = Node(
        name=os.path.basename(path),
        type="file",
        mode=0o600,
        size=size,
        mtime_ns=now,
        atime_ns=now,
        ctime_ns=now,
        links=1,
    )
    return Entry(path=path, node=node, open=open_)
