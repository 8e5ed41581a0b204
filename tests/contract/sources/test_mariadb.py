"""What is MariaDB's own, with a real server: one moment of several databases, what moves with a database and what has
to be made anew, accounts, and who stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from snappy.errors import BadOptions, Damaged, JobCancelled, SourceDenied, SourceError, SourceMissing, SourceUnavailable
from snappy.repository.entries import Node
from snappy.sources import programs
from snappy.sources.databases import Names
from snappy.sources.plugins.mariadb import MariaDbOptions, MariaDbSource
from snappy.sources.plugins.mariadb_sink import DatabaseSink, MariaDbRestore
from tests.support.database_server import ACCOUNTS, EACH, secret
from tests.support.mariadb import Ledger, MariaDb
from tests.support.plugin_jobs import Jobs

pytestmark = pytest.mark.mariadb

MIB = 1 << 20
PLACE = b"/mariadb/main/databases/shop/tables.sql"
NODE = Node(name=b"tables.sql", type="file")
SHOP = (
    "CREATE DATABASE shop CHARACTER SET latin2 COLLATE latin2_czech_cs",
    "USE shop",
    "CREATE TABLE parent (id int PRIMARY KEY) ENGINE=InnoDB",
    "CREATE TABLE child (id int PRIMARY KEY, p int, FOREIGN KEY (p) REFERENCES parent (id)) ENGINE=InnoDB",
    "CREATE TABLE log (text text) ENGINE=InnoDB",
    "INSERT INTO parent VALUES (1), (2)",
    "INSERT INTO child VALUES (1, 1)",
    "CREATE TRIGGER seen AFTER INSERT ON child FOR EACH ROW INSERT INTO log VALUES ('a\\r\\nb')",
    "CREATE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN 2 * x",
    "CREATE PROCEDURE ask() BEGIN SELECT ';;'; END",
    "CREATE EVENT sweep ON SCHEDULE EVERY 1 DAY DO DELETE FROM log",
    "CREATE VIEW basis AS SELECT id, twice(id) AS twice FROM parent",
    "CREATE VIEW above AS SELECT * FROM basis",
    "CREATE SEQUENCE counter START WITH 5",
    "SELECT NEXTVAL(counter)",
)
"""A view whose name comes before that of the one it asks, and all that no server moves to another database."""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDb]:
    with MariaDb.running() as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(server: MariaDb) -> None:
    server.drop_all()


@pytest.fixture
def jobs(tmp_path: Path, server: MariaDb) -> Jobs:
    return Jobs(tmp_path, "mariadb", server.named(tmp_path))


async def test_transfers_between_two_databases_are_in_both_or_in_none(server: MariaDb, jobs: Jobs) -> None:
    giving, taking = Ledger(server, "giving"), Ledger(server, "taking")
    giving.make(MIB)
    taking.make(MIB)
    with giving.writing(goal="taking") as written:
        before = written()
        made = await jobs.backup(server="main")
        assert written() > before
    assert made.warnings == []
    await jobs.restore(server="main", databases={"giving": "giving 2", "taking": "taking 2"})
    sums = [Ledger(server, name).sum() for name in ("giving 2", "taking 2")]
    assert sum(sums) == 2 * ACCOUNTS * EACH
    assert sums[0] < ACCOUNTS * EACH
    assert (server.leftovers(), jobs.leftovers()) == ([], [])


async def test_one_by_one_each_database_is_whole(server: MariaDb, jobs: Jobs) -> None:
    ledger = Ledger(server, "bank")
    ledger.make(MIB)
    with ledger.writing():
        await jobs.backup(server="main", databases=["bank"], together=False)
    await jobs.restore(server="main", databases={"bank": "other"})
    Ledger(server, "other").check()


def _shop(server: MariaDb, database: str) -> list[Any]:
    """What there is of it, and whether it works."""
    server.do("INSERT INTO child VALUES (9, 2)", database=database)
    found = [
        server.do("SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()",
                  database=database),
        server.do("SELECT * FROM log", database=database),
        server.do("SELECT * FROM above ORDER BY id", database=database),
        server.do("CALL ask()", database=database),
        server.do("SELECT EVENT_NAME, STATUS FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()",
                  database=database),
        server.do("SELECT NEXTVAL(counter) > 5", database=database),
    ]  # fmt: skip
    with pytest.raises(Exception, match="foreign key"):
        server.do("DELETE FROM parent WHERE id = 1", database=database)
    return found


async def test_all_of_a_database_comes_back_under_its_name_and_another(server: MariaDb, jobs: Jobs) -> None:
    server.do(*SHOP)
    made = await jobs.backup(server="main", databases=["shop"])
    assert made.warnings == []
    back = await jobs.restore(server="main", databases={"shop": "shöp `2` 100%s"})
    assert back.warnings == []
    before = _shop(server, "shop")
    assert before[1] == [("a\r\nb",)]
    assert _shop(server, "shöp `2` 100%s") == before
    await jobs.restore(server="main", overwrite=True)
    assert _shop(server, "shop") == before
    assert server.leftovers() == []


async def test_a_definition_that_names_its_database_leaves_nothing_half_under_another_name(
    server: MariaDb, jobs: Jobs
) -> None:
    server.do(
        *SHOP, "CREATE TRIGGER shop.more AFTER INSERT ON shop.parent FOR EACH ROW INSERT INTO shop.log VALUES (1)"
    )
    await jobs.backup(server="main", databases=["shop"])
    with pytest.raises(SourceError, match=r"more") as raised:
        await jobs.restore(server="main", databases={"shop": "other"})
    assert raised.value.hint
    assert server.databases() == {"shop"}
    await jobs.restore(server="main", databases={"shop": "other"}, programs=False)
    assert server.do("SELECT COUNT(*) FROM other.child") == [(1,)]
    await jobs.restore(server="main", overwrite=True)
    server.do("INSERT INTO parent VALUES (3)", database="shop")
    assert server.do("SELECT text FROM shop.log") == [("1",)]


async def test_nothing_that_stands_there_is_replaced_unasked(server: MariaDb, jobs: Jobs) -> None:
    ledger = Ledger(server, "bank")
    ledger.make(1000)
    await jobs.backup(server="main", databases=["bank"])
    before = ledger.content()
    server.do("UPDATE account SET balance = 0", database="bank")
    for options in ({}, {"databases": {"bank": "bank"}}):
        with pytest.raises(BadOptions, match="something in it"):
            await jobs.restore(server="main", **options)
    assert ledger.sum() == 0
    await jobs.restore(server="main", overwrite=True)
    assert ledger.content() == before
    assert server.leftovers() == []


async def test_who_stands_in_the_way_is_waited_for_and_then_said(server: MariaDb, jobs: Jobs) -> None:
    ledger = Ledger(server, "bank")
    ledger.make(1000)
    await jobs.backup(server="main", databases=["bank"])
    with closing(server.connect("bank", autocommit=False)) as session, session.cursor() as cursor:
        cursor.execute("SELECT * FROM account")
        with pytest.raises(SourceUnavailable, match=r"[Ll]ock wait") as raised:
            await jobs.restore(server="main", overwrite=True, lock_seconds=1)
    assert raised.value.hint
    ledger.check()
    assert server.leftovers() == []


async def test_who_waits_for_what_others_have_locked_ends_with_the_job(server: MariaDb, jobs: Jobs) -> None:
    source = MariaDbSource(MariaDbOptions(server="main", lock_seconds=3600), jobs.site)

    async def interrupt() -> None:
        while "BACKUP STAGE START" not in await asyncio.to_thread(server.leftovers):
            await asyncio.sleep(0.05)
        source.interrupt()

    with closing(server.connect()) as session, session.cursor() as cursor:
        cursor.execute("BACKUP STAGE START")
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(interrupt())
            with pytest.raises(SourceError, match="interrupted"):
                async with source.snap():
                    pass
    assert (server.leftovers(), jobs.leftovers()) == ([], [])


async def test_tables_that_know_no_transactions_are_named(server: MariaDb, jobs: Jobs) -> None:
    server.do("CREATE DATABASE old", "CREATE TABLE old.isam (id int) ENGINE=MyISAM", "INSERT INTO old.isam VALUES (7)")
    made = await jobs.backup(server="main", databases=["old"])
    assert [(warning.path, "isam" in warning.message) for warning in made.warnings] == [
        ("/mariadb/main/databases/old/tables.sql", True)
    ]
    await jobs.restore(server="main", databases={"old": "new"})
    assert server.do("SELECT id FROM new.isam") == [(7,)]


async def test_accounts_and_roles_come_back(server: MariaDb, jobs: Jobs) -> None:
    server.do(
        "CREATE DATABASE shop",
        "CREATE ROLE `the clerks`",
        "CREATE TABLE shop.goods (id int) ENGINE=InnoDB",
        "CREATE PROCEDURE shop.ask() SELECT 1",
        "GRANT SELECT ON shop.* TO `the clerks`",
        "GRANT INSERT ON shop.goods TO `the clerks`",
        "GRANT EXECUTE ON PROCEDURE shop.ask TO `the clerks`",
        "CREATE USER 'it''s'@'127.0.0.%' IDENTIFIED BY 'inkpot'",
        "GRANT `the clerks` TO 'it''s'@'127.0.0.%'",
        "SET DEFAULT ROLE `the clerks` FOR 'it''s'@'127.0.0.%'",
    )
    await jobs.backup(server="main")
    before = server.do("SHOW GRANTS FOR `the clerks`")
    server.do("DROP DATABASE shop", "DROP USER 'it''s'@'127.0.0.%'", "DROP ROLE `the clerks`")
    back = await jobs.restore(server="main", users=True)
    assert back.warnings == []
    assert server.do("SHOW GRANTS FOR `the clerks`") == before
    with closing(server.connect("shop", user="it's", password="inkpot")) as session, session.cursor() as cursor:
        cursor.execute("SELECT CURRENT_ROLE()")
        assert cursor.fetchall() == (("the clerks",),)
    server.do("DROP USER 'it''s'@'127.0.0.%'", "DROP ROLE `the clerks`")


async def test_the_restores_own_account_keeps_its_password(server: MariaDb, jobs: Jobs, tmp_path: Path) -> None:
    Ledger(server, "bank").make(1000)
    server.do(
        "CREATE OR REPLACE USER keeper@'127.0.0.1' IDENTIFIED BY 'former'",
        "GRANT ALL PRIVILEGES ON *.* TO keeper@'127.0.0.1' WITH GRANT OPTION",
    )
    await jobs.backup(server="main")
    server.do("ALTER USER keeper@'127.0.0.1' IDENTIFIED BY 'inkpot'")
    settings = server.settings | {"user": "keeper", "password": secret(tmp_path / "keeper", "inkpot")}
    await Jobs(tmp_path, "mariadb", {"main": settings}).restore(server="main", users=True, overwrite=True)
    server.connect(user="keeper", password="inkpot").close()
    Ledger(server, "bank").check()
    server.do("DROP USER keeper@'127.0.0.1'")


def test_no_warning_tells_the_password_of_an_account(server: MariaDb, jobs: Jobs) -> None:
    users = {"`clerk`@`h`": ["CREATE USER clerk@h FLYING IDENTIFIED BY PASSWORD '*INKPOT'"]}
    with closing(MariaDbSource.import_(MariaDbRestore(server="main", users=True), (), jobs.site)) as sink:
        sink.receive(b"/mariadb/main/users.json", NODE, iter([msgspec.json.encode(users)]))
        (told,) = sink.finish()
    assert "clerk" in told
    assert "syntax" in told
    assert "INKPOT" not in told


async def test_rights_in_what_was_not_restored_are_told(server: MariaDb, jobs: Jobs) -> None:
    server.do("CREATE DATABASE shop", "CREATE TABLE shop.goods (id int)", "CREATE ROLE clerks")
    server.do("GRANT INSERT ON shop.goods TO clerks")
    await jobs.backup(server="main", exclude=["shop"])
    server.do("DROP DATABASE shop", "DROP ROLE clerks")
    back = await jobs.restore(server="main", users=True)
    server.do("DROP ROLE clerks")
    assert ["clerks" in warning.message and "goods" in warning.message for warning in back.warnings] == [True]


async def test_databases_that_lean_on_each_other_are_replaced(server: MariaDb, jobs: Jobs) -> None:
    server.do(
        "CREATE DATABASE above",
        "CREATE DATABASE basis",
        "CREATE TABLE basis.parent (id int PRIMARY KEY) ENGINE=InnoDB",
        "CREATE TABLE above.child (p int, FOREIGN KEY (p) REFERENCES basis.parent (id)) ENGINE=InnoDB",
        "INSERT INTO basis.parent VALUES (1)",
        "INSERT INTO above.child VALUES (1)",
    )
    await jobs.backup(server="main")
    for _ in range(2):
        await jobs.restore(server="main", overwrite=True)
        with pytest.raises(Exception, match="foreign key"):
            server.do("DELETE FROM basis.parent")
        server.do("DROP DATABASE above", "DROP DATABASE basis")
    assert server.leftovers() == []


async def test_rows_that_nobody_wants_stay_behind(server: MariaDb, jobs: Jobs) -> None:
    server.do(*SHOP)
    await jobs.backup(server="main", databases=["shop"], exclude_table_data=["shop.log"])
    await jobs.restore(server="main", databases={"shop": "other"})
    assert server.do("SELECT (SELECT COUNT(*) FROM log), (SELECT COUNT(*) FROM child)", database="other") == [(0, 1)]


async def test_an_account_that_may_too_little_is_told(server: MariaDb, jobs: Jobs, tmp_path: Path) -> None:
    Ledger(server, "bank").make(1000)
    server.do(
        "CREATE OR REPLACE USER weak@'127.0.0.1' IDENTIFIED BY 'inkpot'", "GRANT SELECT ON bank.* TO weak@'127.0.0.1'"
    )
    settings = server.settings | {"user": "weak", "password": secret(tmp_path / "weak", "inkpot")}
    weak = Jobs(tmp_path, "mariadb", {"main": settings})
    with pytest.raises(SourceDenied) as raised:
        await weak.backup(server="main", databases=["bank"])
    assert raised.value.hint
    server.do("DROP USER weak@'127.0.0.1'")
    assert (server.leftovers(), weak.leftovers()) == ([], [])


async def test_the_account_of_the_manual_may_enough(server: MariaDb, jobs: Jobs, tmp_path: Path) -> None:
    server.do(*SHOP)
    server.do(
        "CREATE OR REPLACE USER manual@'127.0.0.1' IDENTIFIED BY 'inkpot'",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE, LOCK TABLES, RELOAD, PROCESS, BINLOG MONITOR"
        " ON *.* TO manual@'127.0.0.1'",
    )
    settings = server.settings | {"user": "manual", "password": secret(tmp_path / "weak", "inkpot")}
    made = await Jobs(tmp_path, "mariadb", {"main": settings}).backup(server="main")
    assert made.warnings == []
    server.do("DROP USER manual@'127.0.0.1'")
    back = await jobs.restore(server="main", databases={"shop": "other"})
    assert back.warnings == []
    assert _shop(server, "other") == _shop(server, "shop")


async def test_a_job_that_is_cancelled_leaves_nothing(server: MariaDb, jobs: Jobs) -> None:
    Ledger(server, "bank").make(8 * MIB)
    with pytest.raises(JobCancelled):
        await jobs.backup(server="main", end_after=MIB)
    assert (server.leftovers(), jobs.leftovers()) == ([], [])
    await jobs.backup(server="main")
    with pytest.raises(JobCancelled):
        await jobs.restore(server="main", databases={"bank": "other"}, end_after=MIB)
    assert (server.leftovers(), jobs.leftovers()) == ([], [])
    assert server.databases() == {"bank"}


def opened(jobs: Jobs) -> AbstractContextManager[DatabaseSink]:
    return closing(MariaDbSource.import_(MariaDbRestore(server="main"), (), jobs.site))


@pytest.fixture
def sink(jobs: Jobs) -> Iterator[DatabaseSink]:
    with opened(jobs) as sink:
        yield sink


def test_a_dump_that_breaks_off_leaves_nothing(server: MariaDb, sink: DatabaseSink) -> None:
    def content() -> Iterator[bytes]:
        yield b"CREATE TABLE goods (id int);\nINSERT INTO goods VALUES (1);\nINSERT INTO goods VAL"
        raise Damaged("the rest is lost")

    with pytest.raises(Damaged):
        sink.receive(PLACE, NODE, content())
    sink.close()
    assert (server.databases(), server.leftovers()) == (set(), [])


def test_a_dump_that_ends_amid_a_statement_is_refused(server: MariaDb, sink: DatabaseSink) -> None:
    with pytest.raises(SourceError, match="syntax"):
        sink.receive(PLACE, NODE, iter([b"CREATE TABLE goods (id int);\nINSERT INTO goods VAL"]))
    sink.close()
    assert server.databases() == set()


def test_what_one_restore_makes_another_of_the_same_service_leaves_alone(
    server: MariaDb, sink: DatabaseSink, jobs: Jobs
) -> None:
    sink.receive(PLACE, NODE, iter([b"CREATE TABLE goods (id int);\n"]))
    (made,) = server.databases()
    with opened(jobs):
        assert server.databases() == {made}


def test_a_dump_runs_no_programs(server: MariaDb, sink: DatabaseSink, tmp_path: Path) -> None:
    for begun in ("system ", "\\! ", "\\T ", "tee "):
        with pytest.raises(SourceError):
            sink.receive(PLACE, NODE, iter([f"{begun}touch {tmp_path}/made\n;\n".encode()]))
    assert not (tmp_path / "made").exists()


async def test_what_a_dead_restore_left_goes_and_what_a_live_one_makes_stays(server: MariaDb, jobs: Jobs) -> None:
    Ledger(server, "bank").make(1000)
    await jobs.backup(server="main", databases=["bank"])
    dead, alive, foreign = Names("site").unfinished(), Names("site"), Names("elsewhere").unfinished()
    living = alive.unfinished()
    for name in (dead, living, foreign, "snappy_restore_mine"):
        server.do(f"CREATE DATABASE `{name}`")
    with closing(server.connect()) as session, session.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(%s, 0)", (alive.session,))
        await jobs.restore(server="main", databases={"bank": "other"})
        left = server.databases()
    assert left == {"bank", "other", living, foreign, "snappy_restore_mine"}


async def test_what_a_restore_is_making_is_in_no_backup(server: MariaDb, jobs: Jobs) -> None:
    name = Names("elsewhere").unfinished()
    server.do(f"CREATE DATABASE `{name}`")
    await jobs.backup(server="main")
    with pytest.raises(SourceMissing, match=name):
        await jobs.restore(server="main", databases={name: "other"})


async def test_who_has_no_snappy_restores_with_mariadbs_own_programs(
    server: MariaDb, jobs: Jobs, tmp_path: Path
) -> None:
    server.do(*SHOP)
    await jobs.backup(server="main", databases=["shop"])
    await Jobs(tmp_path, "files", {}).restore(to=str(tmp_path / "out"))
    server.do("CREATE DATABASE `by hand` CHARACTER SET latin2 COLLATE latin2_czech_cs")
    words = ["mariadb", "--host=127.0.0.1", f"--port={server.port}", f"--user={server.account}"]
    for name in ("tables", "programs"):
        script = (tmp_path / f"out/mariadb/main/databases/shop/{name}.sql").read_bytes()
        programs.run([*words, f"--password={server.password}", "by hand"], given=script)
    assert _shop(server, "by hand") == _shop(server, "shop")


async def test_another_plugins_snapshot_is_refused(server: MariaDb, jobs: Jobs, tmp_path: Path) -> None:
    await Jobs(tmp_path, "null", {}).backup(size=10)
    with pytest.raises(BadOptions, match="null/0"):
        await jobs.restore(server="main")
    assert server.leftovers() == []
