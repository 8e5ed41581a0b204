"""A real MariaDB server, and a ledger in it."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql

from tests.support.database_server import ACCOUNTS, EACH, START_SECONDS, DatabaseServer
from tests.support.database_server import Ledger as AnyLedger

OWN = {"information_schema", "performance_schema", "sys", "mysql"}
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


class MariaDb(DatabaseServer):
    """A server; its programs are those in PATH."""

    account = "snappy"
    runs_as = "nobody"
    end_signal = signal.SIGKILL

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.password = f"""p"a'#\\ {secrets.token_hex(8)}"""

    def create(self) -> None:
        """A copy of one that is made once."""
        new = self.folder / "new"
        if not new.exists():
            wanted, self.data = self.data, new
            self._install()
            self.data = wanted
        subprocess.run(["cp", "--archive", new, self.data], check=True)

    def _install(self) -> None:
        words = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db", "--skip-log-bin"]
        words += ["--auth-root-authentication-method=normal", "--innodb-flush-method=nosync"]
        self._run(*words, "--innodb-log-file-size=16M", f"--tmpdir={self.folder}")
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

    def _command(self) -> Sequence[str]:
        words = ["mariadbd", "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", *QUICK]
        words.append(f"--tmpdir={self.folder}")  # a server that starts removes what others keep in theirs
        return [*words, f"--socket={self.socket}", f"--pid-file={self.folder / 'pid'}"]

    @property
    def socket(self) -> str:
        return str(self.folder / "socket")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return not probe.connect_ex(self.socket)

    @property
    def settings(self) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": self.port, "user": self.account}

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


class Ledger(AnyLedger[MariaDb]):
    lost = pymysql.err.OperationalError

    def make(self, filler: int) -> None:
        self.server.do(f"CREATE DATABASE `{self.database}`")
        self.do(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) ENGINE=InnoDB",
            "CREATE TABLE transfer (id bigint AUTO_INCREMENT PRIMARY KEY, source int, goal int) ENGINE=InnoDB",
            f"INSERT INTO account SELECT seq, {EACH} FROM seq_1_to_{ACCOUNTS}",
            "CREATE TABLE filler (id int PRIMARY KEY, bytes longblob) ENGINE=InnoDB",
            f"INSERT INTO filler SELECT seq, RANDOM_BYTES(1000) FROM seq_1_to_{max(1, filler // 1000)}",
        )

    def change(self, share: float) -> None:
        """Rows that lie together, as those of a day do; and one at the beginning is removed."""
        ((rows,),) = self.do("SELECT COUNT(*) FROM filler")
        changed = "CONCAT(UNHEX(SHA2(bytes, 256)), SUBSTR(bytes, 33))"
        self.do(
            f"UPDATE filler SET bytes = {changed} WHERE id <= {max(1, int(rows * share))}",
            "DELETE FROM filler ORDER BY id LIMIT 1",
        )

    def do(self, *statements: str) -> list[Any]:
        return self.server.do(*statements, database=self.database)

    def _session(self) -> Session:
        return self.server.connect(self.database, autocommit=False)

    def _transfer(self, session: Session, source: int, goal: int, database: str) -> None:
        with session.cursor() as cursor:
            cursor.execute("UPDATE account SET balance = balance - 1 WHERE id = %s", (source,))
            cursor.execute(f"UPDATE `{database}`.account SET balance = balance + 1 WHERE id = %s", (goal,))
            cursor.execute("INSERT INTO transfer (source, goal) VALUES (%s, %s)", (source, goal))
        session.commit()

    def content(self) -> dict[str, Any]:
        return {table: self.do(f"CHECKSUM TABLE {table}")[0][1] for table in ("account", "transfer", "filler")}
