"""The ``postgres-physical`` plug-in: the data folder of a whole PostgreSQL server with the log that makes it
consistent, full or, from version 17 on, what changed since the last backup.

The snapshot holds ``/postgres-physical/<server>/<chain>/000-full.tar``, ``001-incremental.tar`` and so on, archives as
pg_basebackup makes them, and ``about.json``.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, ClassVar

import msgspec
from msgspec import Meta

from snappy import log
from snappy.config import NAME
from snappy.errors import BadOptions, SourceDenied
from snappy.repository.entries import Entry
from snappy.sources.databases import Named, ServerSource, claim
from snappy.sources.made_up import about, buffered, folders_above, small, stream
from snappy.sources.places import folder_claim
from snappy.sources.plugins.postgres_chain import BackupOutput, Chain, KeptChain, Member
from snappy.sources.plugins.postgres_folder import FOLDER, PLUGIN, FolderSink, PhysicalRestore
from snappy.sources.plugins.postgres_server import PostgresSettings, Server, explained, missing
from snappy.sources.site import Site

if TYPE_CHECKING:
    from psycopg import Connection

PROGRAMS = ("pg_basebackup", "pg_verifybackup")
CONSISTENCY = "the whole server as of the end of the last archive, once it has gone through the log in it"
INCREMENTAL = 170000
SYSTEM = "SELECT system_identifier FROM pg_control_system()"
SPACES = "SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')"
MAY_REPLICATE = "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user"
SUMMARIZES = "SELECT current_setting('summarize_wal', true) IS NOT DISTINCT FROM 'on'"
HOLD_LOG = "SELECT pg_create_physical_replication_slot(%s, true, true)"
"""A slot of the session, which is gone with it: the server keeps the log that the backup will need."""

_log = log.get(__name__)


class PhysicalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a server is backed up."""

    server: Named = "default"
    incremental: Annotated[
        int, Meta(ge=0, le=99, description="how many backups of what changed may follow a full one; needs version 17")
    ] = 0
    chain: Annotated[str, Meta(pattern=NAME, description="what they belong to: another one for each target")] = "main"
    fast: Annotated[bool, Meta(description="begin with a checkpoint now, else with the next one")] = True


@dataclass
class Frozen:
    """What is held while the archive comes."""

    environment: dict[str, str]
    chain: Chain
    since: str
    """The file of the manifest that the backup begins at; empty where it is full."""
    about: bytes
    outputs: list[BackupOutput] = field(default_factory=list)
    begun_ns: int = field(default_factory=time.time_ns)


class PhysicalSource(ServerSource[Frozen]):
    """Backs up a server while it is written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = PhysicalOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = PhysicalRestore
    Settings: ClassVar[type[msgspec.Struct]] = PostgresSettings

    def __init__(self, options: PhysicalOptions, site: Site) -> None:
        super().__init__()
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._kept = KeptChain(site.kept_file(PLUGIN, f"{options.server}-{options.chain}"))

    def claims(self) -> list[str]:
        """The server."""
        return [claim(self.name, self._server.name)]

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(PROGRAMS)

    @asynccontextmanager
    async def snap(self) -> AsyncIterator[Frozen]:
        """See :class:`ServerSource`. The next backup may go on from one that comes to its end."""
        async with super().snap() as frozen:
            yield frozen
            await asyncio.to_thread(self._keep, frozen)

    def _freeze(self, held: ExitStack) -> Frozen:
        """The server keeps its log from now on. Nothing else is frozen: the log makes one moment of what was read."""
        folder = held.enter_context(self._site.work_folder(self.name))
        session = held.enter_context(closing(self._server.connect()))
        version = session.info.server_version
        self._server.check_program("pg_basebackup", version)
        with explained():
            self._check_possible(session)
            session.execute(HOLD_LOG, (f"snappy_{secrets.token_hex(8)}",))
            chain = self._chain(session)
        since = folder / "manifest"
        since.write_bytes(chain.manifest)
        return Frozen(
            environment=self._server.environment(folder),
            chain=chain,
            since=str(since) if chain.members else "",
            about=_about(version, chain),
        )

    def _check_possible(self, session: Connection[Any]) -> None:
        spaces = [str(row[0]) for row in session.execute(SPACES)]
        if spaces:
            raise BadOptions(
                f"the server has tablespaces of its own ({', '.join(spaces)}), and one archive holds but one folder",
                hint="back it up with the plug-in postgres, database by database",
            )
        if not _value(session, MAY_REPLICATE):
            raise SourceDenied("the role may not replicate", hint="ALTER ROLE ... REPLICATION")
        if self._options.incremental and session.info.server_version < INCREMENTAL:
            raise BadOptions("before PostgreSQL 17 there are only full backups", hint="leave out `incremental`")
        if self._options.incremental and not _value(session, SUMMARIZES):
            raise BadOptions("the server does not note what changes", hint="ALTER SYSTEM SET summarize_wal = on")

    def _chain(self, session: Connection[Any]) -> Chain:
        return self._kept.load(int(_value(session, SYSTEM)), self._options.incremental)

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """The archives of the chain, those that are known first."""
        folder = FOLDER.format(self._server.name, self._options.chain)
        chain = frozen.chain
        yield from folders_above(f"{folder}/about.json".encode())
        for member in chain.members:
            yield _dated(
                stream(f"{folder}/{member.name}".encode(), partial(self._lost, member), size=member.size), member
            )
        new = Member(chain.next_name(), 0, frozen.begun_ns)
        yield _dated(stream(f"{folder}/{new.name}".encode(), partial(self._open, frozen)), new)
        yield small(f"{folder}/about.json".encode(), frozen.about)

    def _lost(self, member: Member) -> BinaryIO:
        raise self._kept.lost(member)

    def _open(self, frozen: Frozen) -> BinaryIO:
        arguments = [self._server.program("pg_basebackup"), "--pgdata=-", "--format=tar", "--wal-method=fetch"]
        arguments += ["--no-password", "--label=snappy", f"--checkpoint={'fast' if self._options.fast else 'spread'}"]
        arguments += [f"--incremental={frozen.since}"] if frozen.since else []
        output = BackupOutput(self._running.start(arguments, environment=frozen.environment))
        frozen.outputs.append(output)
        return buffered(output)

    def _keep(self, frozen: Frozen) -> None:
        """The snapshot is there: the next backup may go on from it."""
        if not self._options.incremental or not frozen.outputs or not frozen.outputs[-1].is_whole:
            return
        output, chain = frozen.outputs[-1], frozen.chain
        made = Member(chain.next_name(), output.size, frozen.begun_ns)
        try:
            self._kept.save(Chain(chain.system, (*chain.members, made), output.manifest))
        except OSError as error:
            _log.warning("the next backup goes on from where this one did", reason=error.strerror)

    @classmethod
    def restore_claims(cls, options: PhysicalRestore, site: Site) -> list[str]:
        """The folder."""
        return [folder_claim(options.to)]

    @classmethod
    def import_(cls, options: PhysicalRestore, claims: Sequence[str], site: Site) -> FolderSink:
        """What makes a data folder."""
        return FolderSink(Server(PLUGIN, site, options.server), options, os.fsencode(claims[0]))


def _dated(entry: Entry, member: Member) -> Entry:
    """By which it is known the next time."""
    entry.node.mtime_ns = entry.node.atime_ns = entry.node.ctime_ns = member.time_ns
    return entry


def _value(session: Connection[Any], query: str) -> Any:
    row = session.execute(query.encode()).fetchone()
    return row[0] if row else None


def _about(version: int, chain: Chain) -> bytes:
    archives = [*(member.name for member in chain.members), chain.next_name()]
    return about(version, system_identifier=chain.system, archives=archives, consistency=CONSISTENCY)
