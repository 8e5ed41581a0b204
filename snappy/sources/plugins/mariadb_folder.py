"""A restore of a MariaDB server's data folder: unpacked by mbstream, taken through its log by mariadb-backup, and last
of all named as was asked for.

All happens below ``<folder>.snappy-unfinished``, which the next restore to the same folder begins anew.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Annotated

import msgspec
from msgspec import Meta

from snappy.decoding import from_json
from snappy.errors import BadOptions, Damaged, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.paths import shown
from snappy.sources.data_folders import UNFINISHED, check_empty, give, new_folder, of_system
from snappy.sources.databases import whole
from snappy.sources.plugins.mariadb_server import Server, explained
from snappy.sources.programs import Input, Running

PLUGIN = "mariadb-physical"
FOLDER = "/mariadb-physical/{}"
ABOUT = "about.json"
STREAM = "backup.xb"
LAYOUT = re.compile(r"/mariadb-physical/[^/]+/(about\.json|backup\.xb)")
DATA = b"data"

CHUNK = struct.Struct("<8sBcI")
MAGIC = b"XBSTCK01"
BODY = struct.Struct("<QQI")
"""A chunk of a stream is this: magic, flags, type, the length of the path, the path; and unless it ends its file: the
length of the data, their offset, a checksum, the data (xbstream.h of MariaDB)."""
DATA_TYPE, END_TYPE = b"P", b"E"
LONGEST_PATH = 4096


class PhysicalRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the data folder goes."""

    to: Annotated[str, Meta(description="the absolute path of the folder, which is empty or not there")]
    server: Annotated[str, Meta(description="whose settings say where MariaDB's programs are")] = "default"


class About(msgspec.Struct, frozen=True):
    owner: tuple[int, int] = (-1, -1)


class FolderSink:
    """See :class:`snappy.repository.entries.StreamSink`. ``to`` is absolute, its symlinks resolved."""

    def __init__(self, server: Server, to: bytes) -> None:
        self._server, self._to = server, to
        self._beside = to + UNFINISHED
        self._made = os.path.join(self._beside, DATA)
        self._running = Running()
        self._about = About()
        self._is_whole = False
        check_empty(to)
        with ExitStack() as held:
            held.callback(self._remove)
            self._lock = new_folder(self._beside)
            held.callback(os.close, self._lock)
            os.mkdir(self._made, 0o700)
            self._held = held.pop_all()

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        layout = LAYOUT.fullmatch(shown(path))
        if layout is None:
            raise BadOptions(
                f"{shown(path)} is nothing that the plug-in {PLUGIN} has backed up",
                hint="restore it with the plug-in that it came from, or with `files`",
            )
        if layout[1] == ABOUT:
            self._about = from_json(whole(content), About)
        else:
            self._unpack(content)
        return []

    def _unpack(self, content: Iterator[bytes]) -> None:
        words = [self._server.program("mbstream"), "--extract", f"--directory={os.fsdecode(self._made)}"]
        watch = StreamWatch()
        with explained():
            program = self._running.start(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            with closing(Input(program)) as fed:
                for piece in content:
                    watch.feed(piece)
                    fed.write(piece)
                watch.finish()
                fed.finish()
        self._is_whole = True

    def finish(self) -> list[str]:
        if not self._is_whole:
            raise BadOptions("the snapshot has no backup of a server", hint="leave out include and exclude")
        words = [self._server.program("mariadb-backup"), "--no-defaults", "--prepare"]
        with explained():
            self._running.start([*words, f"--target-dir={os.fsdecode(self._made)}"], stdout=subprocess.DEVNULL).wait()
        try:
            if os.geteuid() == 0:
                give(self._made, *self._about.owner)
            check_empty(self._to)
            os.replace(self._made, self._to)
        except OSError as error:
            raise of_system(error) from error
        return []

    def interrupt(self) -> None:
        """End the programs."""
        self._running.end()

    def close(self) -> None:
        self._running.end()
        self._held.close()

    def _remove(self) -> None:
        shutil.rmtree(self._beside, ignore_errors=True)


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
        """How long the head is, as far as is known."""
        if len(self._head) < CHUNK.size:
            return CHUNK.size
        _, _, kind, length = CHUNK.unpack_from(self._head)
        return int(CHUNK.size + length + (BODY.size if kind == DATA_TYPE else 0))

    def _look(self) -> None:
        """At the head, once there is all of it."""
        if len(self._head) < CHUNK.size:
            return
        magic, _, kind, length = CHUNK.unpack_from(self._head)
        if magic != MAGIC or kind not in (DATA_TYPE, END_TYPE) or not 0 < length <= LONGEST_PATH:
            raise Damaged("the backup of the server is no stream that is known")
        if len(self._head) < self._wanted():
            return
        _check_path(bytes(self._head[CHUNK.size : CHUNK.size + length]))
        if kind == DATA_TYPE:
            self._left = BODY.unpack_from(self._head, CHUNK.size + length)[0]
        self._head.clear()


def _check_path(path: bytes) -> None:
    if path.startswith(b"/") or b".." in path.split(b"/") or b"\0" in path:
        raise UnsafePath(f"the backup names a place outside of it: {shown(path)!r}")
