"""A restore into a MariaDB server: the tables of each database into a new one with a name of ours, and when all are
whole, each database takes its name: the tables move there in one statement, then routines, views, triggers and events
follow, which no server can move.

What a restore that died left is known by its name, ``snappy_restore_...``, for which nobody holds the lock any more;
the next one removes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from snappy import log
from snappy.decoding import from_json
from snappy.errors import SourceError
from snappy.repository.entries import Node
from snappy.sources.databases import DatabasesSink, Named, Names, Renamed, Renames, whole
from snappy.sources.made_up import recognized
from snappy.sources.plugins.mariadb_accounts import Accounts, Making
from snappy.sources.plugins.mariadb_server import Server, Session, explained, identifier
from snappy.sources.site import Site

PLUGIN = "mariadb"
FOLDER = "/mariadb/{}"
ABOUT = "about.json"
USERS = "users.json"
SCRIPT = "users.sql"
PROGRAMS = b"programs.sql"
TABLES = b"tables.sql"
LAYOUT = re.compile(r"/mariadb/[^/]+/(?:(about\.json|users\.json|users\.sql)|databases/([^/]+)/(tables|programs)\.sql)")
OWN = ("information_schema", "performance_schema", "sys", "mysql")
"""Databases of the server itself."""

EMPTY = """
    SELECT NOT EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s)
        AND NOT EXISTS (SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s)
        AND NOT EXISTS (SELECT 1 FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s)
"""
MOVABLE = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_TYPE <> 'VIEW'"

_log = log.get(__name__)


class MariaDbRestore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which databases are restored, and what they are called there."""

    server: Named = "default"
    databases: Renamed = {}
    overwrite: Annotated[
        bool, Meta(description="replace databases of these names, once all is whole; empty ones always make way")
    ] = False
    users: Annotated[
        bool,
        Meta(description="make the accounts and roles that there are not; with overwrite grant to the rest, too"),
    ] = False
    programs: Annotated[bool, Meta(description="restore routines, triggers, events and views too")] = True
    lock_seconds: Annotated[int, Meta(ge=1, le=86400, description="how long to wait for what others have locked")] = 60


class Found(msgspec.Struct, frozen=True):
    """What is read of what the backup said of a database."""

    charset: str = ""
    collation: str = ""


class About(msgspec.Struct, frozen=True):
    databases: dict[str, Found] = {}


class Made(msgspec.Struct):
    """A database that is being restored."""

    name: str
    """That it has until it is whole."""
    new: str
    about: Found
    programs: bytes = b""


class DatabaseSink(DatabasesSink):
    """See :class:`snappy.repository.entries.StreamSink`. Nothing has its name before :meth:`finish`."""

    def __init__(self, server: Server, options: MariaDbRestore, site: Site) -> None:
        renames = Renames(options.databases, lambda name: name.lower() in OWN)
        super().__init__(site.name, server.name, renames, overwrite=options.overwrite)
        self._server, self._options = server, options
        self._about: dict[str, Found] = {}
        self._made: dict[str, Made] = {}
        self._programs: dict[str, bytes] = {}
        self._accounts: Making | None = None
        with ExitStack() as held:
            self._option_file = server.option_file(held.enter_context(site.work_folder(PLUGIN)))
            self._session = held.enter_context(closing(server.connect(lock_seconds=options.lock_seconds)))
            self._session.rows("SET SESSION foreign_key_checks = 0")  # databases may lean on each other
            self._session.value("SELECT GET_LOCK(%s, 0)", self._names.session)
            _drop_left(self._session, self._names)
            self._check_free(renames.wanted)
            self._held = held.pop_all()

    def receive(self, path: bytes, node: Node, content: Iterator[bytes]) -> list[str]:
        file, database, part = recognized(path, LAYOUT, PLUGIN).groups()
        if file == ABOUT:
            self._about = from_json(whole(content), About).databases
        elif file == USERS:
            if self._options.users:
                accounts = from_json(whole(content), Accounts)
                self._accounts = Making(self._session, accounts, altering=self._options.overwrite)
        elif file == SCRIPT:
            pass  # says the same
        elif part == "programs":
            if self._options.programs and self._renames.new_name(unquote(database)) is not None:
                self._programs[unquote(database)] = whole(content)
        else:
            return self._receive_tables(unquote(database), content)
        return []

    def _receive_tables(self, old: str, content: Iterator[bytes]) -> list[str]:
        new = self._renames.new_name(old)
        if new is None:
            return []
        self._check_free([new])
        made = Made(self._names.unfinished(), new, self._about.get(old, Found()), self._programs.pop(old, b""))
        self._made[old] = made
        _make(self._session, made.name, made.about)
        self._feed(made.name, content)
        return [] if old in self._about else [f"without {ABOUT} the character set of {old} is not known"]

    def _feed(self, database: str, content: Iterable[bytes]) -> None:
        """Have the client read it all; it obeys no commands of its own in it, but for one that separates statements.
        Raises as :func:`explained`, and what ``content`` raises."""
        words = [self._option_file, "--batch", "--binary-mode", "--loose-sandbox", "--loose-skip-print-query-on-error"]
        words += ["--max-allowed-packet=1G", f"--database={database}"]
        with explained():
            self._running.feed([self._server.program("mariadb"), *words], content)

    def finish(self) -> list[str]:
        self._renames.check_found(self._made)
        self._check_free(made.new for made in self._made.values())
        if self._accounts:
            self._accounts.carry_out()
        for old in list(self._made):
            self._running.check()
            self._put(self._made[old])
            del self._made[old]
        return self._accounts.carry_out() if self._accounts else []

    def _put(self, made: Made) -> None:
        """Where nothing stands there, or it is to be replaced. What cannot follow its tables takes them along into
        nothing: but not where they have replaced others."""
        is_new = self._is_free(made.new)
        _drop(self._session, made.new)
        _make(self._session, made.new, made.about)
        _move(self._session, made.name, made.new)
        _drop(self._session, made.name)
        try:
            self._feed(made.new, [made.programs])
        except SourceError as error:
            if is_new:
                _drop(self._session, made.new)
            else:
                error.message = (
                    f"{made.new} has all its tables, but not all routines, triggers and views: {error.message}"
                )
            error.hint = error.hint or "a definition may name its database: restore with programs off, and edit them"
            raise

    def interrupt(self) -> None:
        """End the programs, and what waits for what others have locked."""
        super().interrupt()
        self._session.end_statement()

    def _give_up(self) -> None:
        made, self._made = self._made, {}
        for each in made.values():
            _drop(self._session, each.name)

    def _is_free(self, database: str) -> bool:
        return bool(self._session.value(EMPTY, database, database, database))


def _make(session: Session, name: str, about: Found) -> None:
    session.rows(f"CREATE DATABASE {identifier(name)}")
    if about.charset and about.collation:
        charset, collation = identifier(about.charset), identifier(about.collation)
        session.rows(f"ALTER DATABASE {identifier(name)} CHARACTER SET = {charset} COLLATE = {collation}")


def _drop(session: Session, name: str) -> None:
    session.rows(f"DROP DATABASE IF EXISTS {identifier(name)}")


def _move(session: Session, old: str, new: str) -> None:
    """All tables, at once."""
    moves = [
        f"{identifier(old)}.{identifier(table)} TO {identifier(new)}.{identifier(table)}"
        for table in session.column(MOVABLE, old)
    ]
    if moves:
        session.rows("RENAME TABLE " + ", ".join(moves))


def _drop_left(session: Session, names: Names) -> None:
    """Remove what restores of this service made that are no more."""
    for name in session.column("SHOW DATABASES"):
        run = names.session_of(name)
        if not run or not session.value("SELECT IS_FREE_LOCK(%s)", run):
            continue
        try:
            _drop(session, name)
            _log.info("removed what a dead restore left", database=name)
        except SourceError as error:
            _log.warning("what a dead restore left stays", database=name, reason=error.message)
