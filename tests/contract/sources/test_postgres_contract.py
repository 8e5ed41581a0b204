"""The plug-in ``postgres`` in the contract: a ledger that transfers go through, whose sum must hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.database_grounds import DatabasesGround
from tests.support.postgres import Ledger, Postgres, newer, packaged
from tests.support.source_contract import Ground, SourceContract


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(packaged, id="packaged", marks=pytest.mark.postgres),
        pytest.param(newer, id="newer", marks=pytest.mark.long),
    ],
)
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with request.param() as programs, Postgres.running(programs) as server:
        yield DatabasesGround("postgres", server, tmp_path_factory.mktemp("postgres"), Ledger, works_in_folder=False)


class TestPostgres(SourceContract):
    """With the distribution's server, and with a newer one."""
