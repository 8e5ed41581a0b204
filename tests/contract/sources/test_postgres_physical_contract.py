"""The plug-in ``postgres-physical`` in the contract: the server itself is what is lost, and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.database_grounds import ServerGround
from tests.support.postgres import Ledger, Postgres, newer, packaged
from tests.support.source_contract import Ground, SourceContract


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("packaged", marks=pytest.mark.postgres),
        pytest.param("newer", marks=pytest.mark.long),
    ],
)
def ground(request: pytest.FixtureRequest, folder: Path) -> Iterator[Ground]:
    if request.param == "packaged":
        with packaged() as programs, Postgres.running(programs) as server:
            yield ServerGround("postgres-physical", folder, Ledger(server, "bank"))
        return
    with newer() as programs, Postgres.running(programs, summarize_wal="on") as server:
        yield ServerGround(
            "postgres-physical",
            folder,
            Ledger(server, "bank"),
            options={"incremental": 3},
            restore_options={"verify": False},  # the wheel's pg_verifybackup crashes on any backup
        )


class TestPhysicalPostgres(SourceContract):
    """With the distribution's server, and with a newer one what changed alone."""
