"""One real nats-server (stock, 1 MiB max_payload) and one real S3 server for all contract tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.natsserver import NatsServer, nats_server
from tests.support.weed import Weed, weed_server


@pytest.fixture(scope="session")
def stock_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server
