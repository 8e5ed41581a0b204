"""A restore of a PostgreSQL server's data folder: the archives of a chain, each unpacked into a folder of its own, then
combined and verified by PostgreSQL's own programs, and last of all named as was asked for.

All happens below ``<folder>.snappy-unfinished``, which the next restore to the same folder begins anew.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, Damaged, UnsafePath
from snappy.repository.entries import Node
from snappy.repository.format import MIB
from snappy.repository.paths import join, shown
from snappy.sources.data_folders import Goal, NewFolder, of_system
from snappy.sources.local_metadata import by_number
from snappy.sources.local_sink import LocalSink
from snappy.sources.made_up import recognized
from snappy.sources.plugins.postgres_server import Server, explained
from snappy.sources.programs import Running

PLUGIN = "postgres-physical"
FOLDER = "/postgres-physical/{}/{}"
LAYOUT = re.compile(r"/postgres-physical/[^/]+/[^/]+/(?:(\d+)-(?:full|incremental)\.tar|about\.json)")
DONE = b"data"
VERSION = b"/PG_VERSION"
"""It has the owner that all has at the server; what pg_basebackup adds to the archive has its own."""


class PhysicalRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the data folder goes."""

    to: Goal
    server: Annotated[str, Meta(description="whose settings say where PostgreSQL's programs are")] = "default"
    verify: Annotated[bool, Meta(description="compare all of it with the manifest that the server wrote")] = True


class FolderSink:
    """See :class:`snappy.repository.entries.StreamSink`. ``to`` is absolute, its symlinks resolved."""

    def __init__(self, server: Server, options: PhysicalRestore, to: bytes) -> None:
        self._server, self._options = server, options
        self._running = Running()
        self._archives: list[str] = []
        self._owner = (-1, -1)
        self._folder = NewFolder(to)

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        number = recognized(path, LAYOUT, PLUGIN)[1]
        if number is None:
            _read_out(content)
            return []
        if int(number) != len(self._archives):
            raise BadOptions("a chain of backups can only be restored as a whole", hint="leave out include and exclude")
        self._archives.append(number)
        place = os.path.join(self._folder.path, os.fsencode(number))
        try:
            remarks = self._unpack(place, content)
            _read_out(content)  # an archive ends before its last block does
            return remarks
        except tarfile.TarError as error:
            raise Damaged(f"{shown(path)} is no archive: {error}") from error
        except OSError as error:
            raise of_system(error) from error

    def _unpack(self, place: bytes, content: Iterator[bytes]) -> list[str]:
        """Nothing but files and directories, whatever the archive says, and no symlink is followed."""
        sink = LocalSink(place, owner=by_number if os.geteuid() == 0 else None)
        folders: list[tuple[bytes, Node]] = []
        remarks: list[str] = []
        try:
            with tarfile.open(fileobj=_Reader(content), mode="r|", bufsize=MIB) as archive:
                for member in archive:
                    self._running.check()
                    path, node = _described(member)
                    if member.isdir():
                        sink.directory(path, node)
                        folders.append((path, node))
                    else:
                        if path == VERSION:
                            self._owner = node.uid, node.gid
                        remarks += _write(sink, path, node, archive, member)
            for path, node in reversed(folders):
                remarks += sink.finish(path, node)
        finally:
            sink.close()
        return remarks

    def finish(self) -> list[str]:
        if not self._archives:
            raise BadOptions("the snapshot has no archive of a server", hint="leave out include and exclude")
        made = self._combined()
        if self._options.verify:
            self._run("pg_verifybackup", "--quiet", os.fsdecode(made))
        self._folder.put(made, *self._owner)
        return []

    def _combined(self) -> bytes:
        folders = [os.path.join(self._folder.path, name.encode()) for name in self._archives]
        if len(folders) == 1:
            return folders[0]
        made = os.path.join(self._folder.path, DONE)
        self._run("pg_combinebackup", f"--output={os.fsdecode(made)}", *map(os.fsdecode, folders))
        return made

    def _run(self, program: str, *words: str) -> None:
        with explained():
            self._running.run([self._server.program(program), *words])

    def interrupt(self) -> None:
        """End the programs, and the unpacking."""
        self._running.end()

    def close(self) -> None:
        self._running.end()
        self._folder.close()


def _read_out(content: Iterator[bytes]) -> None:
    for _ in content:
        pass


class _Reader(io.RawIOBase):
    """What comes piece by piece, as a file that can be read once. What the pieces raise, a read raises."""

    def __init__(self, content: Iterator[bytes]) -> None:
        self._content, self._rest = content, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._content, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _described(member: tarfile.TarInfo) -> tuple[bytes, Node]:
    """Its path below the folder, and what it is to become. Raises :class:`UnsafePath`."""
    if not (member.isdir() or member.isreg()):
        raise UnsafePath(f"the archive holds {member.name!r}, which is neither a file nor a folder")
    parts = [part for part in os.fsencode(member.name).split(b"/") if part not in (b"", b".")]
    if b".." in parts or not parts:
        raise UnsafePath(f"the archive names a place outside of it: {member.name!r}")
    path = b""
    for part in parts:
        path = join(path or b"/", part)
    return path, Node(
        name=parts[-1],
        type="dir" if member.isdir() else "file",
        mode=stat.S_IMODE(member.mode),
        size=member.size,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=int(member.mtime) * 1_000_000_000,
        atime_ns=int(member.mtime) * 1_000_000_000,
    )


def _write(sink: LocalSink, path: bytes, node: Node, archive: tarfile.TarFile, member: tarfile.TarInfo) -> list[str]:
    content = archive.extractfile(member)
    assert content
    file = sink.file(path, node)
    try:
        offset = 0
        while piece := content.read(MIB):
            file.write_at(offset, piece)
            offset += len(piece)
        return file.finish()
    finally:
        file.close()
