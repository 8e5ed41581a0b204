"""What a worker of an attempt that is over can still do at a target over the bus: nothing, from the very instant that
its grant runs out; neither finish what it began before, nor take away what it may take away."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import CLOCK_MARGIN, Grant, GrantChecker, SigningKey
from snappy.errors import AccessDenied, AttemptOver
from snappy.targets.policy import APPEND_ONLY, PolicyFileSystem
from snappy.targets.service import grant_gate
from tests.support.natsserver import NatsServer

KEY = SigningKey.generate()
START = 1_800_000_000.0
HOLD = 30.0
PACK = secrets.token_bytes(3 << 20)
PATH = f"data/{hashlib.sha256(PACK).hexdigest()[:2]}/{hashlib.sha256(PACK).hexdigest()}"
CONTENT = b"a sealed lock"
LOCK = f"locks/{hashlib.sha256(CONTENT).hexdigest()}"


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Target:
    """One that serves an append-only folder, and two workers of one service: each with the grant of its attempt."""

    def __init__(self, url: str) -> None:
        self.url, self.name, self.clock = url, f"vault-{secrets.token_hex(4)}", Clock()
        self.files = PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", APPEND_ONLY)
        self.first, self.second = self._worker(1, START + HOLD), self._worker(2, START + 3 * HOLD)

    def _worker(self, attempt: int, expires: float) -> SnappyFileSystem:
        grant = KEY.sign(Grant("job-1", attempt, "site1", self.name, "rlw", expires))
        nats = config.Nats(url=self.url)
        return SnappyFileSystem(self.name, caller="site1", grant=grant, nats=nats, asynchronous=True, clock=self.clock)


@asynccontextmanager
async def served(url: str) -> AsyncIterator[Target]:
    target = Target(url)
    bus = await Bus.connect(config.Nats(url=url), name=target.name, user=target.name)
    gate = grant_gate(GrantChecker(KEY.public_text()), target.name, target.clock)
    server = FileServer(bus, target.files, target=target.name, gate=gate)
    await server.start()
    try:
        yield target
    finally:
        await server.close()
        await bus.drain()
        await asyncio.gather(target.first.aclose(), target.second.aclose())


@pytest.fixture
async def target(stock_nats: NatsServer) -> AsyncIterator[Target]:
    async with served(stock_nats.url) as made:
        yield made


async def test_a_put_that_began_in_time_is_refused_at_the_instant_it_would_show(target: Target) -> None:
    upload = await target.first.objects.open_upload(PATH, "create", len(PACK))
    await upload.write(PACK)
    target.clock.now = START + HOLD
    with pytest.raises(AttemptOver):
        await upload.commit()
    assert target.files.find("") == []
    await target.second._pipe_file(PATH, PACK)
    assert target.files.find("") == [PATH]


async def test_a_put_that_is_committed_in_time_shows(target: Target) -> None:
    upload = await target.first.objects.open_upload(PATH, "create", len(PACK))
    await upload.write(PACK)
    target.clock.now = START + HOLD - 0.1
    await upload.commit()
    assert target.files.find("") == [PATH]


async def test_it_begins_nothing_and_removes_nothing(target: Target) -> None:
    await target.first._pipe_file(LOCK, CONTENT)
    target.clock.now = START + HOLD + CLOCK_MARGIN
    for call in (
        lambda: target.first._pipe_file(PATH, PACK),
        lambda: target.first._pipe_file("config", b"small"),
        lambda: target.first._rm_file(LOCK),
        lambda: target.first._cat_file(LOCK),
        lambda: target.first._find(""),
    ):
        with pytest.raises(AttemptOver):
            await call()
    assert target.files.find("") == [LOCK]
    await target.second._rm_file(LOCK)
    assert target.files.find("") == []


async def test_a_lock_of_another_job_goes_only_with_a_grant_that_names_it(target: Target) -> None:
    target.files.pipe_file(LOCK, CONTENT)
    with pytest.raises(AccessDenied):
        await target.first._rm_file(LOCK)
    name = LOCK.removeprefix("locks/")
    named = KEY.sign(Grant("job-1", 1, "site1", target.name, "rlw", START + HOLD, (name,)))
    worker = SnappyFileSystem(
        target.name,
        caller="site1",
        grant=named,
        nats=config.Nats(url=target.url),
        asynchronous=True,
    )
    try:
        await worker._rm_file(LOCK)
    finally:
        await worker.aclose()
    assert target.files.find("") == []
