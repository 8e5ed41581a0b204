"""A restore of streams into a NATS server: JetStream takes chunks, and says of each when it has it.

A stream has its name while it is being restored, for JetStream cannot give it another one later; until all streams
are whole, its metadata says under :data:`UNFINISHED` which service is at it, and a subject that the restore listens to
as long as it lives. What one left that died is known by that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Annotated

import msgspec
from msgspec import Meta
from nats.aio.msg import Msg

from snappy import log
from snappy.decoding import from_json
from snappy.errors import BadOptions, SnappyError, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.entries import Node
from snappy.repository.format import MIB
from snappy.repository.paths import shown
from snappy.sources.plugins.jetstream_server import Answer, Connection
from snappy.sources.plugins.jetstream_upload import Upload, abandon
from snappy.sources.site import Site

UNFINISHED = "snappy-unfinished"
LAYOUT = re.compile(r"/jetstream/[^/]+/([^/]+)/(backup\.json|stream\.(?:arc|tar)\.s2)")
NAME = re.compile(r"[^\s.*>/\\\0]{1,255}")
TAR = "stream.tar.s2"
"""What a server before 2.15 makes: its files, in which the stream's name is part of all checksums."""
BUCKETS = ("KV_", "OBJ_")
MOST_ABOUT = 4 * MIB

_log = log.get(__name__)


class JetstreamRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which streams are restored, and what they are called there."""

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )
    streams: Annotated[
        dict[str, str], Meta(description='which, and under what names: {"old": "new"}; none: all, under their own')
    ] = {}
    overwrite: Annotated[
        bool, Meta(description="remove streams of these names, with all that is in them, before theirs are restored")
    ] = False
    replicas: Annotated[int, Meta(ge=0, le=5, description="copies in a cluster; 0: as many as there were")] = 0


class JetstreamSink:
    """See :class:`snappy.repository.entries.StreamSink`."""

    def __init__(self, options: JetstreamRestore, site: Site) -> None:
        _check(options)
        self._options, self._site, self._service = options, site, site.name
        self._about: dict[str, Answer] = {}
        self._seen: set[str] = set()
        self._made: dict[str, Answer] = {}
        """The configurations that streams will have, by their names."""
        self._uploads: list[str] = []
        """Where their chunks go."""
        self._connection = connection = Connection(site, options.server)
        self._inbox = connection.nc.new_inbox()
        self._mark = f"{site.name} {self._inbox}"
        try:
            connection.call(connection.listen(self._inbox, _nothing))
        except BaseException:
            connection.close()
            raise

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        found = LAYOUT.fullmatch(path.decode(errors="replace"))
        if not found:
            raise SourceError(
                f"{shown(path)} is no snapshot of a stream", hint="choose with --include, or restore with `files`"
            )
        stream, file = found.groups()
        self._seen.add(stream)
        name = self._options.streams.get(stream, "" if self._options.streams else stream)
        if name and file == "backup.json":
            self._about[stream] = from_json(_whole(content), Answer)
        elif name:
            if name != stream and file == TAR:
                raise BadOptions(
                    f"the stream {stream} cannot get another name: NATS before 2.15 wrote its snapshot",
                    hint="restore it to another server or account",
                )
            self._restore(stream, name, content)
        return []

    def finish(self) -> list[str]:
        for stream in self._options.streams:
            if stream not in self._seen:
                raise SourceMissing(
                    f"the snapshot has no stream {stream!r}", hint=f"it has: {', '.join(sorted(self._seen)) or 'none'}"
                )
        for name, config in self._made.items():
            if _marked(_standing(self._connection, name)) != self._mark:
                raise SourceUnavailable(f"somebody removed the stream {name} before it was whole")
            self._connection.ask(f"STREAM.UPDATE.{name}", config)
        self._made.clear()
        return []

    def interrupt(self) -> None:
        """Wait for the server no more."""
        self._connection.end()

    def close(self) -> None:
        self._connection.close()
        if self._made:
            self._give_up()

    def _restore(self, stream: str, name: str, content: Iterator[bytes]) -> None:
        about = self._about.get(stream)
        if not about:
            raise SourceError(
                f"the snapshot has no backup.json of the stream {stream}", hint="choose its whole folder with --include"
            )
        config = about["config"] | {"name": name}
        kept = {key: value for key, value in (config.get("metadata") or {}).items() if key != UNFINISHED}
        config["metadata"] = kept
        if self._options.replicas:
            config["num_replicas"] = self._options.replicas
        self._make_way(name)
        marked = config | {"metadata": kept | {UNFINISHED: self._mark}}
        self._made[name] = config
        answer = self._connection.ask(f"STREAM.RESTORE.{name}", {"config": marked, "state": about.get("state")})
        self._uploads.append(answer["deliver_subject"])
        upload = Upload(self._connection, answer["deliver_subject"])
        for piece in content:
            upload.write(piece)
        upload.finish()
        _log.info("restored a stream", stream=name, server=self._connection.name)

    def _make_way(self, name: str) -> None:
        """Remove what may not stay there. Raises :class:`BadOptions` where something must."""
        standing = _standing(self._connection, name)
        if standing is None:
            return
        marked = _marked(standing)
        service, _, inbox = marked.partition(" ")
        if inbox and inbox != self._inbox and self._connection.is_heard(inbox):
            raise SourceUnavailable(f"another restore makes the stream {name}", hint="wait until it has ended")
        if not self._options.overwrite and not (marked and service == self._service):
            raise BadOptions(
                f"the NATS server {self._connection.name} has a stream {name!r}",
                hint="restore to another server or account, or with overwrite",
            )
        _log.info("removing a stream", stream=name, unfinished=marked)
        self._connection.ask(f"STREAM.DELETE.{name}")

    def _give_up(self) -> None:
        """Over a connection of its own, for the other one may be what failed. What stays the next restore removes."""
        try:
            with closing(Connection(self._site, self._options.server)) as connection:
                for subject in self._uploads:
                    connection.call(abandon(connection, subject))
                for name in self._made:
                    if _marked(_standing(connection, name)) == self._mark:
                        connection.ask(f"STREAM.DELETE.{name}")
        except SnappyError as error:
            _log.warning("what a restore left is not removed yet", streams=sorted(self._made), reason=error.message)
        self._made.clear()


async def _nothing(_: Msg) -> None:
    """Who asks learns enough: somebody listens."""


def _marked(standing: Answer | None) -> str:
    """By which restore, where the stream is unfinished."""
    return str((standing["config"].get("metadata") or {}).get(UNFINISHED, "")) if standing else ""


def _standing(connection: Connection, name: str) -> Answer | None:
    with suppress(SourceMissing):
        return connection.ask(f"STREAM.INFO.{name}")
    return None


def _check(options: JetstreamRestore) -> None:
    names = list(options.streams.values())
    if len(set(names)) < len(names):
        raise BadOptions("two streams cannot be restored under one name")
    for old, new in options.streams.items():
        if not NAME.fullmatch(new):
            raise BadOptions(f"a stream cannot be named {new!r}")
        if old != new and old.startswith(BUCKETS):
            raise BadOptions(
                f"the bucket {old} cannot get another name: it is part of the subject of all that is in it",
                hint="restore it to another server or account",
            )


def _whole(content: Iterator[bytes]) -> bytes:
    """What is small. Raises :class:`SourceError` where it is not."""
    found = bytearray()
    for piece in content:
        found += piece
        if len(found) > MOST_ABOUT:
            raise SourceError(f"a file that describes a stream is larger than {MOST_ABOUT // MIB} MiB")
    return bytes(found)
