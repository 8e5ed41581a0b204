"""A MariaDB server: how to reach it, as the service's configuration says, and what its errors mean.

What is asked of it goes over PyMySQL; data go through MariaDB's own programs, which find the server, and the password,
in an option file of the job.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.errors import (
    BadOptions,
    NoSpace,
    ProgramFailed,
    ProgramMissing,
    SnappyError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from snappy.sources import programs
from snappy.sources.site import Site

CONNECT_SECONDS = 10
OLDEST = (10, 5)
OPTION_FILE = "client.cnf"
VERIFIED = "ssl-verify-server-cert\n"
WITHOUT_TLS = "skip-ssl\n"
"""Else programs from version 11.4 on talk to no server that does not offer TLS."""
VERSION = re.compile(r"(\d+)\.(\d+)\.\d+\S*-MariaDB")

Value = str | int | float | bytes | None
Row = tuple[Any, ...]


class MariaDbSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a MariaDB server is, and as whom to go there."""

    host: Annotated[str, Meta(description="its name or address")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="its port")] = 3306
    socket: Annotated[str, Meta(description="its Unix socket, instead of a host and a port")] = ""
    user: Annotated[str, Meta(description="the account, without the host")] = "snappy"
    password: Annotated[Secret | None, Meta(description="where the account's password is found")] = None
    ssl_ca: Annotated[str, Meta(description="the file of the authorities that vouch for the server; else no TLS")] = ""
    ssl_cert: Annotated[str, Meta(description="the file of the account's certificate")] = ""
    ssl_key: Annotated[str, Meta(description="the file of that certificate's key")] = ""
    programs: Annotated[str, Meta(description="the folder of mariadb-dump and its like; empty: those in PATH")] = ""


class Session:
    """Each statement is a transaction of its own. Raises as :func:`explained`."""

    def __init__(self, connection: Any, again: Callable[[], Any]) -> None:
        self._connection, self._again = connection, again
        self.said_version = str(self.value("SELECT VERSION()"))
        found = VERSION.search(self.said_version)
        if not found:
            raise BadOptions("the server is no MariaDB", hint="the plug-in `command` can run another server's programs")
        self.version = int(found[1]), int(found[2])
        if self.version < OLDEST:
            raise BadOptions(
                f"MariaDB {found[1]}.{found[2]} is too old", hint="servers from {}.{} on are supported".format(*OLDEST)
            )

    def rows(self, statement: str, *values: Value) -> Sequence[Row]:
        """What a statement gives; ``%s`` in it stands for the values, if there are any."""
        with explained(), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            found: Sequence[Row] = cursor.fetchall()
        return found

    def value(self, statement: str, *values: Value) -> Any:
        """The first one."""
        rows = self.rows(statement, *values)
        return rows[0][0] if rows else None

    def column(self, statement: str, *values: Value) -> list[str]:
        """The first of each row."""
        return [str(row[0]) for row in self.rows(statement, *values)]

    def end_statement(self) -> None:
        """Have the server end what it does for this session, which may wait for what others have locked. From any
        thread; does not wait."""
        threading.Thread(target=self._end_statement, name="killing", daemon=True).start()

    def _end_statement(self) -> None:
        with suppress(SnappyError), closing(self._again()) as other, other.cursor() as cursor, explained():
            cursor.execute(f"KILL QUERY {self._connection.thread_id()}")

    def close(self) -> None:
        """What it has locked is free afterwards."""
        with explained():
            if self._connection.open:
                self._connection.close()


class Server:
    """The server that the settings of that name describe."""

    def __init__(self, plugin: str, site: Site, name: str) -> None:
        self.name = name
        self._settings: MariaDbSettings = site.settings(plugin, MariaDbSettings, name)

    def connect(self, *, lock_seconds: int) -> Session:
        """A session that waits so long for what others have locked. Raises :class:`SourceUnavailable` and
        :class:`SourceDenied`."""
        made = self._connected()
        try:
            session = Session(made, self._connected)
            session.rows("SET SESSION lock_wait_timeout = %s, wait_timeout = 604800", lock_seconds)
        except BaseException:
            made.close()
            raise
        return session

    def _connected(self) -> Any:
        client, given = _pymysql(), self._settings
        where: dict[str, Any] = {"unix_socket": given.socket} if given.socket else {"host": given.host}
        tls = {name: getattr(given, name) or None for name in ("ssl_ca", "ssl_cert", "ssl_key")}
        with explained():
            return client.connect(
                **where,
                **({**tls, "ssl_verify_cert": True, "ssl_verify_identity": True} if given.ssl_ca else {}),
                port=given.port,
                user=given.user,
                password=self._password(),
                charset="utf8mb4",
                connect_timeout=CONNECT_SECONDS,
                autocommit=True,
            )

    def option_file(self, folder: Path) -> str:
        """The argument that must be a program's first; the file is put into ``folder``, which is the job's."""
        given, password = self._settings, self._password()
        words: dict[str, str | int] = {"user": given.user, "default-character-set": "utf8mb4"}
        words |= {"socket": given.socket} if given.socket else {"host": given.host, "port": given.port}
        words |= {"protocol": "socket" if given.socket else "tcp"}
        words |= {"password": password} if password else {}
        if given.ssl_ca:
            words |= {"ssl-ca": given.ssl_ca, "ssl-cert": given.ssl_cert, "ssl-key": given.ssl_key}
        lines = [f"{name}={_quoted(str(value))}\n" for name, value in words.items() if value]
        path = folder / OPTION_FILE
        programs.write_private(path, "[client]\n" + "".join(lines) + (VERIFIED if given.ssl_ca else WITHOUT_TLS))
        return f"--defaults-file={path}"

    def program(self, name: str) -> str:
        """The path of one of MariaDB's programs."""
        return os.path.join(self._settings.programs, name) if self._settings.programs else name

    def check_program(self, name: str, server: tuple[int, int]) -> None:
        """Raise :class:`ProgramMissing` unless the program is of the ``server``'s version."""
        said = programs.run([self.program(name), "--version"]).decode(errors="replace")
        found = VERSION.search(said)
        if found and (int(found[1]), int(found[2])) != server:
            raise ProgramMissing(
                f"{name} is of version {found[1]}.{found[2]}, and the server of {server[0]}.{server[1]}",
                hint="install the server's, and name its folder as `programs` in the plug-in's settings",
            )

    def _password(self) -> str:
        return secrets.read(self._settings.password) if self._settings.password else ""


def identifier(name: str) -> str:
    """As it stands in a statement."""
    return "`" + name.replace("`", "``") + "`"


@contextmanager
def explained() -> Iterator[None]:
    """What PyMySQL raises, and what programs say of the server, becomes an error that says what to do."""
    try:
        yield
    except ProgramFailed as error:
        raise _of_words(error.message) or error from error
    except Exception as error:
        if not isinstance(error, _pymysql().err.MySQLError):
            raise
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        raise _of_number(number, str(error.args[-1]) if error.args else str(error)) from error


REMEDY = "apt install mariadb-client mariadb-backup, or name their folder as `programs` in the plug-in's settings"
GRANTS = "docs/plugins.md says what the account needs"
MISSING = "SHOW DATABASES lists those that the account sees"
SILENT = "look whether the server runs, and at the plug-in's settings at the source service"
LOCKED = "somebody has locked it for long: SHOW PROCESSLIST says who; see the option lock_seconds"
ALTERED = "a table was altered while it was dumped; the next attempt may find it at rest"
NEWER = "the backup is of a newer MariaDB, or of one with more engines: restore into a server like it"
FULL = "free space where the server keeps its data, or where the service works"

_KINDS: dict[int, tuple[type[SourceError | NoSpace], str]] = {
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1370, 1698), (SourceDenied, GRANTS)),
    1049: (SourceMissing, MISSING),
    1133: (SourceMissing, "accounts by the names of machines are not in use where the server resolves no names"),
    **dict.fromkeys((1021, 1041, 1114), (NoSpace, FULL)),
    **dict.fromkeys((1040, 1053, 1203, 2002, 2003, 2005, 2006, 2013, 2026), (SourceUnavailable, SILENT)),
    **dict.fromkeys((1205, 1969), (SourceUnavailable, LOCKED)),
    **dict.fromkeys((1115, 1193, 1273, 1286), (SourceError, NEWER)),
    1412: (SourceUnavailable, ALTERED),
}
"""What the numbers of MariaDB's errors mean (its manual, "MariaDB error codes")."""
_WORDS: Sequence[tuple[str, type[SourceError | NoSpace], str]] = (
    (r"No space left|[Ee]rrno:? 28\b|error:? 28\b|Errcode: 28\b|OS error code 28\b", NoSpace, FULL),
    (r"Failed to connect to MariaDB server: Access denied", SourceDenied, GRANTS),
    (r"Failed to connect to MariaDB server", SourceUnavailable, SILENT),
)
"""What mariadb-backup says without a number."""
NUMBER = re.compile(r"[Ee]rror:? (\d+)|ERROR (\d+)|\((\d{4})\)")


def _of_number(number: int, said: str) -> SourceError | NoSpace:
    kind, hint = _KINDS.get(number, (SourceError, ""))
    return kind(said, hint=hint or "the log of the server may say more")


def _of_words(said: str) -> SourceError | NoSpace | None:
    """Programs have the number among their words."""
    for pattern, kind, hint in _WORDS:
        if re.search(pattern, said):
            return kind(said, hint=hint)
    for found in NUMBER.finditer(said):
        number = int(next(filter(None, found.groups())))
        if number in _KINDS:
            return _of_number(number, said)
    return None


def _pymysql() -> Any:
    try:
        import pymysql
    except ImportError as error:
        raise ProgramMissing(
            f"the Python module pymysql cannot be loaded: {error}",
            hint="pip install 'snappy-backup[mariadb]' where the source service runs",
        ) from error
    return pymysql


def _quoted(value: str) -> str:
    """As an option file has it: only the outermost quotation marks count, and backslashes."""
    if "\n" in value or "\r" in value:
        raise BadOptions("a setting of a MariaDB server cannot hold a line break")
    return '"' + value.replace("\\", "\\\\") + '"'


def missing(names: Sequence[str]) -> list[str]:
    """What this machine lacks of MariaDB's programs and Python's modules."""
    lost = programs.lacking(dict.fromkeys(names, REMEDY))
    try:
        _pymysql()
    except ProgramMissing as error:
        lost.append(f"{error.message}: {error.hint}")
    return lost
