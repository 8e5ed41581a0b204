"""Bytes a second of a put through the bus, beside a bare request and reply loop.

    python -m bench.put                      # 2 GiB a run, five interleaved rounds
    python -m bench.put --gib 0.25 --rounds 1

Each run is three processes: a sender, a receiver and the nats-server. Both kinds of run have the same nats-py
settings (:func:`snappy.bus.tuning.tune_process`), the same connection options and frames of the same size:

* *loop*: nats-py as it is. The receiver answers each frame with nothing; the sender keeps 1, 4 or 8 requests under
  way. The best of the three is the denominator.
* *ours*: the same loop over connections of Snappy's own, whose transport (:mod:`snappy.bus.wire`) copies less. What
  the put loses against the best of these is what hashing, writing and the protocol of a put cost.
* *put*: objects of 16 MiB named by their SHA-256, which the receiver computes and compares with the name, into
  ``memory://`` and into a local folder with fsync of file and folder. Two puts run at a time, as in a backup.

The ratio is taken within a round, the median over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from nats.aio.client import Client
from nats.aio.msg import Msg

from snappy import config
from snappy.bus import login
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.program import find
from snappy.bus.protocol import FRAME_LIMIT, PREFIX_SIZE
from snappy.bus.tuning import tune_process
from snappy.targets.opening import open_target

OBJECT = 16 << 20
OBJECTS = 8
"""Different objects; they are sent over and over."""
WINDOWS = (1, 4, 8)
PARALLEL = 2
LOOP, OURS = "loop", "ours"
TARGET, SENDER = "vault", "site1"
LISTENING = re.compile(r"Listening for client connections on (\S+)")
CONFIG = 'max_payload: 2MB\nmax_pending: 128MB\nwrite_deadline: "10s"\n'


# ---- the receiver, in a process of its own -----------------------------------------------------------------------


def receiver(url: str, storage: str, ready: Connection) -> None:
    """Answers the loop, or serves ``storage``, until its parent closes the pipe."""
    tune_process()
    asyncio.run(_receive(url, storage, ready))


async def _receive(url: str, storage: str, ready: Connection) -> None:
    bus = await Bus.connect(config.Nats(url=url), name="bench receiver", user=TARGET)
    bare = await bare_client(url, TARGET)
    if storage:
        server = FileServer(bus, open_target(storage, rights="rlwWd"), target=TARGET)
        await server.start()
    else:
        for kind, client in ((LOOP, bare), (OURS, bus.nc)):
            await client.subscribe(kind, cb=_answer)
            await client.flush()
    ready.send("ready")
    await asyncio.to_thread(_wait_for_end, ready)
    await bus.drain()
    await bare.close()


async def _answer(message: Msg) -> None:
    await message.respond(b"")


async def bare_client(url: str, user: str) -> Client:
    """nats-py's own, with the options that :class:`Bus` gives it."""
    client = Client()
    await client.connect(**login.options(config.Nats(url=url), user))
    return client


def _wait_for_end(ready: Connection) -> None:
    try:
        ready.recv()
    except EOFError:
        return


@contextmanager
def receiving(url: str, storage: str) -> Iterator[None]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receiver, args=(url, storage, theirs))
    process.start()
    ours.recv()
    try:
        yield
    finally:
        ours.send("end")
        process.join()


# ---- the sender --------------------------------------------------------------------------------------------------


async def loop_rate(url: str, total: int, window: int, kind: str) -> float:
    """MB/s of requests without more, ``window`` at a time."""
    bus = await Bus.connect(config.Nats(url=url), name="bench sender", user=SENDER)
    bare = await bare_client(url, SENDER)
    asked = bus.nc if kind == OURS else bare
    payload = os.urandom(PREFIX_SIZE + FRAME_LIMIT)
    count = total // FRAME_LIMIT

    async def one() -> None:
        await asked.request(kind, payload, timeout=30)

    seconds = await _timed(count, window, one)
    await bus.drain()
    await bare.close()
    return total / seconds / 1e6


async def put_rate(url: str, total: int, objects: list[tuple[str, bytes]], window: int) -> float:
    """MB/s of puts, :data:`PARALLEL` at a time."""
    fs = SnappyFileSystem(TARGET, url, SENDER, asynchronous=True, window=window)
    await fs._ls("")
    turn = cycle(objects)

    async def one() -> None:
        name, content = next(turn)
        await fs._pipe_file(f"data/{name[:2]}/{name}", content)

    seconds = await _timed(total // OBJECT, PARALLEL, one)
    await fs.aclose()
    return total / seconds / 1e6


async def _timed(count: int, parallel: int, work: Callable[[], Awaitable[None]]) -> float:
    """Seconds for ``count`` times ``work``, ``parallel`` at a time."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(parallel)))
    return time.perf_counter() - start


# ---- rounds ------------------------------------------------------------------------------------------------------


@contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    conf = folder / "nats.conf"
    conf.write_text(f'{CONFIG}listen: "127.0.0.1:-1"\n')
    command = [find(os.environ), "-c", str(conf)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield _address(process.stderr)
        finally:
            process.terminate()


def _address(log: IO[str]) -> str:
    for line in log:
        if match := LISTENING.search(line):
            threading.Thread(target=log.read, daemon=True).start()
            return f"nats://{match[1]}"
    raise RuntimeError("nats-server did not start")


def run_round(url: str, folder: Path, total: int, window: int, objects: list[tuple[str, bytes]]) -> dict[str, float]:
    """MB/s by the kind of run."""
    found: dict[str, float] = {}
    with receiving(url, ""):
        for kind, each in product((LOOP, OURS), WINDOWS):
            found[f"{kind} {each}"] = asyncio.run(loop_rate(url, total, each, kind))
    for kind, storage in (("memory", "memory://bench"), ("folder", (folder / "vault").as_uri())):
        with receiving(url, storage):
            found[kind] = asyncio.run(put_rate(url, total, objects, window))
    return found


def made_objects() -> list[tuple[str, bytes]]:
    contents = [os.urandom(OBJECT) for _ in range(OBJECTS)]
    return [(hashlib.sha256(content).hexdigest(), content) for content in contents]


def report(rounds: list[dict[str, float]]) -> None:
    for kind in rounds[0]:
        rates = [each[kind] for each in rounds]
        print(f"{kind:<8} {statistics.median(rates):7.0f} MB/s   ({', '.join(f'{rate:.0f}' for rate in rates)})")
    for loop, kind in product((LOOP, OURS), ("memory", "folder")):
        ratios = [each[kind] / max(each[f"{loop} {window}"] for window in WINDOWS) for each in rounds]
        print(f"put into {kind}, against the best {loop} of its round: {statistics.median(ratios):.2f} (median)")


def main() -> None:
    arguments = argparse.ArgumentParser(description="put through the bus against a bare request and reply loop")
    arguments.add_argument("--gib", type=float, default=2.0, help="GiB a run")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--window", type=int, default=4, help="frames under way in a put")
    arguments.add_argument("--folder", type=Path, help="where the local target lies (default: a temporary folder)")
    chosen = arguments.parse_args()
    total = max(OBJECT, int(chosen.gib * 2**30) // OBJECT * OBJECT)
    tune_process()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name, nats_server(Path(name)) as url:
        objects = made_objects()
        rounds = [run_round(url, Path(name), total, chosen.window, objects) for _ in range(chosen.rounds)]
    print(f"{total / 2**30:.2f} GiB a run, frames of {FRAME_LIMIT >> 10} KiB, objects of {OBJECT >> 20} MiB")
    report(rounds)


if __name__ == "__main__":
    main()
