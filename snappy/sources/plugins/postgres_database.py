"""Databases of a PostgreSQL server as wholes: made for a restore, given what a dump does not say of them, and put in
the place of others. Each function takes a session in which every statement is a transaction of its own, and lets
psycopg's errors through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from snappy import log
from snappy.sources.databases import Names

if TYPE_CHECKING:
    from psycopg import Connection

TRIES = 5
"""To take a name from a database that sessions come back to; the server waits 5 s for them each time."""
IN_USE = "55006"

EMPTY = """
    SELECT NOT EXISTS (
        SELECT FROM (
            SELECT oid FROM pg_class UNION ALL SELECT oid FROM pg_proc UNION ALL SELECT oid FROM pg_type
            UNION ALL SELECT oid FROM pg_namespace UNION ALL SELECT oid FROM pg_extension
            UNION ALL SELECT oid FROM pg_largeobject_metadata
        ) found WHERE oid >= 16384
    )
"""
"""What every new database has is numbered below that (PostgreSQL's ``FirstNormalObjectId``)."""
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"

_log = log.get(__name__)


class Database:
    """One that is being restored, and what was said ``about`` it when it was backed up."""

    def __init__(self, name: str, about: Mapping[str, Any], *, locales: bool) -> None:
        self.name, self._about, self._locales = name, about, locales

    def make(self, session: Connection[Any]) -> None:
        """Without anything in it."""
        clauses, values = ["CREATE DATABASE %I TEMPLATE template0"], [self.name]
        if self._about and self._locales:
            for clause, value in _locale(self._about):
                clauses.append(clause)
                values.append(value)
        do(session, " ".join(clauses), *values)

    def apply(self, session: Connection[Any], *, owner: bool, privileges: bool) -> list[str]:
        """Give it what was said about it; ``session`` is one in it. Returns what could not be kept."""
        about = self._about
        if about.get("comment"):
            do(session, "COMMENT ON DATABASE %I IS %L", self.name, about["comment"])
        if about.get("datconnlimit", -1) >= 0:
            do(session, f"ALTER DATABASE %I CONNECTION LIMIT {int(about['datconnlimit'])}", self.name)
        if owner and about.get("owner"):
            do(session, "ALTER DATABASE %I OWNER TO %I", self.name, about["owner"])
        if privileges and about.get("grants"):
            self._grant(session, about["grants"])
        return list(filter(None, (self._set(session, setting) for setting in about.get("settings") or ())))

    def _grant(self, session: Connection[Any], grants: list[tuple[str | None, str, bool]]) -> None:
        do(session, "REVOKE ALL ON DATABASE %I FROM PUBLIC", self.name)
        for who, privilege, may_grant in grants:
            to = "%I" if who else "PUBLIC"
            option = " WITH GRANT OPTION" if may_grant else ""
            names = (privilege, self.name, *([who] if who else []))
            do(session, f"GRANT %s ON DATABASE %I TO {to}{option}", *names)

    def _set(self, session: Connection[Any], setting: str) -> str:
        """The server itself writes the value as it must be written. What it refuses is said."""
        name, _, value = setting.partition("=")
        try:
            with session.transaction():
                session.execute("SELECT set_config(%s, %s, true)", (name, value))
                do(session, "ALTER DATABASE %I SET " + _parameter(name) + " FROM CURRENT", self.name)
        except Exception as error:
            if getattr(error, "sqlstate", None) is None:
                raise
            return f"its setting {name} could not be kept: {str(error).splitlines()[0]}"
        return ""


def do(session: Connection[Any], statement: str, *values: str) -> None:
    """Carry out a statement that takes no parameters; the server puts the values into it (as its ``format``)."""
    row = session.execute("SELECT format(%s, VARIADIC %s::text[])", (statement, list(values))).fetchone()
    assert row
    session.execute(str(row[0]).encode())


def column(session: Connection[Any], query: bytes) -> set[str]:
    """The first column of what is found."""
    return {str(row[0]) for row in session.execute(query)}


def databases(session: Connection[Any]) -> set[str]:
    """The names of all."""
    return column(session, b"SELECT datname FROM pg_database")


def is_empty(session: Connection[Any]) -> bool:
    """Whether there is nothing in the session's database but what every new one has."""
    row = session.execute(EMPTY).fetchone()
    return bool(row and row[0])


def drop(session: Connection[Any], name: str) -> None:
    """Remove it, ending its sessions, if it is there."""
    do(session, "DROP DATABASE IF EXISTS %I WITH (FORCE)", name)


def drop_left(session: Connection[Any], names: Names) -> None:
    """Remove what restores of this service made that are no more. One that belongs to another role stays."""
    alive = column(session, b"SELECT application_name FROM pg_stat_activity")
    for name in sorted(databases(session)):
        run = names.session_of(name)
        if not run or run in alive:
            continue
        try:
            drop(session, name)
            _log.info("removed what a dead restore left", database=name)
        except Exception as error:
            if getattr(error, "sqlstate", None) is None:
                raise
            _log.warning("what a dead restore left stays", database=name, reason=str(error))


def replace_all(session: Connection[Any], made: Mapping[str, str], names: Names, check: Callable[[], None]) -> None:
    """Give each of ``made`` the name it is to have, all at once; what has that name is removed. ``check`` is asked
    before each try, and raises to stop."""
    for left in reversed(range(TRIES)):
        check()
        aside = {name: names.replaced() for name in sorted(databases(session).intersection(made.values()))}
        for name in aside:
            session.execute(END_SESSIONS, (name,))
        try:
            _rename(session, aside | dict(made))
            break
        except Exception as error:
            if getattr(error, "sqlstate", None) != IN_USE or not left:
                raise
            _log.info("sessions came back to a database that is to be replaced", tries_left=left)
    for name in aside.values():
        drop(session, name)


def _rename(session: Connection[Any], names: Mapping[str, str]) -> None:
    with session.transaction():
        for old, new in names.items():
            do(session, "ALTER DATABASE %I RENAME TO %I", old, new)


def _locale(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The clauses for the encoding and the locale, with their values; servers differ in what they say of it."""
    found = [("ENCODING %L", about["encoding_name"]), ("LC_COLLATE %L", about["datcollate"])]
    found.append(("LC_CTYPE %L", about["datctype"]))
    provider, locale = about.get("datlocprovider", "c"), about.get("datlocale") or about.get("daticulocale")
    if provider == "i" and locale:
        found.append(("LOCALE_PROVIDER icu ICU_LOCALE %L", locale))
    elif provider == "b" and locale:
        found.append(("LOCALE_PROVIDER builtin BUILTIN_LOCALE %L", locale))
    if about.get("daticurules"):
        found.append(("ICU_RULES %L", about["daticurules"]))
    return found


def _parameter(name: str) -> str:
    """A parameter's name as it is written: those of extensions have parts."""
    return ".".join('"' + part.replace('"', '""').replace("%", "%%") + '"' for part in name.split("."))
