"""The ``mariadb`` plug-in: the databases of a MariaDB server, all of them as of one moment.

The snapshot holds ``/mariadb/<server>/about.json`` (what was backed up, the position in the binary log, and what dumps
do not say of their databases), ``databases/<name>/tables.sql``, ``databases/<name>/programs.sql`` (routines, triggers,
events, views), ``users.json``, and the same as ``users.sql``; scripts are for the program ``mariadb``.
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, closing
from functools import partial
from typing import Annotated, Any, BinaryIO, ClassVar, NamedTuple, cast

import msgspec
from msgspec import Meta

from snappy.errors import BadOptions, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.entries import Entry
from snappy.repository.format import MIB
from snappy.repository.paths import join
from snappy.sources.databases import claim, file_name, is_unfinished
from snappy.sources.made_up import folder_node, folders_above, stream
from snappy.sources.plugins.mariadb_accounts import Accounts, read_accounts, script
from snappy.sources.plugins.mariadb_dumps import Chained, Spooled
from snappy.sources.plugins.mariadb_server import LOCKED, ExplainedOutput, MariaDbSettings, Server, Session, missing
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
from snappy.sources.programs import Program, Running
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

    server: Annotated[str, Meta(description="which server, by its name in the source service's configuration")] = (
        "default"
    )
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
    held: ExitStack


class MariaDbSource:
    """Databases of a MariaDB server, all as of one moment."""

    name: ClassVar[str] = PLUGIN
    Options: ClassVar[type[msgspec.Struct]] = MariaDbOptions
    RestoreOptions: ClassVar[type[msgspec.Struct]] = MariaDbRestore
    Settings: ClassVar[type[msgspec.Struct]] = MariaDbSettings

    def __init__(self, options: MariaDbOptions, site: Site) -> None:
        self._options, self._site = options, site
        self._server = Server(PLUGIN, site, options.server)
        self._running = Running()
        if set(options.databases) & set(options.exclude):
            raise BadOptions("a database is both among `databases` and in `exclude`")

    def claims(self) -> list[str]:
        """Each database that is named, or else the server; and the server for what concerns all of it."""
        names = [*self._options.databases, *([""] if self._with_users else [])]
        return sorted({claim(self.name, self._server.name, name) for name in names or ("",)})

    @property
    def _with_users(self) -> bool:
        wanted = self._options.users
        return not self._options.databases if wanted is None else wanted

    @classmethod
    def missing(cls) -> list[str]:
        """What this machine lacks for it, a sentence each."""
        return missing(NEEDED)

    def snap(self) -> AbstractAsyncContextManager[Frozen]:
        """A transaction for each database, all begun while nothing was committed. Raises :class:`SourceMissing`,
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
            held.callback(self._running.end)
            folder = held.enter_context(self._site.work_folder(self.name))
            option_file = self._server.option_file(folder)
            with closing(self._server.connect(lock_seconds=self._options.lock_seconds)) as session:
                found = self._chosen(session)
                dumps: dict[str, Spooled] = {}
                for number, name in enumerate(found if self._options.together else ()):
                    start = partial(self._start, self._of_tables(name, found[name].views, option_file))
                    dumps[name] = Spooled(folder / f"dump-{number}", start)
                    held.callback(dumps[name].close)
                position = self._begun(session, list(dumps.values()))
                about = _about(session, found, position, TOGETHER if self._options.together else APART)
                accounts = read_accounts(session) if self._with_users else {}
            readers = {name: _buffered(dump) for name, dump in dumps.items()}
            return Frozen(option_file, found, readers, about, accounts, held.pop_all())

    def _chosen(self, session: Session) -> dict[str, Found]:
        known = {row[0]: row[1:] for row in session.rows(DATABASES) if row[0] not in OWN}
        wanted = self._options.databases or tuple(name for name in known if not is_unfinished(name))
        for name in wanted:
            if name not in known:
                raise SourceMissing(
                    f"the server {self._server.name} has no database {name!r}",
                    hint=f"it has: {', '.join(known) or 'none'}",
                )
        return {
            name: Found(
                charset=known[name][0],
                collation=known[name][1],
                bytes=int(known[name][2]),
                views=session.column(VIEWS, name),
                without_transactions=session.column(UNSAFE, name),
            )
            for name in wanted
            if name not in self._options.exclude
        }

    def _begun(self, session: Session, dumps: Sequence[Spooled]) -> dict[str, str]:
        """Begin them all at one moment, and return its position in the binary log. What fails ends the session, and
        with it the stage."""
        if not self._options.together:
            return {}
        for stage in STAGES:
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
        about = f"{folder}/{ABOUT}".encode()
        yield from folders_above(about)
        yield stream(about, lambda: io.BytesIO(frozen.about), size=len(frozen.about))
        databases = f"{folder}/databases".encode()
        if frozen.databases:
            yield Entry(path=databases, node=folder_node(b"databases"))
        for file, name in sorted((file_name(name).encode(), name) for name in frozen.databases):
            path = join(databases, file)
            yield Entry(path=path, node=folder_node(file))
            yield stream(join(path, PROGRAMS), partial(self._programs, name, frozen))
            yield self._tables(join(path, TABLES), name, frozen)
        if self._with_users:
            for name, data in ((USERS, msgspec.json.encode(frozen.accounts)), (SCRIPT, script(frozen.accounts))):
                yield stream(f"{folder}/{name}".encode(), partial(io.BytesIO, data), size=len(data))

    def _tables(self, path: bytes, name: str, frozen: Frozen) -> Entry:
        words = self._of_tables(name, frozen.databases[name].views, frozen.option_file)
        entry = stream(path, lambda: frozen.dumps.get(name) or self._output(words))
        unsafe = frozen.databases[name].without_transactions
        if unsafe:
            entry.warning = f"tables that know no transactions are not of one moment: {', '.join(unsafe)}"
        return entry

    def _of_tables(self, name: str, views: list[str], option_file: str) -> list[str]:
        words = [option_file, "--single-transaction", "--skip-triggers", *PLAIN]
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
        return _buffered(Chained([partial(self._output, part) for part in parts]))

    def _output(self, words: list[str]) -> BinaryIO:
        return _buffered(ExplainedOutput(self._start(words)))

    def _start(self, words: list[str], **how: Any) -> Program:
        return self._running.start([self._server.program("mariadb-dump"), *words], **how)

    def interrupt(self) -> None:
        """End the dumps."""
        self._running.end()

    @classmethod
    def restore_claims(cls, options: MariaDbRestore, site: Site) -> list[str]:
        """Each database that is named, or else the server; the server too where accounts are made."""
        names = tuple(options.databases.values())
        whole = options.users or not names
        return sorted({claim(cls.name, options.server, name) for name in (*names, *([""] if whole else []))})

    @classmethod
    def import_(cls, options: MariaDbRestore, claims: Any, site: Site) -> DatabaseSink:
        """What makes databases anew."""
        return DatabaseSink(Server(PLUGIN, site, options.server), options, site)


def _buffered(raw: io.RawIOBase) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(raw, MIB))


def _position(session: Session) -> dict[str, str]:
    """Where the binary log is, as far as there is one and the account may know."""
    found = {"gtid": str(session.value("SELECT @@global.gtid_binlog_pos") or "")}
    try:
        rows = session.rows("SHOW MASTER STATUS")
    except SourceError:
        return found
    return found | ({"file": str(rows[0][0]), "offset": str(rows[0][1])} if rows else {})


def _about(session: Session, databases: dict[str, Found], position: dict[str, str], consistency: str) -> bytes:
    said = {
        "server_version": session.value("SELECT VERSION()"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "position": position,
        "consistency": consistency,
        "databases": databases,
    }
    return msgspec.json.format(msgspec.json.encode(said), indent=2)
