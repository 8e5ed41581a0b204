"""The ``redis`` plug-in: all databases of a Redis or Valkey server as of one moment, as a replica gets them.

The snapshot holds ``/redis/<server>/about.json`` and ``/redis/<server>/dump.rdb``, which a server starts on.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceUnavailable
from snappy.repository.entries import Entry
from snappy.repository.format import MIB
from snappy.sources.made_up import folders_above, stream
from snappy.sources.places import Local, parse_place
from snappy.sources.plugins.redis_server import PLUGIN, RedisSettings, Server, Session, facts, missing
from snappy.sources.plugins.redis_sink import FOLDER, FolderSink, RedisRestore, ServerSink
from snappy.sources.site import Site

CONSISTENCY = "all databases as of one moment, that of `offset` in the server's replication"
MARK_BYTES = 40
"""Of what follows a stream whose length the server did not know."""


class RedisOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which server is backed up."""

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )


class Frozen(NamedTuple):
    """A session that the server sends all it has to, as of the moment that it began."""

    session: Session
    about: bytes
    size: int
    """About so many bytes will come."""


class RedisSource:
    """Backs up a server while it is written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = RedisOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = RedisRestore
    Settings: ClassVar[type[msgspec.Struct]] = RedisSettings

    def __init__(self, options: RedisOptions, site: Site) -> None:
        self._server = Server(site, options.server)
        self._session: Session | None = None
        self._is_over = False

    def claims(self) -> list[str]:
        """The server."""
        return [f"{PLUGIN}://{self._server.name}"]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing()

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """The server forks, as for a replica. Raises :class:`SourceDenied` and :class:`SourceUnavailable`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        try:
            yield await asyncio.to_thread(self._freeze)
        finally:
            if self._session:
                self._session.close()

    def _freeze(self) -> Frozen:
        self._session = session = self._server.connect("snappy-backup")
        if self._is_over:
            raise SourceUnavailable("the backup was ended")
        about = _described(session)
        session.ask("REPLCONF", "capa", "eof")
        if _is_new(about):
            session.ask("REPLCONF", "rdb-only", "1")
        begun = session.begin("PSYNC", "?", "-1").decode().split()
        about |= {"replication_id": begun[1], "offset": int(begun[2])}
        return Frozen(session, msgspec.json.format(msgspec.json.encode(about), indent=2), about["used_memory"])

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """What the server takes in memory, which is more than it sends."""
        yield frozen.size

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """What the server is, and what it has."""
        folder = FOLDER.format(self._server.name)
        about = f"{folder}/about.json".encode()
        yield from folders_above(about)
        yield stream(about, lambda: io.BytesIO(frozen.about), size=len(frozen.about))
        yield stream(f"{folder}/dump.rdb".encode(), lambda: _dump(frozen.session))

    def interrupt(self) -> None:
        """Hang up: the server ends what it does for us."""
        self._is_over = True
        if self._session:
            self._session.interrupt()

    @classmethod
    def restore_claims(cls, options: RedisRestore, site: Site) -> list[str]:
        """The folder; or each database that is named, or else the server."""
        if not options.to:
            server = f"{PLUGIN}://{options.server}"
            return sorted({f"{server}/{number}" for number in options.databases.values()}) or [server]
        place = parse_place(options.to)
        if not isinstance(place, Local):
            raise BadOptions(f"{options.to} is no local folder")
        return [os.path.realpath(place.claim)]

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
    return cast(BinaryIO, io.BufferedReader(_Dump(session, session.line()), MIB))


def _described(session: Session) -> dict[str, Any]:
    """What a restore has to know, or whoever looks."""
    server, persistence = facts(session, "server"), facts(session, "persistence")
    keys = {name.removeprefix("db"): said for name, said in facts(session, "keyspace").items()}
    return {
        "server_version": server["redis_version"],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "consistency": CONSISTENCY,
        "append_only": persistence.get("aof_enabled") == "1",
        "used_memory": int(facts(session, "memory")["used_memory"]),
        "databases": keys,
    }


def _is_new(about: dict[str, Any]) -> bool:
    """Whether the server can be told that the replica wants nothing of what is written later."""
    return int(about["server_version"].split(".")[0]) >= 7
