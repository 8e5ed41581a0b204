"""A restore of a MariaDB server's data folder: unpacked by mbstream, taken through its log by mariadb-backup, and last
of all named as was asked for.

All happens below ``<folder>.snappy-unfinished``, which the next restore to the same folder begins anew.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from snappy.decoding import from_json
from snappy.errors import BadOptions, Damaged, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.paths import shown
from snappy.sources.data_folders import Goal, NewFolder
from snappy.sources.databases import whole
from snappy.sources.made_up import recognized
from snappy.sources.plugins.mariadb_server import Server, explained
from snappy.sources.programs import Running

PLUGIN = "mariadb-physical"
FOLDER = "/mariadb-physical/{}"
ABOUT = "about.json"
STREAM = "backup.xb"
LAYOUT = re.compile(r"/mariadb-physical/[^/]+/(about\.json|backup\.xb)")
DATA = b"data"

CHUNK = struct.Struct("<8sBcI")
MAGIC = b"XBSTCK01"
BODY, LENGTH = struct.Struct("<QQI"), struct.Struct("<I")
DATA_TYPE, RENAME_TYPE = b"P", b"R"
TAILS = {DATA_TYPE: BODY.size, RENAME_TYPE: LENGTH.size, b"S": 8, b"D": 0, b"E": 0}
"""A chunk of a stream is this: magic, flags, type, the length of the path, the path; then of data their length, their
offset, a checksum, and the data; of a file that gets another name the length of that, and the name; of one that goes on
elsewhere the offset. Files that go, or end, need no more (MariaDB's xbstream.h and xbstream_write.cc)."""
LONGEST_PATH = 4096


class PhysicalRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the data folder goes."""

    to: Goal
    server: Annotated[str, Meta(description="whose settings say where MariaDB's programs are")] = "default"


class About(msgspec.Struct, frozen=True):
    owner: tuple[int, int] = (-1, -1)


class FolderSink:
    """See :class:`snappy.repository.entries.StreamSink`. ``to`` is absolute, its symlinks resolved."""

    def __init__(self, server: Server, to: bytes) -> None:
        self._server = server
        self._running = Running()
        self._about = About()
        self._is_whole = False
        self._folder = NewFolder(to)
        self._made = self._folder.make(DATA)

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        if recognized(path, LAYOUT, PLUGIN)[1] == ABOUT:
            self._about = from_json(whole(content), About)
        else:
            self._unpack(content)
        return []

    def _unpack(self, content: Iterator[bytes]) -> None:
        if self._is_whole:
            raise BadOptions("the snapshot has backups of several servers", hint="name one of them by include")
        words = [self._server.program("mbstream"), "--extract", f"--directory={os.fsdecode(self._made)}"]
        with explained():
            self._running.feed(words, _watched(content))
        self._is_whole = True

    def finish(self) -> list[str]:
        if not self._is_whole:
            raise BadOptions("the snapshot has no backup of a server", hint="leave out include and exclude")
        words = [self._server.program("mariadb-backup"), "--no-defaults", "--prepare"]
        with explained():
            self._running.run([*words, f"--target-dir={os.fsdecode(self._made)}"])
        self._folder.put(self._made, *self._about.owner)
        return []

    def interrupt(self) -> None:
        """End the programs."""
        self._running.end()

    def close(self) -> None:
        self._running.end()
        self._folder.close()


def _watched(content: Iterator[bytes]) -> Iterator[bytes]:
    watch = StreamWatch()
    for piece in content:
        watch.feed(piece)
        yield piece
    watch.finish()


class StreamWatch:
    """Looks at a stream as it passes: mbstream would write wherever it is told to."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        """Of the data of a chunk."""

    def feed(self, piece: bytes) -> None:
        """Raises :class:`UnsafePath`, and :class:`Damaged` for what is no such stream."""
        view = memoryview(piece)
        while view:
            if self._left:
                size = min(self._left, len(view))
                self._left -= size
                view = view[size:]
                continue
            wanted = self._wanted()
            taken = view[: wanted - len(self._head)]
            self._head += taken
            view = view[len(taken) :]
            self._look()

    def finish(self) -> None:
        """Raises :class:`Damaged` where it ends amid a chunk."""
        if self._head or self._left:
            raise Damaged("the backup of the server ends before its end")

    def _wanted(self) -> int:
        """How long the head is, as far as is known. Raises :class:`Damaged`."""
        if len(self._head) < CHUNK.size:
            return CHUNK.size
        magic, _, kind, length = CHUNK.unpack_from(self._head)
        if magic != MAGIC or kind not in TAILS:
            raise Damaged("the backup of the server is no stream that is known")
        wanted = CHUNK.size + _checked(length) + TAILS[kind]
        if kind == RENAME_TYPE and len(self._head) >= wanted:
            wanted += _checked(*LENGTH.unpack_from(self._head, wanted - LENGTH.size))
        return wanted

    def _look(self) -> None:
        """At the head, once there is all of it."""
        if len(self._head) < self._wanted():
            return
        _, _, kind, length = CHUNK.unpack_from(self._head)
        end = CHUNK.size + length
        _check_path(bytes(self._head[CHUNK.size : end]))
        if kind == RENAME_TYPE:
            _check_path(bytes(self._head[end + LENGTH.size :]))
        elif kind == DATA_TYPE:
            self._left = BODY.unpack_from(self._head, end)[0]
        self._head.clear()


def _checked(length: int) -> int:
    if not 0 < length <= LONGEST_PATH:
        raise Damaged("the backup of the server names a file by no name that can be")
    return length


def _check_path(path: bytes) -> None:
    if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
        raise UnsafePath(f"the backup names a place outside of it: {shown(path)!r}")
