"""The plug-in ``mariadb-physical`` in the contract: the server itself is what is lost, and started again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mariadb import Ledger, MariaDb
from tests.support.source_contract import Ground, Refused, SourceContract

pytestmark = pytest.mark.mariadb


class PhysicalGround:
    plugin = "mariadb-physical"
    changes_share = 0.5
    works_in_folder = True

    def __init__(self, server: MariaDb, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._places = [server.data, server.data.with_name("other")]
        self._ledger = Ledger(server, "bank")

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.named(self._folder)

    def options(self) -> dict[str, Any]:
        return {"server": "main"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return self._into(self._places[other])

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return self._into(folder)

    def _into(self, folder: Path) -> dict[str, Any]:
        return {"to": str(folder), "server": "main"}

    def fill(self, size: int) -> None:
        self._run(False)
        self._ledger.make(size)

    def change(self, share: float) -> None:
        self._ledger.change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._ledger.writing()

    def wipe(self) -> None:
        self._server.stop()
        for place in self._places:
            shutil.rmtree(place, ignore_errors=True)

    def check(self, other: bool) -> None:
        self._run(other)
        self._ledger.check()

    def content(self, other: bool) -> Any:
        self._run(other)
        return self._ledger.content()

    def leftovers(self) -> list[str]:
        beside = [str(path) for path in self._places[0].parent.glob("*.snappy-unfinished")]
        return beside + (self._server.leftovers() if self._server.is_running else [])

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("a wrong password", "source-denied", self.options() | {"server": "stranger"}),
            Refused("a server that is down", "source-unavailable", self.options() | {"server": "down"}),
            Refused("a server that there is not", "bad-options", {"server": "no"}),
            Refused("it stands there", "bad-options", self.restore_options(False), "restore"),
        ]

    def _run(self, other: bool) -> None:
        """The server, on that folder; on a new one where there is none."""
        place = self._places[other]
        if self._server.is_running and self._server.data == place:
            return
        self._server.stop()
        self._server.data = place
        if not place.exists():
            self._server.create()
        self._server.start()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with MariaDb.running() as server:
        yield PhysicalGround(server, tmp_path_factory.mktemp("mariadb"))


class TestPhysicalMariaDb(SourceContract):
    """With the distribution's server."""
