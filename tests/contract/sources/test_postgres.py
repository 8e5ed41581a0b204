"""What is PostgreSQL's own, with a real server: what a dump does not say of its database, whose name is whose, roles,
rights, and what a newer or older server makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snappy.errors import (
    BadOptions,
    JobCancelled,
    ProgramMissing,
    SnappyError,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnavailable,
)
from snappy.repository.entries import Node
from snappy.sources import programs
from snappy.sources.databases import Names
from snappy.sources.plugins.postgres import PostgresSource
from snappy.sources.plugins.postgres_sink import PostgresRestore
from tests.support.database_server import secret
from tests.support.plugin_jobs import Jobs
from tests.support.postgres import Ledger, Postgres, newer, packaged

pytestmark = pytest.mark.postgres

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with packaged() as programs_, Postgres.running(programs_) as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(server: Postgres) -> None:
    server.drop_all()


@pytest.fixture
def jobs(tmp_path: Path, server: Postgres) -> Jobs:
    return Jobs(tmp_path, "postgres", server.named(tmp_path))


async def test_what_a_dump_does_not_say_of_its_database_comes_back_too(server: Postgres, jobs: Jobs) -> None:
    name = 'we"ird/näme = %I'
    quoted = '"we""ird/näme = %I"'
    server.do(
        f"CREATE DATABASE {quoted} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' CONNECTION LIMIT 7",
        f"COMMENT ON DATABASE {quoted} IS 'it''s ours'",
        f'ALTER DATABASE {quoted} SET search_path = one, "$user"',
        f"ALTER DATABASE {quoted} SET default_transaction_read_only = on",
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader",
        f"REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {quoted} TO reader WITH GRANT OPTION",
        f"ALTER DATABASE {quoted} OWNER TO reader",
    )
    look = """SELECT datcollate, pg_encoding_to_char(encoding), datconnlimit, shobj_description(oid, 'pg_database'),
        ARRAY(SELECT unnest(datacl)::text ORDER BY 1), datdba::regrole::text,
        (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid)
        FROM pg_database d WHERE datname LIKE 'we%'"""
    before = server.do(look)
    made = await jobs.backup(server="main", databases=[name])
    assert made.warnings == []
    server.drop_all()
    back = await jobs.restore(server="main")
    assert back.warnings == []
    assert server.do(look) == before


async def test_nothing_that_stands_there_is_replaced_unasked(server: Postgres, jobs: Jobs) -> None:
    ledger = Ledger(server, "bank")
    ledger.make(1000)
    await jobs.backup(server="main", databases=["bank"])
    before = ledger.content()
    server.do("UPDATE account SET balance = 0", database="bank")
    for options in ({}, {"databases": {"bank": "bank"}}):
        with pytest.raises(BadOptions, match="something in it"):
            await jobs.restore(server="main", **options)
    assert server.do("SELECT sum(balance) FROM account", database="bank") == [(0,)]
    with server.connect("bank") as session:
        await jobs.restore(server="main", overwrite=True)
        assert session.closed or session.broken or not _answers(session)
    assert ledger.content() == before
    assert server.leftovers() == []


def _answers(session: Any) -> bool:
    try:
        session.execute("SELECT 1")
    except Exception:
        return False
    return True


async def test_all_of_a_server_comes_back_to_an_empty_one(server: Postgres, jobs: Jobs) -> None:
    server.do("DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN PASSWORD 'inkpot'")
    ledgers = [Ledger(server, "bank"), Ledger(server, "shop")]
    for ledger in ledgers:
        ledger.make(1000)
        server.do("ALTER TABLE account OWNER TO clerk", database=ledger.database)
    server.do("CREATE TABLE note (text text)", "INSERT INTO note VALUES ('in postgres itself')")
    before = [ledger.content() for ledger in ledgers]
    look = "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'"
    passwords = server.do(look)
    made = await jobs.backup(server="main")
    assert made.files == 5
    server.drop_all()
    server.do("DROP TABLE note", "DROP ROLE clerk")
    with pytest.raises(SourceMissing, match="clerk"):
        await jobs.restore(server="main")
    assert server.leftovers() == []
    await jobs.restore(server="main", globals=True)
    assert [ledger.content() for ledger in ledgers] == before
    assert server.do("SELECT text FROM note") == [("in postgres itself",)]
    assert server.do(look) == passwords
    server.do("DROP TABLE note")


async def test_the_restores_own_role_keeps_its_password(server: Postgres, jobs: Jobs, tmp_path: Path) -> None:
    server.do("DROP ROLE IF EXISTS chief", "CREATE ROLE chief SUPERUSER LOGIN PASSWORD 'former'")
    Ledger(server, "bank").make(1000)
    await jobs.backup(server="main")
    server.do("ALTER ROLE chief PASSWORD 'inkpot'")
    settings = server.settings | {"user": "chief", "password": secret(tmp_path / "chief", "inkpot")}
    given = {"server": "main", "databases": {"bank": "bank"}, "globals": True, "overwrite": True}
    await Jobs(tmp_path, "postgres", {"main": settings}).restore(**given)
    server.connect(user="chief", password="inkpot").close()
    Ledger(server, "bank").check()
    server.do("DROP ROLE chief")


def test_no_error_tells_the_password_of_a_role(server: Postgres, jobs: Jobs) -> None:
    content = b"ALTER ROLE pilot WITH FLYING PASSWORD 'SCRAM-SHA-256$inkpot';"
    options = PostgresRestore(server="main", globals=True)
    with closing(PostgresSource.import_(options, (), jobs.site)) as sink:
        with pytest.raises(SourceError, match="unrecognized role option") as raised:
            sink.receive(b"/postgres/main/cluster/globals.sql", Node(name=b"globals.sql", type="file"), iter([content]))
        assert "SCRAM" not in raised.value.message


@pytest.mark.long
async def test_roles_that_stand_keep_what_they_are_unless_overwritten(server: Postgres, jobs: Jobs) -> None:
    server.do("DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN CONNECTION LIMIT 3")
    await jobs.backup(server="main", databases=[], exclude=["postgres"])
    server.do("ALTER ROLE clerk CONNECTION LIMIT 5")
    look = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'clerk'"
    await jobs.restore(server="main", globals=True)
    assert server.do(look) == [(5,)]
    await jobs.restore(server="main", globals=True, overwrite=True)
    assert server.do(look) == [(3,)]


async def test_a_role_that_may_only_read_backs_up_all_but_passwords(server: Postgres, tmp_path: Path) -> None:
    server.do("DROP ROLE IF EXISTS keeper", "CREATE ROLE keeper LOGIN PASSWORD 'held'")
    Ledger(server, "bank").make(1000)
    grants = [f"GRANT SELECT ON ALL {kind} IN SCHEMA public TO keeper" for kind in ("TABLES", "SEQUENCES")]
    server.do(*grants, database="bank")
    settings = server.settings | {"user": "keeper", "password": secret(tmp_path / "keeper", "held")}
    jobs = Jobs(tmp_path, "postgres", {"main": settings})
    made = await jobs.backup(server="main", globals=True, databases=["bank"])
    assert [warning.path.rsplit("/")[-1] for warning in made.warnings] == ["globals.sql"]
    server.do("CREATE TABLE secret (text text)", database="bank")
    with pytest.raises(SourceDenied, match="permission denied"):
        await jobs.backup(server="main", databases=["bank"])


@pytest.mark.parametrize(
    ("settings", "options", "error"),
    [
        ({}, {"databases": ["no"]}, SourceMissing),
        ({"database": "no"}, {}, SourceMissing),
        ({"user": "nobody"}, {}, SourceDenied),
        ({"password": "wrong"}, {}, SourceDenied),
        ({"port": 1}, {}, SourceUnavailable),
        ({}, {"databases": [".."]}, BadOptions),
        ({}, {"databases": ["bank"], "exclude": ["bank"]}, BadOptions),
        ({}, {"server": "no"}, BadOptions),
    ],
)
async def test_what_is_wrong_is_said(
    server: Postgres, tmp_path: Path, settings: dict[str, Any], options: dict[str, Any], error: type[SnappyError]
) -> None:
    given = server.settings | {"password": server.password} | settings
    jobs = Jobs(tmp_path, "postgres", {"main": given | {"password": secret(tmp_path / "secret", given["password"])}})
    with pytest.raises(error) as raised:
        await jobs.backup(**({"server": "main"} | options))
    assert server.password not in raised.value.message
    assert not jobs.repository.exists()


@pytest.mark.long
async def test_what_is_cancelled_leaves_nothing(server: Postgres, jobs: Jobs) -> None:
    ledger = Ledger(server, "bank")
    ledger.make(4 * MIB)
    with pytest.raises(JobCancelled):
        await jobs.backup(server="main", databases=["bank"], end_after=MIB)
    assert server.leftovers() == []
    await jobs.backup(server="main", databases=["bank"])
    with pytest.raises(JobCancelled):
        await jobs.restore(server="main", databases={"bank": "other"}, end_after=MIB)
    assert (server.leftovers(), jobs.leftovers()) == ([], [])
    assert "other" not in server.databases()


@pytest.mark.long
async def test_what_a_dead_restore_left_goes_and_what_a_live_one_makes_stays(server: Postgres, jobs: Jobs) -> None:
    Ledger(server, "bank").make(1000)
    await jobs.backup(server="main", databases=["bank"])
    await jobs.restore(server="main", databases={"bank": "found"})
    ours = Names("site")
    dead, alive, foreign = ours.unfinished(), Names("site"), Names("elsewhere").unfinished()
    for name in (dead, alive.unfinished(), foreign, "snappy_restore_mine"):
        server.do(f'CREATE DATABASE "{name}"')
    with server.connect(application_name=alive.session):
        await jobs.restore(server="main", databases={"bank": "other"})
        left = server.databases()
    assert dead not in left
    assert {foreign, "snappy_restore_mine"} <= left
    assert any(name.startswith(alive.session) for name in left)


async def test_what_a_restore_is_making_is_in_no_backup(server: Postgres, jobs: Jobs) -> None:
    name = Names("elsewhere").unfinished()
    server.do(f'CREATE DATABASE "{name}"')
    await jobs.backup(server="main")
    with pytest.raises(SourceMissing, match=name):
        await jobs.restore(server="main", databases={name: "other"})


async def test_who_has_no_snappy_restores_with_postgresqls_own_programs(
    server: Postgres, jobs: Jobs, tmp_path: Path
) -> None:
    ledger, other = Ledger(server, "bank"), Ledger(server, "by hand")
    ledger.make(1000)
    await jobs.backup(server="main", databases=["bank"])
    await Jobs(tmp_path, "files", {}).restore(to=str(tmp_path / "out"))
    dump = tmp_path / "out/postgres/main/databases/bank.dump"
    server.do('CREATE DATABASE "by hand"')
    environment = {"PGPASSWORD": server.password, "PGDATABASE": "by hand"}
    words = ["--host=127.0.0.1", f"--port={server.port}", f"--username={server.account}", "--dbname=by hand"]
    programs.run([str(server.bin / "pg_restore"), *words, str(dump)], environment=environment)
    other.check()
    assert other.content() == ledger.content()


async def test_another_plugins_snapshot_is_refused(server: Postgres, jobs: Jobs, tmp_path: Path) -> None:
    await Jobs(tmp_path, "null", {}).backup(size=10)
    with pytest.raises(BadOptions, match="null/0"):
        await jobs.restore(server="main")
    assert server.leftovers() == []


@pytest.mark.long
async def test_versions_that_do_not_fit_are_named_and_an_older_dump_goes_into_a_newer_server(
    server: Postgres, tmp_path: Path
) -> None:
    with newer() as newest, Postgres.running(newest) as later:
        own = {one: {"password": secret(tmp_path / f"{one.port}", one.password)} for one in (server, later)}
        jobs = Jobs(
            tmp_path,
            "postgres",
            {
                "old": server.settings | own[server],
                "new": later.settings | own[later],
                "new-with-old": later.settings | own[later] | {"programs": str(server.bin)},
                "old-with-new": server.settings | own[server] | {"programs": str(newest)},
            },
        )
        ledger, moved = Ledger(server, "bank"), Ledger(later, "bank")
        ledger.make(1000)
        await jobs.backup(server="old", databases=["bank"])
        await jobs.restore(server="new")
        moved.check()
        with pytest.raises(ProgramMissing, match="of version"):
            await jobs.backup(server="new-with-old", databases=["bank"])
        await jobs.backup(server="new", databases=["bank"])
        for name, wrong in (("old", "unsupported version"), ("old-with-new", "transaction_timeout")):
            with pytest.raises(SourceError, match=wrong) as raised:
                await jobs.restore(server=name, databases={"bank": "back"})
            assert "newer" in raised.value.hint
        assert server.leftovers() == []
