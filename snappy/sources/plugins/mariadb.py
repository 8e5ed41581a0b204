"""The ``mariadb`` plug-in: the databases of a MariaDB server, all of them as of one moment.

The snapshot holds ``/mariadb/<server>/about.json`` (what was backed up, the position in the binary log, and what dumps
do not say of their databases), ``databases/<name>/tables.sql``, ``databases/<name>/programs.sql`` (routines, triggers,
events, views), ``users.json``, and the same as ``users.sql``; scripts are for the program ``mariadb``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple

import msgspec
from msgspec import Meta

from snappy.errors import SourceError, SourceUnavailable
from snappy.repository.entries import Entry
from snappy.repository.paths import join
from snappy.sources.databases import Choice, Named, ServerSource, claims, file_name
from snappy.sources.made_up import about, buffered, folder_node, folders_above, small, stream
from snappy.sources.plugins.mariadb_accounts import Accounts, read_accounts, script
from snappy.sources.plugins.mariadb_dumps import Chained, Spooled
from snappy.sources.plugins.mariadb_rows import Joined
from snappy.sources.plugins.mariadb_server import LOCKED, MariaDbSettings, Server, Session, explained, missing
from snappy.sources.plugins.mariadb_sink import (
    ABOUT,
    FOLDER,
    OWN,
    PLUGIN,
    PROGRAMS,
    SCRIPT,
    TABLES,
    USERS,
    DatabaseSink,
    MariaDbRestore,
)
from snappy.sources.programs import Output, Program
from snappy.sources.site import Site

NEEDED = ("mariadb-dump", "mariadb")
TOGETHER = "all databases as of one moment, the position in the binary log; tables that know no transactions as read"
APART = "each database as of the moment when its dump began; tables that know no transactions as read"
PLAIN = ("--skip-dump-date", "--no-tablespaces", "--max-allowed-packet=1G")
BEGIN_SECONDS = 0.005

DATABASES = """
    SELECT s.SCHEMA_NAME, s.DEFAULT_CHARACTER_SET_NAME, s.DEFAULT_COLLATION_NAME,
        (SELECT COALESCE(SUM(t.DATA_LENGTH), 0) FROM information_schema.TABLES t WHERE t.TABLE_SCHEMA = s.SCHEMA_NAME)
    FROM information_schema.SCHEMATA s ORDER BY s.SCHEMA_NAME
"""
VIEWS = "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s ORDER BY TABLE_NAME"
UNSAFE = """
    SELECT t.TABLE_NAME FROM information_schema.TABLES t JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
    WHERE t.TABLE_SCHEMA = %s AND e.TRANSACTIONS <> 'YES' ORDER BY t.TABLE_NAME
"""
STAGES = ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT")
"""Of MariaDB's ``BACKUP STAGE``: after the last one nothing is committed until the stage ends."""

Names = tuple[str, ...]


class MariaDbOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a server is backed up."""

    server: Named = "default"
    databases: Annotated[Names, Meta(description="their names; none: all but the server's own")] = ()
    exclude: Annotated[Names, Meta(description="databases that are left out")] = ()
    exclude_table_data: Annotated[Names, Meta(description="tables whose rows are left out: shop.log")] = ()
    users: Annotated[
        bool | None, Meta(description="accounts, roles and what they may; else only with all databases")
    ] = None
    together: Annotated[
        bool,
        Meta(
            description="all databases as of one moment: their dumps need room where the service works; else one by one"
        ),
    ] = True
    lock_seconds: Annotated[
        int, Meta(ge=1, le=86400, description="how long to wait for what others have locked, and to keep them waiting")
    ] = 60


class Found(msgspec.Struct, frozen=True):
    """What the server says of a database."""

    charset: str
    collation: str
    bytes: int
    views: list[str]
    without_transactions: list[str]
    """Tables, which are written to while they are read."""


class Frozen(NamedTuple):
    """What is held while the dumps are read."""

    option_file: str
    databases: dict[str, Found]
    dumps: dict[str, BinaryIO]
    """Of the tables of each, under way; none where they are made one by one."""
    about: bytes
    accounts: Accounts


class MariaDbSource(ServerSource[Frozen]):
    """Databases of a MariaDB server, all as of one moment."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = MariaDbOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = MariaDbRestore
    Settings: ClassVar[type[msgspec.Struct]] = MariaDbSettings

    def __init__(self, options: MariaDbOptions, site: Site) -> None:
        super().__init__()
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._choice = Choice(options.databases, options.exclude, whole=options.users)
        self._session: Session | None = None

    def claims(self) -> list[str]:
        """Each database that is named, or else the server; and the server for accounts."""
        return self._choice.claims(self.name, self._server.name)

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(NEEDED)

    def _freeze(self, held: ExitStack) -> Frozen:
        """A transaction for each database, all begun while nothing was committed."""
        folder = held.enter_context(self._site.work_folder(self.name))
        option_file = self._server.option_file(folder)
        with closing(self._server.connect(lock_seconds=self._options.lock_seconds)) as session:
            self._session = session
            found = self._chosen(session)
            dumps: dict[str, Spooled] = {}
            for number, name in enumerate(found if self._options.together else ()):
                start = partial(self._start, self._of_tables(name, found[name].views, option_file))
                dumps[name] = held.enter_context(closing(Spooled(folder / f"dump-{number}", start)))
            position = self._begun(session, list(dumps.values()))
            consistency = TOGETHER if self._options.together else APART
            said = about(session.said_version, position=position, consistency=consistency, databases=found)
            accounts = read_accounts(session) if self._choice.whole else {}
        return Frozen(option_file, found, {name: buffered(dump) for name, dump in dumps.items()}, said, accounts)

    def _chosen(self, session: Session) -> dict[str, Found]:
        known = {row[0]: row[1:] for row in session.rows(DATABASES) if row[0] not in OWN}
        return {
            name: Found(
                charset=known[name][0],
                collation=known[name][1],
                bytes=int(known[name][2]),
                views=session.column(VIEWS, name),
                without_transactions=session.column(UNSAFE, name),
            )
            for name in self._choice.of(self._server.name, known)
        }

    def _begun(self, session: Session, dumps: Sequence[Spooled]) -> dict[str, str]:
        """Begin them all at one moment, and return its position in the binary log. What fails ends the session, and
        with it the stage."""
        if not self._options.together:
            return {}
        for stage in STAGES:
            self._running.check()
            session.rows(f"BACKUP STAGE {stage}")
        for dump in dumps:
            dump.start()
        end = time.monotonic() + self._options.lock_seconds
        while not all(dump.has_begun() for dump in dumps):
            if time.monotonic() > end:
                raise SourceUnavailable("the dumps did not begin, for something is locked", hint=LOCKED)
            time.sleep(BEGIN_SECONDS)
        position = _position(session)
        session.rows("BACKUP STAGE END")
        return position

    def sizes(self, frozen: Frozen) -> Iterator[int]:
        """What each database takes at the server."""
        return (found.bytes for found in frozen.databases.values())

    def export(self, frozen: Frozen) -> Iterator[Entry]:
        """The dumps, by the names of their folders."""
        folder = FOLDER.format(self._server.name)
        said = f"{folder}/{ABOUT}".encode()
        yield from folders_above(said)
        yield small(said, frozen.about)
        databases = f"{folder}/databases".encode()
        if frozen.databases:
            yield Entry(path=databases, node=folder_node(b"databases"))
        for file, name in sorted((file_name(name).encode(), name) for name in frozen.databases):
            path = join(databases, file)
            yield Entry(path=path, node=folder_node(file))
            yield stream(join(path, PROGRAMS), partial(self._programs, name, frozen))
            yield self._tables(join(path, TABLES), name, frozen)
        if self._choice.whole:
            yield small(f"{folder}/{USERS}".encode(), msgspec.json.encode(frozen.accounts))
            yield small(f"{folder}/{SCRIPT}".encode(), script(frozen.accounts))

    def _tables(self, path: bytes, name: str, frozen: Frozen) -> Entry:
        words = self._of_tables(name, frozen.databases[name].views, frozen.option_file)
        entry = stream(path, lambda: buffered(Joined(frozen.dumps.get(name) or self._output(words))))
        unsafe = frozen.databases[name].without_transactions
        if unsafe:
            entry.warning = f"tables that know no transactions are not of one moment: {', '.join(unsafe)}"
        return entry

    def _of_tables(self, name: str, views: list[str], option_file: str) -> list[str]:
        words = [option_file, "--single-transaction", "--skip-triggers", "--skip-extended-insert", *PLAIN]
        words += [f"--ignore-table={name}.{view}" for view in views]
        words += [f"--ignore-table-data={table}" for table in self._options.exclude_table_data]
        return [*words, "--", name]

    def _programs(self, name: str, frozen: Frozen) -> BinaryIO:
        """Views go last, each begun as one that shows nothing: they may ask each other, and call functions."""
        words = [frozen.option_file, "--single-transaction", "--no-data", *PLAIN]
        parts = [[*words, "--no-create-info", "--routines", "--events", "--", name]]
        views = frozen.databases[name].views
        if views:
            parts.append([*words, "--skip-triggers", "--", name, *views])
        return buffered(Chained([partial(self._output, part) for part in parts]))

    def _output(self, words: list[str]) -> BinaryIO:
        return buffered(Output(self._start(words), explained))

    def _start(self, words: list[str], **how: Any) -> Program:
        return self._running.start([self._server.program("mariadb-dump"), *words], **how)

    def interrupt(self) -> None:
        """End the dumps, and the wait for what others have locked."""
        super().interrupt()
        if self._session:
            self._session.end_statement()

    @classmethod
    def restore_claims(cls, options: MariaDbRestore, site: Site) -> list[str]:
        """Each database that is named, or else the server; the server too where accounts are made."""
        return claims(cls.name, options.server, options.databases.values(), whole=options.users)

    @classmethod
    def import_(cls, options: MariaDbRestore, claims: Any, site: Site) -> DatabaseSink:
        """What makes databases anew."""
        return DatabaseSink(Server(PLUGIN, site, options.server), options, site)


def _position(session: Session) -> dict[str, str]:
    """Where the binary log is, as far as there is one and the account may know."""
    found = {"gtid": str(session.value("SELECT @@global.gtid_binlog_pos") or "")}
    try:
        rows = session.rows("SHOW MASTER STATUS")
    except SourceError:
        return found
    return found | ({"file": str(rows[0][0]), "offset": str(rows[0][1])} if rows else {})
