"""The ``postgres`` plug-in: the databases of a PostgreSQL server, each a dump of its own as of one moment.

The snapshot holds ``/postgres/<server>/cluster/about.json`` (what was backed up, and what the dumps do not say of the
databases), ``cluster/globals.sql`` (roles and tablespaces) and ``databases/<name>.dump``, which ``pg_restore`` reads.
Dumps are not compressed: the repository does that, once it knows which parts are new.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceMissing
from snappy.repository.entries import Entry
from snappy.repository.format import MIB
from snappy.sources.databases import claim, file_name, is_unfinished
from snappy.sources.made_up import folders_above, stream
from snappy.sources.plugins.postgres_server import (
    ExplainedOutput,
    PostgresSettings,
    Server,
    explained,
    missing,
)
from snappy.sources.plugins.postgres_sink import ABOUT, DUMP, FOLDER, GLOBALS, PLUGIN, DatabaseSink, PostgresRestore
from snappy.sources.programs import Running
from snappy.sources.site import Site

PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore", "vacuumdb")
CONSISTENCY = "each database as of one moment of its own; those of several databases are milliseconds apart"

Names = tuple[str, ...]

DATABASES = """
    SELECT to_jsonb(d) || jsonb_build_object(
        'encoding_name', pg_encoding_to_char(d.encoding),
        'owner', pg_get_userbyid(d.datdba),
        'comment', shobj_description(d.oid, 'pg_database'),
        'settings', (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0),
        'grants', (
            SELECT jsonb_agg(jsonb_build_array(
                CASE WHEN g.grantee = 0 THEN NULL ELSE pg_get_userbyid(g.grantee) END, g.privilege_type, g.is_grantable
            )) FROM aclexplode(d.datacl) g
        ),
        'bytes', CASE WHEN has_database_privilege(d.oid, 'CONNECT') THEN pg_database_size(d.oid) ELSE 0 END
    ) FROM pg_database d WHERE NOT d.datistemplate AND d.datallowconn ORDER BY d.datname
"""
"""What a dump does not say of its database, as the server has it: columns differ from version to version."""


class PostgresOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a server is backed up."""

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )
    databases: Annotated[Names, Meta(description="their names; none: all but templates")] = ()
    exclude: Annotated[Names, Meta(description="databases that are left out")] = ()
    exclude_table_data: Annotated[
        Names, Meta(description="tables whose rows are left out, as patterns of pg_dump: log.*")
    ] = ()
    globals: Annotated[
        bool | None,
        Meta(description="roles, with their passwords if readable, and tablespaces; else only with all databases"),
    ] = None
    lock_seconds: Annotated[
        float, Meta(ge=0, description="how long to wait for a table that somebody has locked; 0: as long as it takes")
    ] = 0.0


class Frozen(NamedTuple):
    """What is held while the dumps are made."""

    environment: dict[str, str]
    databases: dict[str, dict[str, Any]]
    """What the server says of each."""
    snapshots: dict[str, str]
    """The exported snapshot of each, open as long as the session that holds it."""
    about: bytes
    may_read_passwords: bool
    held: ExitStack


class PostgresSource:
    """Backs up databases while they are written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = PostgresOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = PostgresRestore
    Settings: ClassVar[type[msgspec.Struct]] = PostgresSettings

    def __init__(self, options: PostgresOptions, site: Site) -> None:
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._running = Running()
        if set(options.databases) & set(options.exclude):
            raise BadOptions("a database is both among `databases` and in `exclude`")

    def claims(self) -> list[str]:
        """Each database that is named, or else the server; and the server for what concerns all of it."""
        names = [*self._options.databases, *([""] if self._with_globals else [])]
        return sorted({claim(self.name, self._server.name, name) for name in names or ("",)})

    @property
    def _with_globals(self) -> bool:
        wanted = self._options.globals
        return not self._options.databases if wanted is None else wanted

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(PROGRAMS)

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """A snapshot of each database, held by a session of its own. Raises :class:`SourceMissing`,
        :class:`snappy.errors.SourceDenied` and :class:`snappy.errors.SourceUnavailable`."""
        return self._snap()

    @asynccontextmanager
    async def _snap(self) -> AsyncIterator[Frozen]:
        frozen = await asyncio.to_thread(self._freeze)
        try:
            yield frozen
        finally:
            self._running.end()
            await asyncio.to_thread(frozen.held.close)

    def _freeze(self) -> Frozen:
        with ExitStack() as held:
            folder = held.enter_context(self._site.work_folder(self.name))
            with closing(self._server.connect()) as session:
                version = session.info.server_version
                self._server.check_program("pg_dump", version)
                found = self._chosen({row[0]["datname"]: row[0] for row in session.execute(DATABASES)})
                reads = session.execute("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone()
            snapshots = {name: self._hold(name, held) for name in found}
            return Frozen(
                environment=self._server.environment(folder),
                databases=found,
                snapshots=snapshots,
                about=_about(version, found),
                may_read_passwords=bool(reads and reads[0]),
                held=held.pop_all(),
            )

    def _chosen(self, found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        wanted = self._options.databases or tuple(name for name in found if not is_unfinished(name))
        for name in wanted:
            if name not in found:
                raise SourceMissing(
                    f"the server {self._server.name} has no database {name!r}",
                    hint=f"it has: {', '.join(found) or 'none'}",
                )
        return {name: found[name] for name in wanted if name not in self._options.exclude}

    def _hold(self, database: str, held: ExitStack) -> str:
        """The name of a snapshot that lives until ``held`` is closed."""
        session = held.enter_context(closing(self._server.connect(database)))
        with explained():
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = session.execute("SELECT pg_export_snapshot()").fetchone()
        assert row
        return str(row[0])

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """What each database takes at the server, which is more than its dump does."""
        return (int(found["bytes"]) for found in frozen.databases.values())

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """The dumps, by the names of their files; each is begun when it is asked for."""
        folder = FOLDER.format(self._server.name)
        about = f"{folder}/{ABOUT}".encode()
        yield from folders_above(about)
        yield stream(about, lambda: io.BytesIO(frozen.about), size=len(frozen.about))
        if self._with_globals:
            yield self._globals(f"{folder}/{GLOBALS}".encode(), frozen)
        dumps = {f"{folder}/{DUMP.format(file_name(name))}".encode(): name for name in frozen.databases}
        yield from list(folders_above(min(dumps, default=b"/")))[-1:]
        for path in sorted(dumps):
            yield stream(path, partial(self._dump, dumps[path], frozen))

    def _globals(self, path: bytes, frozen: Frozen) -> Entry:
        arguments = [self._server.program("pg_dumpall"), "--globals-only", "--no-password"]
        arguments += [] if frozen.may_read_passwords else ["--no-role-passwords"]
        entry = stream(path, lambda: self._output(arguments, frozen.environment))
        if not frozen.may_read_passwords:
            entry.warning = "the passwords of roles are left out: only a superuser may read them"
        return entry

    def _dump(self, database: str, frozen: Frozen) -> BinaryIO:
        given = self._options
        arguments = [self._server.program("pg_dump"), "--no-password", "--format=custom", "--compress=0"]
        arguments += [f"--snapshot={frozen.snapshots[database]}"]
        arguments += [f"--exclude-table-data={pattern}" for pattern in given.exclude_table_data]
        if given.lock_seconds:
            arguments.append(f"--lock-wait-timeout={given.lock_seconds * 1000:.0f}")
        return self._output(arguments, frozen.environment | {"PGDATABASE": database})

    def _output(self, arguments: list[str], environment: dict[str, str]) -> BinaryIO:
        program = self._running.start(arguments, environment=environment)
        return cast(BinaryIO, io.BufferedReader(ExplainedOutput(program), MIB))

    def interrupt(self) -> None:
        """End the dumps."""
        self._running.end()

    @classmethod
    def restore_claims(cls, options: PostgresRestore, site: Site) -> list[str]:
        """Each database that is named, or else the server; the server too where roles are made."""
        names = tuple(options.databases.values())
        whole = options.globals or not names
        return sorted({claim(cls.name, options.server, name) for name in (*names, *([""] if whole else []))})

    @classmethod
    def import_(cls, options: PostgresRestore, claims: Any, site: Site) -> DatabaseSink:
        """What makes databases anew."""
        return DatabaseSink(Server(PLUGIN, site, options.server), options, site)


def _about(version: int, databases: dict[str, dict[str, Any]]) -> bytes:
    said = {
        "server_version": version,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "consistency": CONSISTENCY,
        "databases": databases,
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=2)
