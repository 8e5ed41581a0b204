"""A PostgreSQL server: how to reach it, as the service's configuration says, and what its errors mean.

What is asked of it goes over psycopg, which stands on the same libpq as PostgreSQL's own programs: settings, TLS and
password files mean the same to both, and libpq is there where the programs are.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from snappy import secrets
from snappy.config import Secret
from snappy.errors import (
    BadOptions,
    NoSpace,
    ProgramFailed,
    ProgramMissing,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from snappy.sources import programs
from snappy.sources.site import Site

if TYPE_CHECKING:
    from psycopg import Connection

CONNECT_SECONDS = 10
OLDEST = 130000
PASSWORD_FILE = "pgpass"
APPLICATION = "snappy"
DEBIAN = "/usr/lib/postgresql"
VARIABLES = {"dbname": "PGDATABASE"}
"""Those of libpq that are not named like its parameters; to name a database by it takes any name as it is."""

WITHOUT_LIMITS = """
    SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout',
        'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
        'default_transaction_read_only')
"""
"""A server that ends sessions which wait must not end one that holds a snapshot. 0 stands for off, too."""


class PostgresSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a PostgreSQL server is, and as whom to go there."""

    host: Annotated[str, Meta(description="its name or address, or the folder of its Unix socket; empty: libpq's")] = ""
    port: Annotated[int, Meta(ge=1, le=65535, description="its port")] = 5432
    user: Annotated[str, Meta(description="the role; empty: named like the system's user")] = ""
    password: Annotated[Secret | None, Meta(description="where the role's password is found")] = None
    database: Annotated[str, Meta(description="where to ask what concerns no single database")] = "postgres"
    sslmode: Annotated[
        Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], Meta(description="as libpq's")
    ] = "prefer"
    sslrootcert: Annotated[str, Meta(description="the file of the authorities that may vouch for the server")] = ""
    sslcert: Annotated[str, Meta(description="the file of the role's certificate")] = ""
    sslkey: Annotated[str, Meta(description="the file of that certificate's key")] = ""
    programs: Annotated[
        str, Meta(description="the folder of pg_dump and its like; empty: those in PATH, else Debian's")
    ] = ""


class Server:
    """The server that the settings of that name describe."""

    def __init__(self, plugin: str, site: Site, name: str) -> None:
        self.name = name
        self._settings: PostgresSettings = site.settings(plugin, PostgresSettings, name)

    @property
    def database(self) -> str:
        return self._settings.database

    def connect(self, database: str = "", *, application: str = APPLICATION) -> Connection[Any]:
        """A session in that database, each statement a transaction of its own. Raises :class:`SourceUnavailable`,
        :class:`SourceDenied` and :class:`SourceMissing`."""
        psycopg = _psycopg()
        password = self._password()
        words = self._words(database) | ({"password": password} if password else {})
        with explained():
            made: Connection[Any] = psycopg.connect(
                **words,
                application_name=application,
                connect_timeout=CONNECT_SECONDS,
                client_encoding="utf8",
                autocommit=True,
            )
        try:
            with explained():
                made.execute(WITHOUT_LIMITS)
            self._check_version(made)
        except BaseException:
            made.close()
            raise
        return made

    def environment(self, folder: Path) -> dict[str, str]:
        """By which a program finds the server; its password is put into a file in ``folder``, which is the job's."""
        words = {VARIABLES.get(name, f"PG{name.upper()}"): value for name, value in self._words("").items()}
        password = self._password()
        if password:
            words["PGPASSFILE"] = str(folder / PASSWORD_FILE)
            _write_password(folder / PASSWORD_FILE, password)
        return words | {"PGAPPNAME": APPLICATION, "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS)}

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's programs."""
        given = self._settings.programs
        return os.path.join(given, name) if given else found_program(name) or name

    def check_program(self, name: str, server: int) -> None:
        """Raise :class:`ProgramMissing` unless the program is of the ``server``'s major version or a newer one."""
        said = programs.run([self.program(name), "--version"], environment=self._environment_of_words()).decode()
        found = re.search(r"\) (\d+)", said)
        if found and int(found[1]) < server // 10000:
            raise ProgramMissing(
                f"{name} is of version {found[1]}, and the server of {server // 10000}: it would refuse",
                hint="install the newer one, and name its folder as `programs` in the plug-in's settings",
            )

    def _environment_of_words(self) -> dict[str, str]:
        """Debian's wrapper of the programs chooses the version by the server that it is told."""
        return {"PGHOST": self._settings.host} if self._settings.host else {}

    def _words(self, database: str) -> dict[str, str]:
        """What libpq is told, by its own names."""
        given = self._settings
        words = {name: getattr(given, name) for name in ("host", "user", "sslmode", "sslrootcert", "sslcert", "sslkey")}
        words |= {"port": str(given.port), "dbname": database or given.database}
        return {name: value for name, value in words.items() if value}

    def _password(self) -> str:
        return secrets.read(self._settings.password) if self._settings.password else ""

    def _check_version(self, connection: Connection[Any]) -> None:
        if connection.info.server_version < OLDEST:
            raise BadOptions(
                f"PostgreSQL {connection.info.server_version // 10000} is too old",
                hint=f"servers from {OLDEST // 10000} on are supported; the plug-in `command` can run their pg_dump",
            )


@contextmanager
def explained() -> Iterator[None]:
    """What psycopg raises, and what programs say of the server, becomes an error that says what to do."""
    try:
        yield
    except ProgramFailed as error:
        raise _of_words(error.message) or error from error
    except Exception as error:
        if not isinstance(error, _psycopg().Error):
            raise
        raise _of_state(str(getattr(error, "sqlstate", None) or ""), _one_line(error)) from error


def _of_state(state: str, said: str) -> SourceError | NoSpace:
    """``state`` is what the server says of it (PostgreSQL's manual, appendix A), empty where there is no session."""
    if state.startswith("28") or state == "42501":
        return SourceDenied(said)
    if state == "3D000":
        return SourceMissing(said, hint=MISSING)
    if state == "53100":
        return NoSpace(said, hint=FULL)
    if state == "53300":
        return SourceUnavailable(said, hint=CROWDED)
    if not state or state.startswith(("08", "57P")):
        return _of_words(said) or SourceUnavailable(said, hint=SILENT)
    return SourceError(said)


REMEDY = "apt install postgresql-client, or name their folder as `programs` in the plug-in's settings"
MISSING = "`psql -l` at the server lists its databases"
FULL = "free space where the PostgreSQL server keeps its data"
CROWDED = "raise the server's max_connections: a backup holds a session for each database"
SILENT = "look whether the server runs, and at the plug-in's settings at the source service"

_MEANINGS: Sequence[tuple[str, type[SourceError | NoSpace], str | None]] = (
    (r"No space left on device", NoSpace, FULL),
    (
        r"authentication failed|no password supplied|no pg_hba.conf entry|valid client certificate",
        SourceDenied,
        None,
    ),
    (r'FATAL: +role ".*" does not exist', SourceDenied, None),
    (r'FATAL: +database ".*" does not exist', SourceMissing, MISSING),
    (r"permission denied|must be (owner|superuser|member)|row-level security", SourceDenied, None),
    (
        r'role ".*" does not exist',
        SourceMissing,
        "restore with the option globals, which makes roles, or with owners and privileges off",
    ),
    (r"remaining connection slots|too many clients", SourceUnavailable, CROWDED),
    (r"out of shared memory", SourceError, "raise the server's max_locks_per_transaction"),
    (
        r"unsupported version|unrecognized configuration parameter",
        SourceError,
        "the dump is of a newer PostgreSQL: restore with its programs, into a server that is no older",
    ),
    (r"server closed the connection|connection to server .* failed|terminating connection", SourceUnavailable, SILENT),
)


def _of_words(said: str) -> SourceError | NoSpace | None:
    """Where there is no state: libpq has none for a session that was refused, and programs keep it to themselves."""
    for pattern, kind, hint in _MEANINGS:
        if re.search(pattern, said):
            return kind(said, hint=hint)
    return None


def _one_line(error: Exception) -> str:
    """Without the statement, which may make a role with its password."""
    diagnosis = getattr(error, "diag", None)
    if diagnosis and diagnosis.message_primary:
        return " / ".join(filter(None, (diagnosis.message_primary, diagnosis.message_detail)))
    return " / ".join(filter(None, map(str.strip, str(error).splitlines())))


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise ProgramMissing(
            f"the Python module psycopg cannot be loaded: {_one_line(error)}",
            hint="pip install 'snappy-backup[postgres]', and Debian's libpq5, where the source service runs",
        ) from error
    return psycopg


def _write_password(path: Path, password: str) -> None:
    """As libpq's password file, for any server."""
    if "\n" in password or "\r" in password:
        raise BadOptions("the password of a PostgreSQL role cannot hold a line break")
    escaped = re.sub(r"([\\:])", r"\\\1", password)
    programs.write_private(path, f"*:*:*:*:{escaped}\n")


def found_program(name: str) -> str | None:
    """One in PATH, else the newest where Debian keeps what it does not put there."""
    versions = sorted(glob.glob(f"{DEBIAN}/*/bin/{name}"), key=lambda path: float(path.split("/")[4]))
    return shutil.which(name) or next(reversed(versions), None)


def missing(names: Sequence[str]) -> list[str]:
    """What this machine lacks of PostgreSQL's programs and Python's modules."""
    lost = [f"{name} is not installed: {REMEDY}" for name in names if not found_program(name)]
    try:
        _psycopg()
    except ProgramMissing as error:
        lost.append(f"{error.message}: {error.hint}")
    return lost
