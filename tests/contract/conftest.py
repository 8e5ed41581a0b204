"""Real servers, the stock ones for all contract tests, one with JetStream for each file; and a core on the latter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from snappy.frontend.api import Client
from tests.support.jobs import Stack, Worker, jetstream_server, stack_on
from tests.support.natsserver import NatsServer, nats_server
from tests.support.weed import Weed, weed_server


@pytest.fixture(scope="session")
def stock_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """With 1 MiB max_payload."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """With JetStream; may be restarted."""
    with jetstream_server(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
async def stack(server: NatsServer) -> AsyncIterator[Stack]:
    """A core on a prefix of its own."""
    async with stack_on(server.url) as running:
        yield running


@pytest.fixture
async def site(stack: Stack) -> Worker:
    return await stack.worker()


@pytest.fixture
async def alice(stack: Stack) -> Client:
    return Client(await stack.bus("alice"))
