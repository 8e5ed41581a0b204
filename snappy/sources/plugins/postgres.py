"""The ``postgres`` plug-in: the databases of a PostgreSQL server, each a dump of its own as of one moment.

The snapshot holds ``/postgres/<server>/cluster/about.json`` (what was backed up, and what the dumps do not say of the
databases), ``cluster/globals.sql`` (roles and tablespaces) and ``databases/<name>.dump``, which ``pg_restore`` reads.
Dumps are not compressed: the repository does that, once it knows which parts are new.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple

import msgspec
from msgspec import Meta

from snappy.repository.entries import Entry
from snappy.sources.databases import Choice, Named, ServerSource, claims, file_name
from snappy.sources.made_up import about, buffered, folders_above, small, stream
from snappy.sources.plugins.postgres_server import PostgresSettings, Server, explained, missing
from snappy.sources.plugins.postgres_sink import ABOUT, DUMP, FOLDER, GLOBALS, PLUGIN, DatabaseSink, PostgresRestore
from snappy.sources.programs import Output
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

    server: Named = "default"
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


class PostgresSource(ServerSource[Frozen]):
    """Backs up databases while they are written to."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = PostgresOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = PostgresRestore
    Settings: ClassVar[type[msgspec.Struct]] = PostgresSettings

    def __init__(self, options: PostgresOptions, site: Site) -> None:
        super().__init__()
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._choice = Choice(options.databases, options.exclude, whole=options.globals)

    def claims(self) -> list[str]:
        """Each database that is named, or else the server; and the server for roles and tablespaces."""
        return self._choice.claims(self.name, self._server.name)

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(PROGRAMS)

    def _freeze(self, held: ExitStack) -> Frozen:
        """A snapshot of each database, held by a session of its own."""
        folder = held.enter_context(self._site.work_folder(self.name))
        with closing(self._server.connect()) as session:
            version = session.info.server_version
            self._server.check_program("pg_dump", version)
            known = {row[0]["datname"]: row[0] for row in session.execute(DATABASES)}
            reads = session.execute("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone()
        found = {name: known[name] for name in self._choice.of(self._server.name, known)}
        return Frozen(
            environment=self._server.environment(folder),
            databases=found,
            snapshots={name: self._hold(name, held) for name in found},
            about=about(version, consistency=CONSISTENCY, databases=found),
            may_read_passwords=bool(reads and reads[0]),
        )

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
        said = f"{folder}/{ABOUT}".encode()
        yield from folders_above(said)
        yield small(said, frozen.about)
        if self._choice.whole:
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
        return buffered(Output(self._running.start(arguments, environment=environment), explained))

    @classmethod
    def restore_claims(cls, options: PostgresRestore, site: Site) -> list[str]:
        """Each database that is named, or else the server; the server too where roles are made."""
        return claims(cls.name, options.server, options.databases.values(), whole=options.globals)

    @classmethod
    def import_(cls, options: PostgresRestore, claims: Any, site: Site) -> DatabaseSink:
        """What makes databases anew."""
        return DatabaseSink(Server(PLUGIN, site, options.server), options, site)
