"""What a job costs beside its work: from command to final event, jobs a second, appends of the audit log.

    python -m bench.jobs
    python -m bench.jobs --jobs 200 --entries 100000 --workers 1

A *null* job is an ``init`` whose task returns at once: the bench's source services are Snappy's own (claim, hold,
attempt, reports) but for the work itself, so that no repository is opened. nats-server, core and each source service
are processes of their own; JetStream syncs each write (``sync_interval: always``).

* *command to final event*: commands published one after another, each as its predecessor's final event arrives; then
  the same for backups of ten unchanged files by a whole site (``deploy/nats.conf``, core, audit, target, source), whose
  source service has the key of the repository from the jobs before;
* *jobs a second*: all commands published at once, from the first one to the last final event;
* *appends a second*: one entry, one sync each, into a log that holds few entries and into one that holds many.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import secrets
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
from nats.aio.msg import Msg

from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.grants import SigningKey
from snappy.bus.program import find
from snappy.bus.tuning import tune_process
from snappy.jobs.auditlog import AuditLog
from snappy.jobs.core import Core
from snappy.jobs.messages import Beat, HoldRequest, Result
from snappy.repository.progress import Progress
from snappy.sources.hold import Hold
from snappy.sources.service import SourceService
from tests.support.faults import Arena, arena, make_noise

SOURCE, TARGET, SUBMITTER = "site1", "vault", "alice"
FINAL = frozenset({"succeeded", "failed", "cancelled", "rejected"})
LISTENING = re.compile(r"Listening for client connections on (\S+)")
CONFIG = 'listen: "127.0.0.1:-1"\njetstream {{ store_dir: "{}", sync_interval: always, max_file_store: 8GB }}\n'
WARM_UP = 20
WINDOW = 256
"""Commands on their way to the server at once."""
APPENDS = 500
FEW = 1_000
BATCH = 1_000
UNCHANGED_BYTES = 10_000
SITE = ("core", "audit", "vault", "site1")


class NullService(SourceService):
    """A source service whose jobs are nothing."""

    async def _work(self, hold: Hold, progress: Progress) -> Result:
        return Result()


# ---- processes -------------------------------------------------------------------------------------------------------


@contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    conf = folder / "nats.conf"
    conf.write_text(CONFIG.format(folder / "store"))
    with subprocess.Popen([find(os.environ), "-c", str(conf)], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(match[1] for line in process.stderr if (match := LISTENING.search(line)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield f"nats://{address}"
        finally:
            process.terminate()


async def run_core(url: str, ready: Callable[[], None]) -> None:
    bus = await Bus.connect(config.Nats(url=url), name="core", user="core")
    core = Core(bus, config.Core(), SigningKey.generate(), private_inboxes=False)
    await _until_ready(core.run(), core.ready, ready)


async def run_source(url: str, ready: Callable[[], None]) -> None:
    nats = config.Nats(url=url)
    bus = await Bus.connect(nats, name=SOURCE, user=SOURCE)
    settings = config.SourceService(concurrent_jobs=16)
    service = NullService(bus, SOURCE, settings, nats, private_inboxes=False)
    await _until_ready(service.run(), service.ready, ready)


async def _until_ready(running: Any, is_ready: asyncio.Event, ready: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(running)
        await is_ready.wait()
        ready()


def child(role: Callable[[str, Callable[[], None]], Awaitable[None]], url: str, pipe: Connection) -> None:
    """Runs a role until its parent kills it."""
    tune_process()
    asyncio.run(role(url, lambda: pipe.send("ready")))  # type: ignore[arg-type]


@contextmanager
def process(role: Callable[[str, Callable[[], None]], Awaitable[None]], url: str) -> Iterator[None]:
    ours, theirs = multiprocessing.Pipe()
    running = multiprocessing.get_context("spawn").Process(target=child, args=(role, url, theirs), daemon=True)
    running.start()
    ours.recv()
    try:
        yield
    finally:
        running.kill()
        running.join()


# ---- jobs ------------------------------------------------------------------------------------------------------------


class Submitter:
    """Publishes jobs, by default null ones, and hears their final events."""

    def __init__(self, bus: Bus, kind: str = "init", **command: Any) -> None:
        self.bus, self._kind, self._command = bus, kind, command
        self._ended: dict[str, asyncio.Future[str]] = {}

    async def begin(self) -> None:
        await self.bus.listen(self.bus.subjects.event("*", "*", "*"), "", self._hear)

    async def _hear(self, message: Msg) -> None:
        event = message.subject.split(".")[-2]
        if event in FINAL and not (ended := self._ended.pop(json.loads(message.data)["request"])).done():
            ended.set_result(event)

    async def submit(self) -> asyncio.Future[str]:
        """Stored by the server when this returns; the value comes with the job's final event."""
        request = secrets.token_hex(8)
        self._ended[request] = ended = asyncio.get_running_loop().create_future()
        command = {"source": SOURCE, "target": TARGET, "request": request, **self._command}
        await self.bus.store(self.bus.subjects.command(self._kind, SUBMITTER), json.dumps(command).encode())
        return ended

    async def timed(self) -> float:
        """Seconds from command to final event."""
        began = time.perf_counter()
        assert await (await self.submit()) == "succeeded"
        return time.perf_counter() - began

    async def rate(self, count: int) -> float:
        """Jobs a second, ``count`` submitted at once."""
        room, began = asyncio.Semaphore(WINDOW), time.perf_counter()

        async def one() -> str:
            async with room:
                ended = await self.submit()
            return await ended

        outcomes = await asyncio.gather(*(one() for _ in range(count)))
        assert set(outcomes) == {"succeeded"}
        return count / (time.perf_counter() - began)


async def measure_jobs(url: str, count: int) -> tuple[list[float], float]:
    """Seconds of jobs one by one, and jobs a second at once."""
    target = await Bus.connect(config.Nats(url=url), name=TARGET, user=TARGET)
    beat = Beat(service=TARGET, replica="r1", role="target", version="0")
    await target.request(
        target.subjects.hold("beat", TARGET, "r1"), msgspec.json.encode(HoldRequest(beat=beat)), timeout=5.0
    )
    submitter = Submitter(await Bus.connect(config.Nats(url=url), name=SUBMITTER, user=SUBMITTER))
    await submitter.begin()
    seconds = await one_by_one(submitter, max(100, count // 5))
    rate = await submitter.rate(count)
    await submitter.bus.drain()
    await target.drain()
    return seconds, rate


async def one_by_one(submitter: Submitter, count: int) -> list[float]:
    """Seconds of each job, after some that do not count."""
    for _ in range(WARM_UP):
        await submitter.timed()
    return [await submitter.timed() for _ in range(count)]


async def measure_backups(site: Arena, count: int) -> list[float]:
    """Seconds of backups of ten files that do not change."""
    tree = make_noise(site.data / "tree", 10 * UNCHANGED_BYTES, UNCHANGED_BYTES)
    bus = await Bus.connect(config.load(str(site.configure(SUBMITTER)), {}).nats, name="bench")
    submitter = Submitter(bus, "backup", init=True, options={"paths": [str(tree)]})
    await submitter.begin()
    seconds = await one_by_one(submitter, count)
    await bus.drain()
    return seconds


# ---- the audit log ---------------------------------------------------------------------------------------------------


def measure_appends(folder: Path, entries: int) -> dict[int, float]:
    """Appends a second, by how many entries the log holds."""
    found: dict[int, float] = {}
    log = AuditLog(folder)
    for wanted in (FEW, entries):
        while (missing := wanted - len(log)) > 0:
            log.append([_entry(number) for number in range(min(BATCH, missing))])
        found[wanted] = _append_rate(log)
    log.close()
    return found


def _append_rate(log: AuditLog) -> float:
    began = time.perf_counter()
    for number in range(APPENDS):
        log.append([_entry(number)])
    return APPENDS / (time.perf_counter() - began)


def _entry(number: int) -> dict[str, Any]:
    event = {"id": f"job/{number}", "type": "io.snappy.backup.succeeded", "data": {"id": "job", "result": "x" * 200}}
    return {"epoch": 1, "sequence": number, "time": float(number), "subject": "snappy.event.x", "event": event}


# ---- all of it -------------------------------------------------------------------------------------------------------


def main() -> None:
    arguments = argparse.ArgumentParser(description="what a job costs beside its work")
    arguments.add_argument("--jobs", type=int, default=1000, help="jobs queued at once")
    arguments.add_argument("--workers", type=int, default=2, help="replicas of the source service")
    arguments.add_argument("--entries", type=int, default=1_000_000, help="entries of the large audit log; 0: none")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, nats_server(Path(name)) as url, ExitStack() as running:
        running.enter_context(process(run_core, url))
        for _ in range(chosen.workers):
            running.enter_context(process(run_source, url))
        seconds, rate = asyncio.run(measure_jobs(url, chosen.jobs))
    _say_times("null jobs", seconds)
    with (
        tempfile.TemporaryDirectory() as name,
        arena(Path(name), processes=("core", "audit", "vault", "site1")) as site,
    ):
        _say_times("backups of ten unchanged files", asyncio.run(measure_backups(site, max(100, chosen.jobs // 5))))
    print(f"{chosen.jobs} queued at once: {rate:.0f} jobs a second ({chosen.workers} replicas)")
    if chosen.entries:
        with tempfile.TemporaryDirectory() as name:
            for entries, appends in measure_appends(Path(name, "audit"), chosen.entries).items():
                print(f"audit log of {entries:,} entries: {appends:.0f} appends a second, each synced")


def _say_times(jobs: str, seconds: list[float]) -> None:
    cuts = statistics.quantiles(seconds, n=100)
    times = f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms"
    print(f"command to final event, {jobs}: {times} ({len(seconds)} jobs)")


if __name__ == "__main__":
    main()
