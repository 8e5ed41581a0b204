"""The plug-in ``jetstream`` in the contract: a ledger of pairs that is written to at full speed, with a consumer,
noise, and a key-value bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support import jetstream
from tests.support.jetstream import ACCOUNTS, NOISE_BYTES, Jetstream
from tests.support.source_contract import Ground, Refused, SourceContract

LEDGERS = ("LEDGER", "LEDGER-2")


class JetstreamGround:
    plugin = "jetstream"
    changes_share: float | None = None
    works_in_folder = False

    def __init__(self, server: Jetstream, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._noise = 0

    def settings(self) -> dict[str, dict[str, Any]]:
        return self._server.settings(self._folder)

    def options(self) -> dict[str, Any]:
        return {"server": "main", "streams": ["LEDGER", "NOISE", "KV_*"]}

    def restore_options(self, other: bool) -> dict[str, Any]:
        streams = {"LEDGER": LEDGERS[other], "NOISE": "NOISE", "KV_PAIRS": "KV_PAIRS"}
        return {"server": ACCOUNTS[other], "streams": streams}

    def restore_into(self, folder: Path) -> dict[str, Any] | None:
        return None

    def fill(self, size: int) -> None:
        self._noise = size // NOISE_BYTES
        self._server.fill(size)

    def change(self, share: float) -> None:
        self._server.change(share)

    def writing(self) -> AbstractContextManager[Callable[[], int]]:
        return self._server.writing()

    def wipe(self) -> None:
        self._server.wipe()

    def check(self, other: bool) -> None:
        self._server.check(ACCOUNTS[other], LEDGERS[other], self._noise)

    def content(self, other: bool) -> Any:
        return self._server.content(ACCOUNTS[other], LEDGERS[other])

    def leftovers(self) -> list[str]:
        return self._server.leftovers()

    def refused(self) -> Sequence[Refused]:
        return [
            Refused("a wrong password", "source-denied", self.options() | {"server": "stranger"}),
            Refused("who may not ask JetStream", "source-denied", self.options() | {"server": "narrow"}),
            Refused("a server that is down", "source-unavailable", self.options() | {"server": "down"}),
            Refused("no JetStream there", "source", {"server": "plain"}),
            Refused("no such stream", "source-missing", {"server": "main", "streams": ["NO"]}),
            Refused("no such server", "bad-options", {"server": "no"}),
            Refused("it stands there", "bad-options", self.restore_options(False), "restore"),
            Refused("a bucket under another name", "bad-options", {"streams": {"KV_PAIRS": "KV_2"}}, "restore"),
            Refused("no such stream", "source-missing", {"server": "other", "streams": {"NO": "NO"}}, "restore"),
            Refused(
                "a wrong password", "source-denied", self.restore_options(True) | {"server": "stranger"}, "restore"
            ),
        ]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with jetstream.running(tmp_path_factory.mktemp("nats")) as server:
        yield JetstreamGround(server, tmp_path_factory.mktemp("jetstream"))


class TestJetstream(SourceContract):
    """With a server whose snapshots are archives."""
