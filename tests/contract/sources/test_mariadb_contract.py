"""The plug-in ``mariadb`` in the contract: a ledger that transfers go through, whose sum must hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.database_grounds import DatabasesGround
from tests.support.mariadb import Ledger, MariaDb
from tests.support.source_contract import Ground, SourceContract

pytestmark = pytest.mark.mariadb


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with MariaDb.running() as server:
        yield DatabasesGround("mariadb", server, tmp_path_factory.mktemp("mariadb"), Ledger, works_in_folder=True)


class TestMariaDb(SourceContract):
    """With the distribution's server."""
