"""A core on a real nats-server, a clock that stands still, and a worker that speaks the subjects and does no work."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from snappy import config
from snappy.bus import streams
from snappy.bus.connection import Bus
from snappy.bus.grants import SigningKey
from snappy.jobs.core import Core
from snappy.jobs.messages import (
    Beat,
    CloudEvent,
    ErrorInfo,
    HoldAnswer,
    HoldRequest,
    JobRecord,
    Report,
    Result,
)
from snappy.jobs.states import FINAL, State
from tests.support.natsserver import NatsServer, nats_server

SIGNING_KEY = SigningKey.generate()
SETTINGS = config.Core(hold_seconds=30.0, max_attempts=3, max_lost_attempts=2)
JETSTREAM = 'jetstream {{ store_dir: "{}", sync_interval: always }}\nmax_payload: 2MB\n'
BACKUP = {"source": "site1", "target": "vault", "options": {"paths": ["/etc"]}}
STEP_SECONDS = 4.0
EVENT_SECONDS = 2.0


@contextmanager
def jetstream_server(folder: Path) -> Iterator[NatsServer]:
    with nats_server(folder, JETSTREAM.format(folder / "store")) as server:
        yield server


class Clock:
    """Moves when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class RealClock(Clock):
    """The machine's, set forward by ``ahead`` seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Worker:
    """One replica of a source service. Time out after five seconds, so that a silence fails the test."""

    def __init__(self, bus: Bus, replica: str = "r1") -> None:
        self.bus = bus
        self.service = bus.user
        self.replica = replica

    async def ask(self, verb: str, **fields: Any) -> HoldAnswer:
        subject = self.bus.subjects.hold(verb, self.service, self.replica)
        answer = await self.bus.request(subject, msgspec.json.encode(HoldRequest(**fields)), timeout=5.0)
        return msgspec.json.decode(answer, type=HoldAnswer)

    async def beat(self, role: Any = "source", **more: Any) -> HoldAnswer:
        beat = Beat(service=self.service, replica=self.replica, role=role, version="0.0.1", **more)
        return await self.ask("beat", beat=beat)

    async def claim(self, nonce: str = "") -> HoldAnswer:
        return await self.ask("claim", nonce=nonce)

    async def claimed(self) -> HoldAnswer:
        """A claim that must get a job."""
        answer = await self.claim()
        assert answer.job is not None, answer
        return answer

    async def renew(self, held: HoldAnswer) -> HoldAnswer:
        assert held.job is not None
        return await self.ask("renew", job=held.job.id, attempt=held.attempt)

    async def report(self, kind: Any, held: HoldAnswer, *, replica: str = "", **fields: Any) -> None:
        assert held.job is not None
        report = Report(job=held.job.id, attempt=held.attempt, kind=kind, at=0.0, **fields)
        subject = self.bus.subjects.report(self.service, replica or self.replica)
        await self.bus.store(subject, msgspec.json.encode(report))

    async def succeed(self, held: HoldAnswer, snapshot: str = "abc") -> None:
        await self.report("succeeded", held, result=Result(snapshot=snapshot))

    async def fail(self, held: HoldAnswer, *, retryable: bool) -> None:
        await self.report("failed", held, error=ErrorInfo(code="unavailable", message="no", retryable=retryable))

    async def calls(self) -> int:
        """How many calls wait for this service."""
        subjects = self.bus.subjects
        body = json.dumps({"subjects_filter": subjects.work(self.service)}).encode()
        answer = await self.bus.request(f"$JS.API.STREAM.INFO.{subjects.work_stream}", body, timeout=5.0)
        return sum((json.loads(answer)["state"].get("subjects") or {}).values())


class Stack:
    """A NATS server's prefix with a core on it."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self.prefix = f"t{secrets.token_hex(6)}"
        self.clock = clock
        self.core: Core
        self.buses: list[Bus] = []
        self._running: dict[Core, asyncio.Task[None]] = {}

    async def bus(self, user: str) -> Bus:
        bus = await Bus.connect(config.Nats(url=self.url), name=user, prefix=self.prefix, user=user)
        self.buses.append(bus)
        return bus

    async def start_core(self, settings: config.Core = SETTINGS, **options: Any) -> Core:
        """Its sweep does nothing on its own: see :meth:`pass_time`."""
        options = {"clock": self.clock, "sweep_seconds": 3600.0, **options}
        self.core = Core(await self.bus("core"), settings, SIGNING_KEY, **options)
        running = asyncio.create_task(self.core.run())
        self._running[self.core] = running
        ready = asyncio.create_task(self.core.ready.wait())
        await asyncio.wait({ready, running}, timeout=10.0, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        assert self.core.ready.is_set()
        return self.core

    async def stop_core(self, core: Core | None = None) -> None:
        """As a kill would: nothing is said to anybody."""
        running = self._running.pop(core or self.core)
        running.cancel()
        await asyncio.wait({running})

    async def worker(self, service: str = "site1", replica: str = "r1") -> Worker:
        worker = Worker(await self.bus(service), replica)
        assert (await worker.beat()).error is None
        return worker

    async def target(self, name: str = "vault") -> None:
        assert (await Worker(await self.bus(name)).beat("target")).error is None

    async def pass_time(self, seconds: float) -> None:
        """Let the clock and the core's sweep go on for a while."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(end, self.clock.now + STEP_SECONDS)
            await self.core.sweep.tick()

    async def pass_events(self) -> None:
        """Have the core publish each event that a killed one did not."""
        for job in list(self.core.store.records.kept):
            await self.core.ledger.confirm(job)

    async def forget_calls(self) -> None:
        """As if workers had heard every call so far."""
        await self.core.bus.js.purge_stream(self.core.bus.subjects.work_stream)

    async def record(self, job: str) -> JobRecord:
        """As it stands in the bucket."""
        stored = await self.core.store.records.fetch(job)
        assert stored is not None
        return stored.value

    async def until(self, job: str, *states: State) -> JobRecord:
        """The record once it is in one of ``states`` (without any: once it is over)."""
        wanted = frozenset(states) or FINAL
        async with asyncio.timeout(5.0):
            while (record := await self.record(job)).state not in wanted:
                await asyncio.sleep(0.01)
        return record

    async def events(self, job: str) -> list[CloudEvent]:
        """A job's events as they stand in the stream; an event follows its record by a moment, and is waited for."""
        kept = self.core.store.records.get(job)
        deadline = asyncio.get_running_loop().time() + EVENT_SECONDS
        while True:
            found = [event for event in await self.all_events() if event.subject == job]
            late = kept is not None and len(found) < kept.value.event_number
            if not late or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(0.02)

    async def all_events(self) -> list[CloudEvent]:
        found = [json.loads(body) for body in await self._stored(self.core.bus.subjects.events_stream)]
        others = ("io.snappy.security.", "io.snappy.schedule.", "io.snappy.source.")
        return [msgspec.convert(event, CloudEvent) for event in found if not event["type"].startswith(others)]

    async def schedule_events(self) -> list[str]:
        """What happened to schedules, in order."""
        found = [json.loads(body)["type"] for body in await self._stored(self.core.bus.subjects.events_stream)]
        return [name.rpartition(".")[2] for name in found if ".schedule." in name]

    async def source_events(self) -> list[str]:
        """Which promises were broken, or hold again, in order."""
        found = [json.loads(body)["type"] for body in await self._stored(self.core.bus.subjects.events_stream)]
        return [name.rpartition(".")[2] for name in found if ".source." in name]

    async def refusals(self) -> list[str]:
        """The reasons of the messages that the core dropped."""
        found = [json.loads(body) for body in await self._stored(self.core.bus.subjects.events_stream)]
        return [event["data"]["reason"] for event in found if "security" in event["type"]]

    async def _stored(self, stream: str) -> list[bytes]:
        js = self.core.bus.js
        state = (await js.stream_info(stream)).state
        found = [await js.get_msg(stream, seq) for seq in range(max(1, state.first_seq), state.last_seq + 1)]
        return [message.data or b"" for message in found]

    async def close(self) -> None:
        """The server reserves room for each stream, so they do not outlive their test."""
        for core in list(self._running):
            await self.stop_core(core)
        subjects = self.core.bus.subjects
        for stream in [*streams.streams(subjects), *streams.buckets(subjects)]:
            await self.core.bus.js.delete_stream(stream.name)
        for bus in self.buses:
            await bus.drain()


@asynccontextmanager
async def stack_on(url: str) -> AsyncIterator[Stack]:
    """A core, a source service ``site1`` and a target service ``vault``."""
    stack = Stack(url, Clock())
    try:
        await stack.start_core()
        await stack.target()
        yield stack
    finally:
        await stack.close()
