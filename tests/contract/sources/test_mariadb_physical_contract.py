"""The plug-in ``mariadb-physical`` in the contract: the server itself is what is lost, and started again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.database_grounds import ServerGround
from tests.support.mariadb import Ledger, MariaDb
from tests.support.source_contract import Ground, SourceContract

pytestmark = pytest.mark.mariadb


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with MariaDb.running() as server:
        folder = tmp_path_factory.mktemp("mariadb")
        yield ServerGround("mariadb-physical", folder, Ledger(server, "bank"), works_in_folder=True)


class TestPhysicalMariaDb(SourceContract):
    """With the distribution's server."""
