"""A real MariaDB server on a free port of the loopback, run by a user who is not root, and a ledger in it."""

from __future__ import annotations

import os
import pwd
import random
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pymysql

from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 60.0
ACCOUNTS = 100
EACH = 1000
OWN = {"information_schema", "performance_schema", "sys", "mysql"}
ACCOUNT = "snappy"
QUICK = (
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-method=nosync",
    "--skip-name-resolve",
    "--log-bin=binlog",
    "--sync-binlog=0",
    "--log-warnings=1",
)

Session = pymysql.connections.Connection


class MariaDb:
    """A running server. ``account`` may do everything."""

    account = ACCOUNT

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.folder = port, folder
        self.password = f"""p"a'#\\ {secrets.token_hex(8)}"""
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """One with no databases but its own."""
        with held_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="snappy-mariadb-") as folder:
            os.chown(folder, *_unprivileged())
            server = cls(Path(folder), port)
            server.create()
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def create(self) -> None:
        """The data folder: a copy of one that is made once."""
        new = self.folder / "new"
        if not new.exists():
            wanted, self.data = self.data, new
            self._install()
            self.data = wanted
        subprocess.run(["cp", "--archive", new, self.data], check=True)

    def _install(self) -> None:
        words = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db", "--skip-log-bin"]
        words += ["--auth-root-authentication-method=normal", "--innodb-flush-method=nosync"]
        words += ["--innodb-log-file-size=16M"]
        done = subprocess.run(words, capture_output=True, check=False, cwd=self.folder, **_as_other())
        assert done.returncode == 0, done.stderr.decode()
        self.start()
        account = f"{self.account}@'127.0.0.1'"
        with closing(pymysql.connect(unix_socket=self.socket, user="root", autocommit=True)) as session:
            for statement in (
                f"CREATE USER {account} IDENTIFIED BY {session.escape(self.password)}",
                f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION",
                "SHUTDOWN",
            ):
                session.query(statement)
        assert self._process
        self._process.wait(START_SECONDS)
        self.stop()

    @property
    def socket(self) -> str:
        return str(self.folder / "socket")

    def start(self) -> None:
        """On the data folder."""
        words = ["mariadbd", "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", *QUICK]
        words += [f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, preexec_fn=die_with_parent, cwd=self.folder, **_as_other()
            )
        self._await_answer()

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def settings(self) -> dict[str, Any]:
        """Of the plug-in, but for the password."""
        return {"host": "127.0.0.1", "port": self.port, "user": self.account}

    def named(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Settings of the plug-ins: ``main`` is right, a ``stranger`` has another password, and one is ``down``.
        Passwords lie in ``folder``."""
        right, wrong = (secret(folder / name, text) for name, text in (("right", self.password), ("wrong", "wrong")))
        given = self.settings
        return {
            "main": given | {"password": right},
            "stranger": given | {"password": wrong},
            "down": given | {"password": right, "port": 1},
        }

    def connect(self, database: str | None = None, **words: Any) -> Session:
        given = {"host": "127.0.0.1", "port": self.port, "user": self.account, "password": self.password}
        return pymysql.connect(**(given | {"database": database, "autocommit": True} | words))

    def do(self, *statements: str, database: str | None = None) -> list[Any]:
        """What the last one gives."""
        with closing(self.connect(database)) as session, session.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def databases(self) -> set[str]:
        return {name for (name,) in self.do("SHOW DATABASES")} - OWN

    def drop_all(self) -> None:
        for name in self.databases():
            self.do("DROP DATABASE `" + name.replace("`", "``") + "`")

    def leftovers(self) -> list[str]:
        """Databases under names of ours, locks, and sessions that dump."""
        names = [name for name in self.databases() if name.startswith("snappy")]
        own = "SELECT INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon'"
        return names + [str(info) for (info,) in self.do(own)]

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _await_answer(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.socket)
                return
            except OSError:
                alive = self._process and self._process.poll() is None
                if time.monotonic() > end or not alive:
                    raise AssertionError(self.log()) from None
                time.sleep(0.05)


class Ledger:
    """Accounts whose sum stays as it is, however often something is transferred; half of them may be in another
    database."""

    def __init__(self, server: MariaDb, database: str) -> None:
        self.server, self.database = server, database

    def make(self, filler: int) -> None:
        """In a new database, with so many bytes beside that hardly compress."""
        self.server.do(f"CREATE DATABASE `{self.database}`")
        self.server.do(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) ENGINE=InnoDB",
            "CREATE TABLE transfer (id bigint AUTO_INCREMENT PRIMARY KEY, source int, goal int) ENGINE=InnoDB",
            f"INSERT INTO account SELECT seq, {EACH} FROM seq_1_to_{ACCOUNTS}",
            "CREATE TABLE filler (id int PRIMARY KEY, bytes longblob) ENGINE=InnoDB",
            f"INSERT INTO filler SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_{max(1, filler // 1000)}",
            database=self.database,
        )

    def change(self, share: float) -> None:
        """Rows that lie together, as those of a day do."""
        ((rows,),) = self.server.do("SELECT COUNT(*) FROM filler", database=self.database)
        changed = "CONCAT(UNHEX(SHA2(bytes, 256)), SUBSTR(bytes, 33))"
        self.server.do(
            f"UPDATE filler SET bytes = {changed} WHERE id <= {max(1, int(rows * share))}", database=self.database
        )

    @contextmanager
    def writing(self, goal: str = "") -> Iterator[Callable[[], int]]:
        """Transfers as fast as it goes, to accounts of another database if one is named; the value says how many were
        done."""
        over, done = threading.Event(), [0]

        def transfer() -> None:
            chance = random.Random(1)
            with (
                suppress(pymysql.err.OperationalError),
                closing(self.server.connect(self.database, autocommit=False)) as session,
                session.cursor() as cursor,
            ):
                while not over.is_set():
                    pair = chance.sample(range(1, ACCOUNTS + 1), 2)
                    cursor.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", pair[:1])
                    cursor.execute(
                        f"UPDATE `{goal or self.database}`.account SET balance = balance + 1 WHERE id = %s", pair[1:]
                    )
                    cursor.execute("INSERT INTO transfer (source, goal) VALUES (%s, %s)", pair)
                    session.commit()
                    done[0] += 1

        thread = threading.Thread(target=transfer)
        thread.start()
        try:
            yield lambda: done[0]
        finally:
            over.set()
            thread.join()

    def sum(self) -> int:
        return int(self.server.do("SELECT SUM(balance) FROM account", database=self.database)[0][0])

    def check(self) -> None:
        """The sum holds, and each account is what the transfers made of it."""
        ((accounts,),) = self.server.do("SELECT COUNT(*) FROM account", database=self.database)
        assert (accounts, self.sum()) == (ACCOUNTS, ACCOUNTS * EACH)
        wrong = self.server.do(
            f"""SELECT id FROM account a WHERE balance <> {EACH}
                + (SELECT COUNT(*) FROM transfer WHERE goal = a.id)
                - (SELECT COUNT(*) FROM transfer WHERE source = a.id)""",
            database=self.database,
        )
        assert wrong == []

    def content(self) -> dict[str, Any]:
        """A checksum of each table."""
        tables = ("account", "transfer", "filler")
        return {table: self.server.do(f"CHECKSUM TABLE {table}", database=self.database)[0][1] for table in tables}


def secret(path: Path, text: str) -> dict[str, str]:
    """The setting of a password that lies there."""
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}


def _unprivileged() -> tuple[int, int]:
    if os.geteuid():
        return os.geteuid(), os.getegid()
    found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _as_other() -> dict[str, Any]:
    if os.geteuid():
        return {}
    user, group = _unprivileged()
    return {"user": user, "group": group, "extra_groups": []}
