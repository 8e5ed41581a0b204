"""The plug-in ``mariadb`` in the contract: a ledger that transfers go through, whose sum must hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mariadb import Ledger, MariaDb
from tests.support.source_contract import Ground, Refused, SourceContract

pytestmark = pytest.mark.mariadb


class MariaDbGround:
    plugin = "mariadb"
    changes_share = 0.1
    works_in_folder = True

    def __init__(self, server: MariaDb, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._ledgers = [Ledger(server, "bank"), Ledger(server, "bank of yesterday")]

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.named(self._folder)

    def options(self) -> dict[str, Any]:
        return {"server": "main", "databases": ["bank"]}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"server": "main", "databases": {"bank": self._ledgers[other].database}}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._ledgers[0].make(size)

    def change(self, share: float) -> None:
        self._ledgers[0].change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._ledgers[0].writing()

    def wipe(self) -> None:
        self._server.drop_all()

    def check(self, other: bool) -> None:
        self._ledgers[other].check()

    def content(self, other: bool) -> Any:
        return self._ledgers[other].content()

    def leftovers(self) -> list[str]:
        return self._server.leftovers()

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("a wrong password", "source-denied", self.options() | {"server": "stranger"}),
            Refused("a server that is down", "source-unavailable", self.options() | {"server": "down"}),
            Refused("no such database", "source-missing", {"server": "main", "databases": ["no"]}),
            Refused("it stands there", "bad-options", self.restore_options(False), "restore"),
            Refused("no such dump", "source-missing", {"server": "main", "databases": {"no": "more"}}, "restore"),
            Refused(
                "a wrong password", "source-denied", self.restore_options(True) | {"server": "stranger"}, "restore"
            ),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with MariaDb.running() as server:
        yield MariaDbGround(server, tmp_path_factory.mktemp("mariadb"))


class TestMariaDb(SourceContract):
    """With the distribution's server."""
