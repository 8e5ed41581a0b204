"""What real database servers of the tests have in common: a process of a user who is not root, on a free port of the
loopback, and a ledger."""

from __future__ import annotations

import os
import pwd
import random
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from tests.support.background import repeated
from tests.support.mortal import die_with_parent
from tests.support.ports import held_ports

START_SECONDS = 60.0
ACCOUNTS = 100
EACH = 1000


def secret(path: Path, text: str) -> dict[str, str]:
    """The setting of a password that lies there."""
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}


class DatabaseServer(ABC):
    """A server. ``account`` may do everything, by ``password``."""

    account: ClassVar[str]
    runs_as: ClassVar[str]
    end_signal: ClassVar[signal.Signals]
    """Ends it at once, as a crash would."""
    password: str

    def __init__(self, folder: Path, port: int) -> None:
        self.port, self.folder = port, folder
        self.data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextmanager
    def running(cls, *given: Any, **settings: str) -> Iterator[Self]:
        """One with no databases but those that each has."""
        with held_ports(1) as (port,), tempfile.TemporaryDirectory(prefix=f"snappy-{cls.__name__}-") as folder:
            os.chown(folder, *cls._user())
            server = cls(Path(folder), port, *given, **settings)
            server.create()
            server.start()
            try:
                yield server
            finally:
                server.stop()

    @abstractmethod
    def create(self) -> None:
        """The data folder."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """What runs on it."""

    @abstractmethod
    def _answers(self) -> bool: ...

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Of the plug-ins, but for the password."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """What a job of ours has not removed."""

    @abstractmethod
    def drop_all(self) -> None:
        """All databases but those that each server has."""

    def start(self, data: Path | None = None) -> None:
        """Also on another data folder, which becomes this server's."""
        self.data = data or self.data
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, preexec_fn=die_with_parent, cwd=self.folder, **self._as_user()
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise AssertionError(self.log())
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, as a crash would."""
        if self._process:
            self._process.send_signal(self.end_signal)
            self._process.wait(30)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

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

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _run(self, *words: str | Path) -> None:
        done = subprocess.run(words, capture_output=True, check=False, cwd=self.folder, **self._as_user())
        assert done.returncode == 0, done.stderr.decode()

    @classmethod
    def _user(cls) -> tuple[int, int]:
        if os.geteuid():
            return os.geteuid(), os.getegid()
        found = pwd.getpwnam(cls.runs_as)
        return found.pw_uid, found.pw_gid

    @classmethod
    def _as_user(cls) -> dict[str, Any]:
        if os.geteuid():
            return {}
        user, group = cls._user()
        return {"user": user, "group": group, "extra_groups": []}


Server = TypeVar("Server", bound=DatabaseServer)


class Ledger(ABC, Generic[Server]):
    """Accounts in a database whose sum stays as it is, however often something is transferred; half of them may be in
    another database."""

    lost: ClassVar[type[Exception]]
    """What a transfer raises when its session is gone."""

    def __init__(self, server: Server, database: str) -> None:
        self.server, self.database = server, database

    @abstractmethod
    def make(self, filler: int) -> None:
        """In a new database, with so many bytes beside that hardly compress."""

    @abstractmethod
    def do(self, *statements: str) -> list[Any]:
        """What the last one gives."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """A digest of each table."""

    @abstractmethod
    def _session(self) -> Any: ...

    @abstractmethod
    def _transfer(self, session: Any, source: int, goal: int, database: str) -> None:
        """From one account to another, which may be in another database."""

    @contextmanager
    def writing(self, goal: str = "") -> Iterator[Callable[[], int]]:
        """Transfers as fast as it goes, to accounts of another database if one is named; the value says how many were
        done."""
        chance = random.Random(1)

        def transfer(_: int) -> None:
            source, other = chance.sample(range(1, ACCOUNTS + 1), 2)
            self._transfer(session, source, other, goal or self.database)

        with closing(self._session()) as session, repeated(transfer, until=self.lost) as done:
            yield done

    def sum(self) -> int:
        return int(self.do("SELECT sum(balance) FROM account")[0][0])

    def check(self) -> None:
        """The sum holds, and each account is what the transfers made of it."""
        ((accounts,),) = self.do("SELECT count(*) FROM account")
        assert (accounts, self.sum()) == (ACCOUNTS, ACCOUNTS * EACH)
        wrong = self.do(
            f"""SELECT id FROM account a WHERE balance <> {EACH}
                + (SELECT count(*) FROM transfer WHERE goal = a.id)
                - (SELECT count(*) FROM transfer WHERE source = a.id)"""
        )
        assert wrong == []
