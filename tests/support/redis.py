"""A real Redis server on a free port of the loopback, with pairs of keys that are always written together."""

from __future__ import annotations

import random
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Self

from snappy.sources.plugins.redis_server import Session, facts
from tests.support.background import repeated
from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

PAIRS = 100
FILLER = 64 << 10
START_SECONDS = 30.0
QUICK = ("--save", "", "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes")


class Redis:
    """A running server. ``admin`` may do everything, with ``password``."""

    def __init__(self, folder: Path, port: int, words: Sequence[str] = ()) -> None:
        self.folder, self.port, self._words = folder, port, words
        self.password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, *words: str) -> Iterator[Self]:
        """One that is empty. ``words`` are further settings, as the server's arguments."""
        with cls.prepared(*words) as server:
            server.start()
            yield server

    @classmethod
    @contextmanager
    def prepared(cls, *words: str) -> Iterator[Self]:
        """The same, to be started later."""
        with held_ports(1) as (port,), tempfile.TemporaryDirectory(prefix="snappy-redis-") as folder:
            server = cls(Path(folder) / "data", port, words)
            server.folder.mkdir()
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--logfile", "log"]
        users = self.folder.parent / "users.acl"
        users.write_text(f"user default off\nuser admin on >{self.password} ~* &* +@all\n")
        words += ["--aclfile", str(users), *QUICK, *self._words]
        self._process = subprocess.Popen(["redis-server", *words], cwd=self.folder, preexec_fn=die_with_parent)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with closing(self.session()) as session:
                    if facts(session, "persistence")["loading"] == "0":
                        return
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise AssertionError((self.folder / "log").read_text()) from None
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None

    def named(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Settings of the plug-in: ``main`` is right, a ``stranger`` has another password, and one is ``down``.
        Passwords lie in ``folder``."""
        right, wrong = (_secret(folder / name, text) for name, text in (("right", self.password), ("wrong", "wrong")))
        given = {"port": self.port, "user": "admin"}
        return {
            "main": given | {"password": right},
            "stranger": given | {"password": wrong},
            "down": given | {"password": right, "port": 1},
        }

    def session(self, database: int = 0) -> Session:
        session = Session(socket.create_connection(("127.0.0.1", self.port)), 30)
        session.ask("AUTH", "admin", self.password)
        session.ask("SELECT", database)
        return session

    def do(self, *commands: Sequence[str | bytes | int], database: int = 0) -> list[Any]:
        """The answers."""
        with closing(self.session(database)) as session:
            return session.ask_all(commands)

    def leftovers(self) -> list[str]:
        """Keys under names of ours, replicas, sessions."""
        with closing(self.session()) as session:
            found = [f"replica {name}" for name in facts(session, "replication") if name.startswith("slave0")]
            lines = session.ask("CLIENT", "LIST").decode().splitlines()
            found += [line for line in lines if " name=snappy" in line]
            for database in facts(session, "keyspace"):
                session.ask("SELECT", database.removeprefix("db"))
                found += map(str, session.ask("KEYS", "snappy*"))
        return found


class Pairs:
    """Keys of a database of which two each are written in one transaction, beside filler that hardly compresses."""

    def __init__(self, server: Redis, database: int) -> None:
        self._server, self._database = server, database
        self._random = random.Random(1)

    def make(self, filler: int) -> None:
        count = max(2, filler // FILLER)
        self._write_filler(count)
        self._server.do(("SET", "count", count), *map(self._pair, range(PAIRS)), database=self._database)

    def change(self, share: float) -> None:
        self._write_filler(int(len(self._keys("filler:*")) * share) or 1)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        """As fast as one client can; the value says how many pairs were written."""
        return _held(self._server.session(self._database), self._transfer)

    def check(self) -> None:
        first, second = (self._values(name) for name in ("first", "second"))
        assert len(first) == PAIRS
        assert first == second
        (count,) = self._server.do(("GET", "count"), database=self._database)
        assert len(self._keys("filler:*")) == int(count)

    def content(self) -> dict[bytes, bytes]:
        keys = sorted(self._keys("*"))
        return dict(zip(keys, self._server.do(*(("DUMP", key) for key in keys), database=self._database), strict=True))

    def _transfer(self, session: Session, number: int) -> None:
        one, value = number % PAIRS, f"{number}"
        session.ask_all([("MULTI",), ("SET", f"first:{one}", value), ("SET", f"second:{one}", value), ("EXEC",)])

    def _pair(self, number: int) -> Sequence[str | int]:
        return ("MSET", f"first:{number}", "", f"second:{number}", "")

    def _write_filler(self, count: int) -> None:
        commands = (("SET", f"filler:{number}", self._random.randbytes(FILLER)) for number in range(count))
        self._server.do(*commands, database=self._database)

    def _keys(self, pattern: str) -> list[bytes]:
        return list(self._server.do(("KEYS", pattern), database=self._database)[0])

    def _values(self, name: str) -> list[bytes]:
        keys = [f"{name}:{number}" for number in range(PAIRS)]
        found = self._server.do(("MGET", *keys), database=self._database)[0]
        return [value for value in found if value is not None]


@contextmanager
def _held(session: Session, work: Callable[[Session, int], None]) -> Iterator[Callable[[], int]]:
    with closing(session), repeated(lambda number: work(session, number)) as done:
        yield done


def _secret(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}
