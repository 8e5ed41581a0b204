"""Grounds of the contract for what backs up databases: one by one, or a server's whole data folder."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.support.database_server import DatabaseServer, Ledger
from tests.support.source_contract import Refused


class _LedgerGround(ABC):
    """Ledgers that transfers go through, whose sums must hold: the one that is backed up, and perhaps the other."""

    def __init__(
        self, plugin: str, folder: Path, ledgers: Sequence[Ledger[Any]], *, changes_share: float, works_in_folder: bool
    ) -> None:
        self.plugin, self._folder, self._ledgers = plugin, folder, ledgers
        self._server: DatabaseServer = ledgers[0].server
        self.changes_share: float | None = changes_share
        self.works_in_folder = works_in_folder

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.named(self._folder)

    def options(self) -> dict[str, Any]:
        return {"server": "main"}

    def fill(self, size: int) -> None:
        self._ledgers[0].make(size)

    def change(self, share: float) -> None:
        self._ledgers[0].change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._ledgers[0].writing()

    @abstractmethod
    def restore_options(self, other: bool) -> dict[str, Any]: ...

    def _refused(self) -> list[Refused]:
        return [
            Refused("a wrong password", "source-denied", self.options() | {"server": "stranger"}),
            Refused("a server that is down", "source-unavailable", self.options() | {"server": "down"}),
            Refused("it stands there", "bad-options", self.restore_options(False), "restore"),
        ]


class DatabasesGround(_LedgerGround):
    """A database, which can be restored under another name."""

    def __init__(
        self,
        plugin: str,
        server: DatabaseServer,
        folder: Path,
        ledger: Callable[..., Ledger[Any]],
        *,
        works_in_folder: bool,
    ) -> None:
        ledgers = [ledger(server, "bank"), ledger(server, "bank of yesterday")]
        super().__init__(plugin, folder, ledgers, changes_share=0.1, works_in_folder=works_in_folder)

    def options(self) -> dict[str, Any]:
        return super().options() | {"databases": ["bank"]}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"server": "main", "databases": {"bank": self._ledgers[other].database}}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def wipe(self) -> None:
        self._server.drop_all()

    def check(self, other: bool) -> None:
        self._ledgers[other].check()

    def content(self, other: bool) -> Any:
        return self._ledgers[other].content()

    def leftovers(self) -> list[str]:
        return self._server.leftovers()

    def refused(self) -> Sequence[Refused]:
        elsewhere = self.restore_options(True)
        return [
            *self._refused(),
            Refused("no such database", "source-missing", {"server": "main", "databases": ["no"]}),
            Refused("no such dump", "source-missing", {"server": "main", "databases": {"no": "more"}}, "restore"),
            Refused("a wrong password", "source-denied", elsewhere | {"server": "stranger"}, "restore"),
        ]


class ServerGround(_LedgerGround):
    """A server that is lost as a whole, and started again on what was restored."""

    def __init__(
        self,
        plugin: str,
        folder: Path,
        ledger: Ledger[Any],
        *,
        works_in_folder: bool = False,
        options: dict[str, Any] | None = None,
        restore_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(plugin, folder, [ledger], changes_share=0.5, works_in_folder=works_in_folder)
        self._places = [self._server.data, self._server.data.with_name("other")]
        self._options, self._restore_options = options or {}, restore_options or {}

    def options(self) -> dict[str, Any]:
        return super().options() | self._options

    def restore_options(self, other: bool) -> dict[str, Any]:
        return self._into(self._places[other])

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return self._into(folder)

    def _into(self, folder: Path) -> dict[str, Any]:
        return {"to": str(folder), "server": "main"} | self._restore_options

    def fill(self, size: int) -> None:
        self._run(False)
        super().fill(size)

    def wipe(self) -> None:
        self._server.stop()
        for place in self._places:
            shutil.rmtree(place, ignore_errors=True)

    def check(self, other: bool) -> None:
        self._run(other)
        self._ledgers[0].check()

    def content(self, other: bool) -> Any:
        self._run(other)
        return self._ledgers[0].content()

    def leftovers(self) -> list[str]:
        beside = [str(path) for path in self._places[0].parent.glob("*.snappy-unfinished")]
        return beside + (self._server.leftovers() if self._server.is_running else [])

    def refused(self) -> Sequence[Refused]:
        return [*self._refused(), Refused("a server that there is not", "bad-options", {"server": "no"})]

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
