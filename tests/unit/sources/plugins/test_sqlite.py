"""What is special about SQLite: journals, patterns and symlinks, damage, and what stands where one is restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import Damaged, SourceError, SourceMissing, SourceUnavailable, UnsafePath
from snappy.repository.entries import Entry, Node
from snappy.sources.plugins import sqlite_copy
from snappy.sources.plugins.sqlite import SqliteOptions, SqliteSource
from snappy.sources.plugins.sqlite_copy import Database
from snappy.sources.plugins.sqlite_sink import SqliteSink
from snappy.sources.site import Site


def make(path: Path, journal: str = "delete", rows: int = 3) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"pragma journal_mode = {journal}")
    database.execute("create table t (x)")
    database.execute("begin")
    database.executemany("insert into t values (?)", [(os.urandom(1000),)] * rows)
    database.execute("commit")
    return database


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("select count(*) from t").fetchone()[0])


def copied(path: Path, to: Path) -> int:
    database = Database(os.fsencode(path))
    database.open()
    database.pin()
    database.copy(os.fsencode(to), threading.Event())
    return rows(to)


async def exported(tmp_path: Path, *paths: str) -> dict[str, Entry]:
    source = SqliteSource(SqliteOptions(paths=paths), Site("site", work=str(tmp_path / "work")))
    async with source.snap() as frozen:
        return {os.fsdecode(entry.path): entry for entry in source.export(frozen)}


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_what_is_only_in_the_write_ahead_log_is_copied(tmp_path: Path) -> None:
    with closing(make(tmp_path / "a.db", "wal")) as writer:
        assert (tmp_path / "a.db-wal").stat().st_size > 0
        assert copied(tmp_path / "a.db", tmp_path / "copy") == 3
        writer.execute("delete from t")


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_what_a_crash_left_is_recovered(tmp_path: Path, journal: str) -> None:
    """The files of a database amid a transaction, as a killed program leaves them."""
    with closing(make(tmp_path / "a.db", journal)) as writer:
        writer.execute("pragma cache_size = 1")
        writer.execute("begin")
        writer.executemany("insert into t values (?)", [(os.urandom(1000),)] * 100)
        (tmp_path / "crashed").mkdir()
        for path in tmp_path.glob("a.db*"):
            if not path.name.endswith("-shm"):
                shutil.copy(path, tmp_path / "crashed" / path.name)
        writer.execute("rollback")
    assert len(list((tmp_path / "crashed").iterdir())) == 2
    assert copied(tmp_path / "crashed" / "a.db", tmp_path / "copy") == 3


def test_a_pinned_database_is_copied_as_it_was_then(tmp_path: Path) -> None:
    with closing(make(tmp_path / "a.db", "wal")) as writer:
        database = Database(os.fsencode(tmp_path / "a.db"))
        database.open()
        database.pin()
        writer.execute("insert into t values (1)")
        database.copy(os.fsencode(tmp_path / "copy"), threading.Event())
    assert rows(tmp_path / "copy") == 3


def test_who_writes_faster_than_is_copied_waits_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_copy, "STEP_PAGES", 1)
    over, written = threading.Event(), [3]

    def write() -> None:
        with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None, timeout=30)) as database:
            while not over.is_set():
                database.execute("insert into t values (1)")
                written[0] += 1

    make(tmp_path / "a.db", rows=2000).close()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert copied(tmp_path / "a.db", tmp_path / "copy") >= 2000
    finally:
        over.set()
        writer.join()
    assert written[0] > 3
    assert sqlite_copy.fault(os.fsencode(tmp_path / "copy"), "full") == ""


def test_a_database_that_stays_locked_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_copy, "PATIENCE", 0.2)
    with closing(make(tmp_path / "a.db")) as writer:
        writer.execute("begin exclusive")
        with pytest.raises(SourceUnavailable, match="locked"):
            copied(tmp_path / "a.db", tmp_path / "copy")


def test_a_copy_that_is_interrupted_ends(tmp_path: Path) -> None:
    make(tmp_path / "a.db").close()
    database, over = Database(os.fsencode(tmp_path / "a.db")), threading.Event()
    database.open()
    over.set()
    with pytest.raises(SourceError, match="interrupted"):
        database.copy(os.fsencode(tmp_path / "copy"), over)
    database.close()


# ---- what is found ---------------------------------------------------------------------------------------------------


async def test_databases_are_found_by_pattern_and_by_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.db", "in/deep/b.db", "in/.hidden"):
        make(tmp_path / name).close()
    (tmp_path / "in" / "c.db").write_text("no database")
    found = await exported(tmp_path, f"{tmp_path}/in/**/*", f"{tmp_path}/in/a.db")
    files = [path for path, entry in found.items() if entry.node.type == "file"]
    assert files == [f"{tmp_path}/in/{name}" for name in (".hidden", "a.db", "deep/b.db")]
    assert all(entry.warning == "" for entry in found.values())


async def test_a_file_keeps_its_mode_and_its_folders_theirs(tmp_path: Path) -> None:
    make(tmp_path / "a.db").close()
    (tmp_path / "a.db").chmod(0o640)
    tmp_path.chmod(0o711)
    found = await exported(tmp_path, f"{tmp_path}/a.db")
    assert (found[f"{tmp_path}/a.db"].node.mode, found[str(tmp_path)].node.mode) == (0o640, 0o711)


async def test_no_symlink_leads_out_of_what_was_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "secret.db").close()
    make(tmp_path / "in" / "a.db").close()
    (tmp_path / "in" / "link.db").symlink_to(tmp_path / "out" / "secret.db")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "out")
    found = await exported(tmp_path, f"{tmp_path}/in/*.db", f"{tmp_path}/in/*/*.db")
    refused = {path.rpartition("/")[2]: entry.error for path, entry in found.items() if entry.error}
    assert set(refused) == {"link.db", "secret.db"}
    assert "a symlink on the way leads to" in refused["link.db"]
    with pytest.raises(UnsafePath):
        await exported(tmp_path, f"{tmp_path}/in/link.db")


def test_the_claim_of_a_pattern_is_the_folder_that_all_matches_lie_in(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    options = SqliteOptions(paths=(f"{tmp_path}/link/*/a.db", f"{tmp_path}/x/../y.db"))
    assert SqliteSource(options, Site()).claims() == ["/etc", f"{tmp_path}/y.db"]


async def test_nothing_to_back_up_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing):
        await exported(tmp_path, f"{tmp_path}/*.db")


async def test_a_damaged_database_is_backed_up_with_a_warning(tmp_path: Path) -> None:
    make(tmp_path / "a.db", rows=100).close()
    with (tmp_path / "a.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096)
    found = await exported(tmp_path, f"{tmp_path}/a.db")
    assert "SQLite's check of it says" in found[f"{tmp_path}/a.db"].warning


async def test_what_a_pattern_meets_and_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path) -> None:
    make(tmp_path / "good.db").close()
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    found = await exported(tmp_path, f"{tmp_path}/*.db")
    assert (found[f"{tmp_path}/good.db"].error, found[f"{tmp_path}/bad.db"].node.type) == ("", "irregular")
    assert "cannot be read" in found[f"{tmp_path}/bad.db"].error
    with pytest.raises(SourceError, match=r"bad\.db cannot be read"):
        await exported(tmp_path, f"{tmp_path}/bad.db")


# ---- restores --------------------------------------------------------------------------------------------------------


def restore(place: Path, data: bytes, **more: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield data[:100]
        yield data[100:]

    with closing(SqliteSink(os.fsencode(place), **{"overwrite": False, "check": "quick", **more})) as sink:
        sink.receive(b"/deep/a.db", Node(name=b"a.db", type="file", mode=0o640, size=len(data)), pieces())
        sink.finish()


@pytest.fixture
def image(tmp_path: Path) -> bytes:
    make(tmp_path / "image").close()
    return (tmp_path / "image").read_bytes()


def test_what_stands_there_is_replaced_only_if_asked_for(tmp_path: Path, image: bytes) -> None:
    restore(tmp_path / "back", image)
    with pytest.raises(SourceError, match="stands there already"):
        restore(tmp_path / "back", image)
    restored = tmp_path / "back" / "deep" / "a.db"
    assert restored.stat().st_mode & 0o777 == 0o640
    (restored.parent / "a.db-wal").write_bytes(b"of another database")
    (restored.parent / ".snappy-unfinished-a.db").write_bytes(b"of a dead restore")
    restore(tmp_path / "back", image, overwrite=True)
    assert os.listdir(restored.parent) == ["a.db"]
    assert rows(restored) == 3


def test_a_restore_that_fails_leaves_what_was_there(tmp_path: Path, image: bytes) -> None:
    restore(tmp_path / "back", image)
    with pytest.raises(Damaged, match="not put in place"):
        restore(tmp_path / "back", image[:5000] + b"\xff" * 100, overwrite=True)
    assert os.listdir(tmp_path / "back" / "deep") == ["a.db"]
    assert (tmp_path / "back" / "deep" / "a.db").read_bytes() == image


def test_no_symlink_leads_a_restore_elsewhere(tmp_path: Path, image: bytes) -> None:
    (tmp_path / "back").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "back" / "deep").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafePath):
        restore(tmp_path / "back", image)
    assert os.listdir(tmp_path / "elsewhere") == []
