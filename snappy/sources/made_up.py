"""What plug-ins make of what is no file: entries of the folders above it, streams, and what is said about it; and how
they know it again."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

import msgspec

from snappy.errors import BadOptions
from snappy.repository.entries import Entry, Node
from snappy.repository.format import MIB
from snappy.repository.paths import ROOT, join, shown, split


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


def small(path: bytes, content: bytes) -> Entry:
    """The same of what is at hand."""
    return stream(path, partial(io.BytesIO, content), size=len(content))


def buffered(raw: io.RawIOBase) -> BinaryIO:
    """What a stream opens."""
    return cast(BinaryIO, io.BufferedReader(raw, MIB))


def about(version: Any, **said: Any) -> bytes:
    """What a backup of a server of that version says of itself, for a restore and for whoever looks."""
    made = {"server_version": version, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    return msgspec.json.format(msgspec.json.encode(made | said), indent=2)


def recognized(path: bytes, layout: re.Pattern[str], plugin: str) -> re.Match[str]:
    """What a file of a snapshot is by the ``layout`` of that plug-in's own. Raises :class:`BadOptions` for others."""
    found = layout.fullmatch(shown(path))
    if found is None:
        raise BadOptions(
            f"{shown(path)} is nothing that the plug-in {plugin} has backed up",
            hint="restore it with the plug-in that it came from, or with `files`",
        )
    return found
