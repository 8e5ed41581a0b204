"""A worker process's store whose NATS server is away when it is first used."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy.config import Nats
from snappy.errors import AttemptOver, BusUnavailable, JobCancelled
from snappy.repository.store import FileType
from snappy.sources import worker_store
from snappy.sources.permit import Permit
from snappy.sources.worker_store import WorkerStore
from snappy.targets.policy import PolicyFileSystem
from tests.support.fileservers import ALL_RIGHTS, served
from tests.support.natsserver import NatsServer, nats_server

DATA = b"sealed"
NAME = sha256(DATA).hexdigest()
TARGET = "vault"


@pytest.fixture
def away(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that was killed."""
    with nats_server(tmp_path) as server:
        server.kill()
        try:
            yield server
        finally:
            server.start()  # to be stopped


@pytest.fixture
def permit() -> Permit:
    """The service's, which holds."""
    permit = Permit()
    permit.extend("grant", time.monotonic() + 60)
    return permit


@pytest.fixture
def store(away: NatsServer, permit: Permit) -> WorkerStore:
    store = WorkerStore(TARGET, "site1", "snappy", Nats(url=away.url), 60.0)
    permit.watch(store.told)
    return store


class Saving(threading.Thread):
    """Saves a file; ``error`` is what came of it."""

    def __init__(self, store: WorkerStore) -> None:
        super().__init__(daemon=True)
        self._store = store
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._store.save(FileType.LOCK, NAME, DATA)
        except Exception as error:
            self.error = error

    def ended(self, seconds: float) -> bool:
        self.join(seconds)
        return not self.is_alive()


def test_the_first_connection_waits_for_the_server(store: WorkerStore, away: NatsServer) -> None:
    saving = Saving(store)
    assert not saving.ended(11), "longer than twice what one dial takes"
    away.start()
    memory = PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", ALL_RIGHTS)
    with served(memory, away.url, TARGET):
        assert saving.ended(30)
        assert saving.error is None
        assert store.load(FileType.LOCK, NAME) == DATA
    away.kill()


@pytest.mark.parametrize("reason", [JobCancelled(), AttemptOver()])
def test_the_end_of_the_attempt_ends_that_wait(
    store: WorkerStore, permit: Permit, reason: JobCancelled | AttemptOver
) -> None:
    saving = Saving(store)
    assert not saving.ended(0.5)
    permit.end(reason)
    assert saving.ended(3)
    assert type(saving.error) is type(reason)


def test_it_does_not_wait_for_ever_while_a_grant_holds(store: WorkerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_store, "DIALS", 1)
    saving = Saving(store)
    assert saving.ended(20)
    assert isinstance(saving.error, BusUnavailable)
