"""The ``redis`` plug-in: all databases of a Redis or Valkey server as of one moment, as a replica gets them.

The snapshot holds ``/redis/<server>/about.json`` and ``/redis/<server>/dump.rdb``, which a server starts on.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, BinaryIO, ClassVar, NamedTuple

import msgspec

from snappy.repository.entries import Entry
from snappy.sources.databases import Named, ServerSource
from snappy.sources.made_up import about, buffered, folders_above, small, stream
from snappy.sources.places import folder_claim
from snappy.sources.plugins.redis_server import PLUGIN, RedisSettings, Server, Session, facts, missing
from snappy.sources.plugins.redis_sink import FOLDER, FolderSink, RedisRestore, ServerSink
from snappy.sources.site import Site

CONSISTENCY = "all databases as of one moment, that of `offset` in the server's replication"
MARK_BYTES = 40
"""Of what follows a stream whose length the server did not know."""


class RedisOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which server is backed up."""

    server: Named = "default"


class Frozen(NamedTuple):
    """A session that the server sends all it has to, as of the moment that it began."""

    session: Session
    about: bytes
    size: int
    """About so many bytes will come."""


class RedisSource(ServerSource[Frozen]):
    """Backs up a server while it is written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = RedisOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = RedisRestore
    Settings: ClassVar[type[msgspec.Struct]] = RedisSettings

    def __init__(self, options: RedisOptions, site: Site) -> None:
        super().__init__()
        self._server = Server(site, options.server)
        self._session: Session | None = None

    def claims(self) -> list[str]:
        """The server."""
        return [f"{PLUGIN}://{self._server.name}"]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing()

    def _freeze(self, held: ExitStack) -> Frozen:
        """The server forks, as for a replica."""
        self._session = session = held.enter_context(closing(self._server.connect("snappy-backup")))
        self._running.check()
        said = _described(session)
        session.ask("REPLCONF", "capa", "eof")
        if _is_new(said):
            session.ask("REPLCONF", "rdb-only", "1")
        _, replication, offset = session.begin("PSYNC", "?", "-1").decode().split()
        said |= {"replication_id": replication, "offset": int(offset)}
        return Frozen(session, about(said.pop("server_version"), **said), said["used_memory"])

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """What the server takes in memory, which is more than it sends."""
        yield frozen.size

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """What the server is, and what it has."""
        folder = FOLDER.format(self._server.name)
        first = f"{folder}/about.json".encode()
        yield from folders_above(first)
        yield small(first, frozen.about)
        yield stream(f"{folder}/dump.rdb".encode(), lambda: _dump(frozen.session))

    def interrupt(self) -> None:
        """Hang up: the server ends what it does for us."""
        super().interrupt()
        if self._session:
            self._session.interrupt()

    @classmethod
    def restore_claims(cls, options: RedisRestore, site: Site) -> list[str]:
        """The folder; or each database that is named, or else the server."""
        if not options.to:
            server = f"{PLUGIN}://{options.server}"
            return sorted({f"{server}/{number}" for number in options.databases.values()}) or [server]
        return [folder_claim(options.to)]

    @classmethod
    def import_(cls, options: RedisRestore, claims: Sequence[str], site: Site) -> FolderSink | ServerSink:
        """What makes a file for a server to start on, or fills one that runs."""
        if options.to:
            return FolderSink(os.fsencode(claims[0]), overwrite=options.overwrite)
        return ServerSink(Server(site, options.server), options, site)


class _Dump(io.RawIOBase):
    """What a replica gets first, without what frames it: so many bytes, or bytes up to a mark that was said before
    (redis.io, "Redis replication")."""

    def __init__(self, session: Session, head: bytes) -> None:
        self._session = session
        self._mark = head[5:] if head.startswith(b"$EOF:") else b""
        self._left = 0 if self._mark else int(head[1:])
        self._held = b""
        self._is_over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._mark:
            return self._read_marked(memoryview(buffer))
        size = self._session.readinto(memoryview(buffer)[: self._left]) if self._left else 0
        self._left -= size
        return size

    def _read_marked(self, buffer: memoryview) -> int:
        """The last bytes of what came may be the mark, and are held back. The server says nothing after it."""
        fresh = bytearray(len(buffer))
        while not self._is_over:
            came = self._session.readinto(fresh)
            data = self._held + fresh[:came]
            self._is_over = data.endswith(self._mark)
            size = max(0, len(data) - MARK_BYTES)
            self._held = data[size:]
            if size:
                buffer[:size] = data[:size]
                return size
        return 0


def _dump(session: Session) -> BinaryIO:
    return buffered(_Dump(session, session.line()))


def _described(session: Session) -> dict[str, Any]:
    """What a restore has to know, or whoever looks."""
    server, persistence = facts(session, "server"), facts(session, "persistence")
    keys = {name.removeprefix("db"): said for name, said in facts(session, "keyspace").items()}
    return {
        "server_version": server["redis_version"],
        "consistency": CONSISTENCY,
        "append_only": persistence.get("aof_enabled") == "1",
        "used_memory": int(facts(session, "memory")["used_memory"]),
        "databases": keys,
    }


def _is_new(said: dict[str, Any]) -> bool:
    """Whether the server can be told that the replica wants nothing of what is written later."""
    return int(said["server_version"].split(".")[0]) >= 7
