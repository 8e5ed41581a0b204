"""The plug-in ``redis`` in the contract: keys that are written in pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.redis import Pairs, Redis
from tests.support.source_contract import Ground, Refused, SourceContract


class RedisGround:
    plugin = "redis"
    changes_share = 0.5
    works_in_folder = False

    def __init__(self, server: Redis, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._pairs = [Pairs(server, 0), Pairs(server, 7)]

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.named(self._folder)

    def options(self) -> dict[str, Any]:
        return {"server": "main"}

    def restore_options(self, other: bool) -> dict[str, Any]:
        return {"server": "main", "databases": {"0": 7}} if other else {"server": "main"}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return {"to": str(folder)}

    def fill(self, size: int) -> None:
        self._pairs[0].make(size)

    def change(self, share: float) -> None:
        self._pairs[0].change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._pairs[0].writing()

    def wipe(self) -> None:
        self._server.do(("FLUSHALL",))

    def check(self, other: bool) -> None:
        self._pairs[other].check()

    def content(self, other: bool) -> Any:
        return self._pairs[other].content()

    def leftovers(self) -> list[str]:
        return self._server.leftovers()

    def refused(self) -> Sequence[Refused]:
        stranger, main = {"server": "stranger"}, {"server": "main"}
        return [
            Refused("a wrong password", "source-denied", stranger),
            Refused("a server that is down", "source-unavailable", {"server": "down"}),
            Refused("a server that there is not", "bad-options", {"server": "no"}),
            Refused("there are keys", "bad-options", main, "restore"),
            Refused("no such database", "source-missing", main | {"databases": {"5": 6}}, "restore"),
            Refused("a number too high", "bad-options", main | {"databases": {"0": 99}}, "restore"),
            Refused("a wrong password", "source-denied", stranger, "restore"),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Redis.running() as server:
        yield RedisGround(server, tmp_path_factory.mktemp("redis"))


@pytest.mark.redis
class TestRedis(SourceContract):
    """All that is asked of it."""
