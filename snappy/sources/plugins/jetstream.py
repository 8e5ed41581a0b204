"""The ``jetstream`` plug-in: streams of a NATS server, key-value and object buckets among them, as JetStream's own
snapshots.

The snapshot holds ``/jetstream/<server>/<stream>/``, as the ``nats`` program's backup of a stream has it:
``backup.json`` (configuration and state), and ``stream.arc.s2``, or ``stream.tar.s2`` of a server before 2.15.
"""

from __future__ import annotations

import asyncio
import errno
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import SourceError, SourceMissing
from snappy.repository.entries import Entry, Node, StreamSink
from snappy.repository.format import MIB
from snappy.sources.made_up import folders_above, stream
from snappy.sources.plugins.jetstream_restore import JetstreamRestore, JetstreamSink
from snappy.sources.plugins.jetstream_server import PLUGIN, Answer, Connection, JetstreamSettings, claim
from snappy.sources.plugins.jetstream_snapshot import Snapshot
from snappy.sources.site import Site

WILDCARDS = frozenset("*?[")
ARCHIVES = (2, 15)
"""Servers from here on put messages into an archive of their own, from streams in memory, too; older ones the files of
their store into a tar file."""
OVERWRITTEN = "messages were overwritten or deleted while it was read: those keys may be missing"
IN_MEMORY = "the server makes no snapshot of a stream that is in memory; one of NATS 2.15 or newer does"


class JetstreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which streams."""

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )
    streams: Annotated[
        tuple[str, ...],
        Meta(description="their names, * ? [] match; KV_<bucket> and OBJ_<bucket> are buckets; none: all"),
    ] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="streams that are left out, named likewise")] = ()
    consumers: Annotated[bool, Meta(description="with their consumers, and how far each is")] = True
    check: Annotated[
        bool, Meta(description="let a server before 2.15 check all messages first; a newer one does so anyway")
    ] = False


class Frozen(NamedTuple):
    """What there is to be backed up."""

    connection: Connection
    streams: dict[str, Answer]
    """What the server says of each, by their names, sorted."""


class JetstreamSource:
    """Streams and buckets of a NATS server."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = JetstreamOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = JetstreamRestore
    Settings: ClassVar[type[msgspec.Struct]] = JetstreamSettings

    def __init__(self, options: JetstreamOptions, site: Site) -> None:
        self._options, self._site = options, site
        self._connection: Connection | None = None
        site.settings(PLUGIN, JetstreamSettings, options.server)

    def claims(self) -> list[str]:
        """Each stream that is named, or else the server."""
        names = self._options.streams
        named = names and not any(map(_is_pattern, names))
        return sorted({claim(self._options.server, name) for name in (names if named else ("",))})

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """Nothing is frozen: each stream has its moment when it is begun. Raises :class:`SourceMissing`,
        :class:`snappy.errors.SourceDenied` and :class:`snappy.errors.SourceUnavailable`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        self._connection = connection = await asyncio.to_thread(Connection, self._site, self._options.server)
        try:
            yield Frozen(connection, await asyncio.to_thread(self._chosen, connection))
        finally:
            await asyncio.to_thread(connection.close)

    def _chosen(self, connection: Connection) -> dict[str, Answer]:
        found = {each["config"]["name"]: each for each in _streams(connection)}
        for name in self._options.streams:
            if not any(_matches(stream, (name,)) for stream in found):
                raise SourceMissing(
                    f"the NATS server {connection.name} has no stream {name!r}",
                    hint=f"it has: {', '.join(sorted(found)) or 'none'}",
                )
        wanted = self._options.streams or ("*",)
        return {
            name: found[name]
            for name in sorted(found, key=str.encode)
            if _matches(name, wanted) and not _matches(name, self._options.exclude)
        }

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """What each takes at the server; compressed it is less."""
        return (int(each["state"]["bytes"]) for each in frozen.streams.values())

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """A folder a stream. A snapshot is begun when its stream's turn comes."""
        above = f"/{PLUGIN}/{frozen.connection.name}"
        yield from folders_above(f"{above}/stream".encode())
        for name, said in frozen.streams.items():
            if said["config"].get("storage") == "memory" and not _has_archives(frozen.connection):
                yield self._left_out(f"{above}/{name}".encode(), name)
            else:
                yield from self._stream(f"{above}/{name}", name, frozen.connection)

    def _left_out(self, path: bytes, name: str) -> Entry:
        if name in self._options.streams:
            raise SourceError(f"{name}: {IN_MEMORY}", hint="leave it out")
        return Entry(path=path, node=Node(name=name.encode(), type="irregular"), error=IN_MEMORY)

    def _stream(self, folder: str, name: str, connection: Connection) -> Iterator[Entry]:
        begin = partial(Snapshot, connection, name, consumers=self._options.consumers, check=self._options.check)
        begun = _Begun(begin, connection, is_named=name in self._options.streams)
        file = f"{folder}/backup.json".encode()
        yield list(folders_above(file))[-1]
        yield stream(file, lambda: io.BytesIO(begun.about()))
        ending = "arc" if _has_archives(connection) else "tar"
        data = stream(f"{folder}/stream.{ending}.s2".encode(), begun.open)
        data.changed = begun.changed
        yield data

    def interrupt(self) -> None:
        """Wait for the server no more."""
        if self._connection:
            self._connection.end()

    @classmethod
    def restore_claims(cls, options: JetstreamRestore, site: Site) -> list[str]:
        """Each stream that is named, by the name that it gets, or else the server."""
        return sorted({claim(options.server, name) for name in options.streams.values() or ("",)})

    @classmethod
    def import_(cls, options: JetstreamRestore, claims: Sequence[str], site: Site) -> StreamSink:
        """What makes streams anew."""
        return JetstreamSink(options, site)


class _Begun:
    """The snapshot of a stream, which begins when the first of its two files is asked for."""

    def __init__(self, begin: Callable[[], Snapshot], connection: Connection, *, is_named: bool) -> None:
        self._begin, self._connection, self._is_named = begin, connection, is_named
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    def about(self) -> bytes:
        begun = self._get()
        return msgspec.json.format(msgspec.json.encode({"config": begun.config, "state": begun.state}))

    def open(self) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(self._get(), MIB))

    def changed(self) -> str:
        """JetStream reads what is there when its turn comes. Where a message takes the place of another, what was
        overwritten amid that is in the snapshot neither as it was nor as it is."""
        begun = self._get()
        if begun.config.get("max_msgs_per_subject", -1) <= 0 and not begun.config.get("allow_rollup_hdrs"):
            return ""
        try:
            now = self._connection.ask(f"STREAM.INFO.{begun.config['name']}")["state"]
        except SourceMissing:
            return "it was removed while it was read"
        return OVERWRITTEN if _gone(now) > _gone(begun.state) else ""

    def _get(self) -> Snapshot:
        with self._lock:
            try:
                self._snapshot = self._snapshot or self._begin()
            except SourceMissing as error:
                if self._is_named:
                    raise
                raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile") from error
            return self._snapshot


def _streams(connection: Connection) -> Iterator[Answer]:
    """All of them. The server answers in pages."""
    offset = 0
    while True:
        answer = connection.ask("STREAM.LIST", {"offset": offset})
        found: list[Any] = answer.get("streams") or []
        yield from found
        offset += len(found)
        if not found or offset >= answer.get("total", 0):
            return


def _has_archives(connection: Connection) -> bool:
    version = connection.nc.connected_server_version
    return (version.major, version.minor) >= ARCHIVES


def _gone(state: Answer) -> int:
    """How many messages there were that there are not."""
    return int(state["last_seq"]) - int(state["messages"])


def _is_pattern(name: str) -> bool:
    return not WILDCARDS.isdisjoint(name)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
