"""The plug-in ``sqlite`` in the contract: two ledgers whose sums must hold, one in WAL mode and one with a rollback
journal, each with an entry for every transfer."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.source_contract import Ground, Refused, SourceContract

JOURNALS = {"wal.db": "wal", "rollback.db": "delete"}
ACCOUNTS = 100
BALANCE = 1000
ROW = 4000
SCHEMA = """
create table accounts (id integer primary key, balance integer not null);
create table entries (id integer primary key, source integer, destination integer, amount integer);
create table filler (id integer primary key, noise blob);
"""


class SqliteGround:
    plugin = "sqlite"
    changes_share = 0.3
    works_in_folder = True

    def __init__(self, folder: Path) -> None:
        self._data, self._back = folder / "data", folder / "back"
        self._random = random.Random(1)

    def settings(self) -> dict[str, dict[str, Any]]:
        return {}

    def options(self) -> dict[str, Any]:
        return {"paths": [f"{self._data}/**/*.db"], "check": "full"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"to": str(self._back) if other else "/"}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"to": str(folder)}

    def fill(self, size: int) -> None:
        for name, journal in JOURNALS.items():
            with closing(sqlite3.connect(self._data / name)) as database, database:
                database.execute(f"pragma journal_mode = {journal}")
                database.executescript(SCHEMA)
                database.executemany("insert into accounts values (?, ?)", [(n, BALANCE) for n in range(ACCOUNTS)])
                noise = ((n, self._random.randbytes(ROW)) for n in range(size // ROW // len(JOURNALS)))
                database.executemany("insert into filler values (?, ?)", noise)

    def change(self, share: float) -> None:
        for name in JOURNALS:
            with closing(sqlite3.connect(self._data / name)) as database, database:
                (rows,) = database.execute("select count(*) from filler").fetchone()
                noise = ((self._random.randbytes(ROW), n) for n in range(int(rows * share)))
                database.executemany("update filler set noise = ? where id = ?", noise)

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        over, counts = threading.Event(), dict.fromkeys(JOURNALS, 0)

        def write(name: str) -> None:
            chance = random.Random(name)
            with closing(sqlite3.connect(self._data / name, timeout=60)) as database:
                while not over.is_set():
                    transfer(database, chance.randrange(ACCOUNTS), chance.randrange(ACCOUNTS), chance.randrange(9))
                    counts[name] += 1

        writers = [threading.Thread(target=write, args=(name,)) for name in JOURNALS]
        for writer in writers:
            writer.start()
        try:
            yield lambda: min(counts.values())
        finally:
            over.set()
            for writer in writers:
                writer.join()

    def wipe(self) -> None:
        for folder in (self._data, self._back):
            shutil.rmtree(folder, ignore_errors=True)
        self._data.mkdir()

    def check(self, other: bool) -> None:
        for path in self._databases(other):
            with closing(sqlite3.connect(path)) as database:
                assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
                balances = dict(database.execute("select id, balance from accounts"))
                for source, destination, amount in database.execute("select source, destination, amount from entries"):
                    balances[source] += amount
                    balances[destination] -= amount
                assert set(balances.values()) == {BALANCE}
                assert database.execute("select count(*) from filler").fetchone()[0] > 0

    def content(self, other: bool) -> Any:
        found = []
        for path in self._databases(other):
            with closing(sqlite3.connect(path)) as database:
                found.append(list(database.iterdump()))
        return found

    def leftovers(self) -> list[str]:
        return [str(path) for folder in (self._data, self._back) for path in folder.rglob(".snappy*")]

    def refused(self) -> Sequence[Refused]:
        (self._data / "text").write_text("no database")
        (self._data / "linked.db").symlink_to(self._data / "wal.db")
        return [
            Refused("a database that there is not", "source-missing", {"paths": [str(self._data / "no.db")]}),
            Refused("a pattern without a match", "source-missing", {"paths": [f"{self._data}/*/no.db"]}),
            Refused("a file that is none", "source", {"paths": [str(self._data / "text")]}),
            Refused("a symlink", "unsafe-path", {"paths": [str(self._data / "linked.db")]}),
            Refused("a URL", "bad-options", {"paths": ["s3://bucket/x.db"]}),
            Refused("what stands there", "source", {"to": "/"}, "restore"),
        ]

    def _databases(self, other: bool) -> list[Path]:
        folder = self._back / self._data.relative_to("/") if other else self._data
        return [folder / name for name in JOURNALS]


def transfer(database: sqlite3.Connection, source: int, destination: int, amount: int) -> None:
    with database:
        database.execute("update accounts set balance = balance - ? where id = ?", (amount, source))
        database.execute("update accounts set balance = balance + ? where id = ?", (amount, destination))
        entry = (source, destination, amount)
        database.execute("insert into entries (source, destination, amount) values (?, ?, ?)", entry)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return SqliteGround(tmp_path_factory.mktemp("sqlite"))


class TestSqlite(SourceContract):
    """All that is asked of it."""
