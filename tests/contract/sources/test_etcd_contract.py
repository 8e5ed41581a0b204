"""The plug-in ``etcd`` in the contract: keys that are numbered as they are written, all up to one revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.etcd import Etcd, Journal
from tests.support.source_contract import Ground, Refused, SourceContract


class EtcdGround:
    plugin = "etcd"
    changes_share = 0.3
    works_in_folder = False

    def __init__(self, server: Etcd, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._journals = [Journal(server, "site/"), Journal(server, "site of yesterday/")]

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.named(self._folder)

    def options(self) -> dict[str, Any]:
        return {"cluster": "main"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        given = {"cluster": "main", "prefix": "site/"}
        return given | {"into": "site of yesterday/"} if other else given

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"cluster": "main", "to": str(folder)}

    def fill(self, size: int) -> None:
        self._journals[0].make(size)

    def change(self, share: float) -> None:
        self._journals[0].change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._journals[0].writing()

    def wipe(self) -> None:
        self._server.empty()

    def check(self, other: bool) -> None:
        self._journals[other].check()

    def content(self, other: bool) -> Any:
        return self._journals[other].content()

    def leftovers(self) -> list[str]:
        return self._server.leftovers()

    def refused(self) -> Sequence[Refused]:
        stranger = {"cluster": "stranger"}
        return [
            Refused("a wrong password", "source-denied", stranger),
            Refused("a cluster that is down", "source-unavailable", {"cluster": "down"}),
            Refused("a cluster that there is not", "bad-options", {"cluster": "no"}),
            Refused("there are keys", "bad-options", self.restore_options(False), "restore"),
            Refused("a wrong password", "source-denied", stranger, "restore"),
            Refused("a folder in use", "bad-options", {"cluster": "main", "to": str(self._server.data)}, "restore"),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Etcd.running() as server:
        server.secure()
        yield EtcdGround(server, tmp_path_factory.mktemp("etcd"))


@pytest.mark.etcd
class TestEtcd(SourceContract):
    """All that is asked of it."""
