"""A restore into a PostgreSQL server: each dump into a new database with a name of ours, and when all are whole, one
transaction gives them their names.

What a restore that died left is known by its names, ``snappy_restore_...`` and ``snappy_replaced_...``, which no
session speaks for any more; the next one removes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from snappy.decoding import from_json
from snappy.repository.entries import Node
from snappy.sources.databases import DatabasesSink, Named, Renamed, Renames, whole
from snappy.sources.made_up import recognized
from snappy.sources.plugins.postgres_database import (
    Database,
    column,
    databases,
    drop,
    drop_left,
    is_empty,
    replace_all,
)
from snappy.sources.plugins.postgres_server import Server, explained
from snappy.sources.site import Site

PLUGIN = "postgres"
FOLDER = "/postgres/{}"
ABOUT = "cluster/about.json"
GLOBALS = "cluster/globals.sql"
DUMP = "databases/{}.dump"
LAYOUT = re.compile(r"/postgres/[^/]+/(?:(cluster/about\.json|cluster/globals\.sql)|databases/([^/]+)\.dump)")

ANOTHER = "template1"
"""Where a session can be while the database that it would be in is replaced."""
TEMPLATES = ("template0", ANOTHER)
META = re.compile(rb"^\\(?:un)?restrict .*$", re.MULTILINE)
STATEMENT = re.compile(rb"""(?:\s|--.*\n)*((?:[^;'"]|'(?:[^']|'')*'|"(?:[^"]|"")*")*;)""")
"""Spaces and comments, and up to a semicolon that no quotation marks enclose."""


class PostgresRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which databases are restored, and what they are called there."""

    server: Named = "default"
    databases: Renamed = {}
    overwrite: Annotated[
        bool, Meta(description="replace databases of these names, ending their sessions; empty ones always make way")
    ] = False
    globals: Annotated[
        bool, Meta(description="first make the roles and tablespaces that there are not; with overwrite alter the rest")
    ] = False
    owners: Annotated[bool, Meta(description="give objects to whom they belonged; else to the configured role")] = True
    privileges: Annotated[bool, Meta(description="grant what was granted")] = True
    locales: Annotated[bool, Meta(description="keep each database's encoding and locale; else the server's")] = True
    analyze: Annotated[bool, Meta(description="count what is in the tables, for the planner, before they are used")] = (
        True
    )


class DatabaseSink(DatabasesSink):
    """See :class:`snappy.repository.entries.StreamSink`. Nothing has its name before :meth:`finish`."""

    def __init__(self, server: Server, options: PostgresRestore, site: Site) -> None:
        renames = Renames(options.databases, TEMPLATES.__contains__)
        super().__init__(site.name, server.name, renames, overwrite=options.overwrite)
        self._server, self._options = server, options
        self._about: dict[str, Any] = {}
        self._made: dict[str, str] = {}
        """The names that databases will have, by those that they have."""
        self._found: set[str] = set()
        with ExitStack() as held:
            self._environment = server.environment(held.enter_context(site.work_folder(PLUGIN)))
            self._environment["PGAPPNAME"] = self._names.session
            self._session = held.enter_context(closing(server.connect(application=self._names.session)))
            server.check_program("pg_restore", self._session.info.server_version)
            with explained():
                drop_left(self._session, self._names)
            self._check_free(renames.wanted)
            self._held = held.pop_all()

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        file, database = recognized(path, LAYOUT, PLUGIN).groups()
        if file == ABOUT:
            self._about = from_json(whole(content)).get("databases", {})
        elif file == GLOBALS:
            if self._options.globals:
                self._make_globals(whole(content))
        else:
            return self._receive_dump(unquote(database), content)
        return []

    def _receive_dump(self, old: str, content: Iterator[bytes]) -> list[str]:
        new = self._renames.new_name(old)
        if new is None:
            return []
        self._found.add(old)
        self._check_free([new])
        about = self._about.get(old) or {}
        database = Database(self._names.unfinished(), about, locales=self._options.locales)
        self._made[database.name] = new
        with explained():
            database.make(self._session)
        self._fill(database.name, content)
        if self._options.analyze:
            self._analyze(database.name)
        owner, privileges = self._options.owners, self._options.privileges
        with closing(self._server.connect(database.name)) as session, explained():
            remarks = database.apply(session, owner=owner, privileges=privileges)
        return remarks if about else [*remarks, f"without {ABOUT} its encoding, owner and grants are not known"]

    def _fill(self, database: str, content: Iterator[bytes]) -> None:
        """Not in one transaction, which needs a lock for each table at once: what fails goes away as a whole."""
        choices = {"--no-owner": self._options.owners, "--no-privileges": self._options.privileges}
        arguments = [self._server.program("pg_restore"), "--exit-on-error", "--no-password", f"--dbname={database}"]
        arguments += [word for word, kept in choices.items() if not kept]
        with explained():
            self._running.feed(arguments, content, environment=self._environment)

    def _analyze(self, database: str) -> None:
        arguments = [self._server.program("vacuumdb"), "--analyze-only", "--quiet", "--no-password", database]
        with explained():
            self._running.run(arguments, environment=self._environment)

    def _make_globals(self, script: bytes) -> None:
        """As far as they are not there. What is left of the script can be repeated at will."""
        with explained():
            roles = column(self._session, b"SELECT quote_ident(rolname) FROM pg_roles")
            spaces = column(self._session, b"SELECT quote_ident(spcname) FROM pg_tablespace")
            own = column(self._session, b"SELECT quote_ident(current_user)")
        known = _beginnings(roles, spaces, left=own if self._options.overwrite else roles)
        with explained():
            for statement in statements(script):
                if not statement.startswith(known):
                    self._session.execute(statement)

    def finish(self) -> list[str]:
        self._renames.check_found(self._found)
        self._check_free(self._made.values())
        beside = ANOTHER if self._server.database in self._made.values() else ""
        with closing(self._server.connect(beside, application=self._names.session)) as session, explained():
            self._session.close()
            replace_all(session, self._made, self._names, self._running.check)
            self._made = {}
        return []

    def _give_up(self) -> None:
        made, self._made = self._made, {}
        if made:
            with closing(self._server.connect()) as session, explained():
                for name in made:
                    drop(session, name)

    def _is_free(self, database: str) -> bool:
        with explained():
            if database not in databases(self._session):
                return True
        with closing(self._server.connect(database)) as session, explained():
            return is_empty(session)


def statements(script: bytes) -> Iterator[bytes]:
    """Those of a script of pg_dumpall. psql, for which it is meant, would carry out commands for a shell as well that
    somebody has put into a name."""
    for found in STATEMENT.finditer(META.sub(b"", script)):
        yield found[1]


def _beginnings(roles: set[str], spaces: set[str], *, left: set[str]) -> tuple[bytes, ...]:
    """How the statements of pg_dumpall begin that would make what is there, or alter a role that is ``left`` as it is:
    the session's own one at least, whose password would be another one amid the restore."""
    begun = [f"CREATE ROLE {name};" for name in roles] + [f"CREATE TABLESPACE {name} " for name in spaces]
    begun += [f"ALTER ROLE {name} WITH " for name in left]
    return tuple(text.encode() for text in begun)
