"""A NATS server with JetStream and two accounts, and what is written to the streams of one: a ledger of pairs, noise,
and a key-value bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

from tests.support.natsserver import NatsServer, nats_server

ACCOUNTS = ("main", "other")
CONFIG = """
jetstream {{ store_dir: "{folder}/js" }}
accounts {{
  MAIN {{ jetstream: enabled, users: [{{ user: main, password: right }}] }}
  OTHER {{ jetstream: enabled, users: [{{ user: other, password: right }}] }}
  PLAIN {{ users: [{{ user: plain, password: right }}] }}
  NARROW {{ jetstream: enabled, users: [
    {{ user: narrow, password: right, permissions: {{ publish: "nothing", subscribe: ">" }} }}] }}
}}
"""
NOISE_BYTES = 4000
READER = "reader"
Found = TypeVar("Found")


class Jetstream:
    """A running one. All of it may block, and none of it runs in a loop."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self._random = random.Random(1)

    def settings(self, folder: Path) -> dict[str, dict[str, Any]]:
        """By name: the accounts, and what goes wrong."""
        for name in ("right", "wrong"):
            (folder / name).write_text(name)
            (folder / name).chmod(0o600)
        right = {"url": self.server.url, "password": {"file": str(folder / "right")}}
        return {name: right | {"user": name} for name in (*ACCOUNTS, "plain", "narrow")} | {
            "stranger": right | {"user": "main", "password": {"file": str(folder / "wrong")}},
            "down": {"url": "nats://127.0.0.1:1"},
        }

    def run(self, work: Callable[[JetStreamContext], Awaitable[Found]], account: str = "main") -> Found:
        """``work`` with a connection of its own."""

        async def connected() -> Found:
            nc = await self.connect(account)
            try:
                return await work(nc.jetstream())
            finally:
                await nc.close()

        return asyncio.run(connected())

    async def connect(self, account: str = "main") -> Client:
        return await nats.connect(self.server.url, user=account, password="right")

    # ---- what is in it -----------------------------------------------------------------------------------------------

    def fill(self, size: int) -> None:
        """So many bytes of noise, each message with a subject of its own, the ledger and the bucket."""

        async def work(js: JetStreamContext) -> None:
            await js.add_stream(StreamConfig(name="NOISE", subjects=["noise.*"], max_msgs_per_subject=1))
            await js.add_stream(StreamConfig(name="LEDGER", subjects=["ledger.*"]))
            await js.add_consumer("LEDGER", ConsumerConfig(durable_name=READER, ack_policy="explicit", ack_wait=1.0))  # type: ignore[arg-type]
            await js.create_key_value(bucket="PAIRS")
            await self._noise(js, range(size // NOISE_BYTES))

        self.run(work)

    def change(self, share: float) -> None:
        """Other noise under subjects that lie together."""

        async def work(js: JetStreamContext) -> None:
            count = (await js.stream_info("NOISE")).state.messages
            await self._noise(js, range(int(count * share)))

        self.run(work)

    async def _noise(self, js: JetStreamContext, numbers: range) -> None:
        for start in range(numbers.start, numbers.stop, 100):
            some = range(start, min(start + 100, numbers.stop))
            await asyncio.gather(*(js.publish(f"noise.{n}", self._random.randbytes(NOISE_BYTES)) for n in some))

    @contextmanager
    def writing(self) -> Iterator[Callable[[], int]]:
        """Pairs, one after another, each acknowledged; a consumer that is a little behind."""
        over, written = threading.Event(), [0]

        async def write(js: JetStreamContext) -> None:
            reader = await js.pull_subscribe_bind(READER, "LEDGER")
            pairs = await js.key_value("PAIRS")
            while not over.is_set():
                number = b"%d" % written[0]
                for side in ("debit", "credit"):
                    await js.publish(f"ledger.{side}", number)
                for side in ("debit", "credit"):
                    await pairs.put(f"{side}.{written[0]}", number)
                written[0] += 1
                if written[0] % 10 == 0:
                    for message in await reader.fetch(10):
                        await message.ack_sync()

        writer = threading.Thread(target=self.run, args=(write,))
        writer.start()
        try:
            yield lambda: written[0]
        finally:
            over.set()
            writer.join()

    def wipe(self) -> None:
        for account in ACCOUNTS:
            self.wipe_account(account)

    def wipe_account(self, account: str) -> None:
        async def work(js: JetStreamContext) -> None:
            for info in await js.streams_info():
                await js.delete_stream(str(info.config.name))

        self.run(work, account)

    # ---- what came back ----------------------------------------------------------------------------------------------

    def check(self, account: str, ledger: str, noise: int) -> None:
        """So many messages of noise; a ledger without a hole, whose pairs are whole but for the last one."""

        async def work(js: JetStreamContext) -> None:
            assert (await js.stream_info("NOISE")).state.messages == noise
            entries = await messages(js, ledger)
            assert [seq for seq, _, _ in entries] == list(range(1, len(entries) + 1))
            sides = [(f"ledger.{side}", b"%d" % n) for n in range(len(entries)) for side in ("debit", "credit")]
            assert [(subject, data) for _, subject, data in entries] == sides[: len(entries)]
            reader = await js.consumer_info(ledger, READER)
            assert reader.ack_floor
            assert reader.delivered
            assert reader.ack_floor.stream_seq <= reader.delivered.stream_seq <= len(entries)
            keys = [subject.removeprefix("$KV.PAIRS.") for _, subject, _ in await messages(js, "KV_PAIRS")]
            assert keys == [f"{side}.{n}" for n in range(len(keys)) for side in ("debit", "credit")][: len(keys)]

        self.run(work, account)

    def content(self, account: str, ledger: str) -> Any:
        """All messages, with their numbers, and how far the consumer is."""

        async def work(js: JetStreamContext) -> Any:
            found: list[Any] = []
            for stream in ("NOISE", ledger, "KV_PAIRS"):
                info = await js.stream_info(stream)
                held = hashlib.sha256(repr(await messages(js, stream)).encode()).hexdigest()
                found.append((info.state.last_seq, info.config.subjects, held))
            reader = await js.consumer_info(ledger, READER)
            return [*found, reader.ack_floor, reader.delivered and reader.delivered.stream_seq]

        return self.run(work, account)

    def leftovers(self) -> list[str]:
        """Streams that are not finished, snapshots that are still made, what is staged for a restore."""

        async def work(js: JetStreamContext) -> list[str]:
            found = [info.config for info in await js.streams_info()]
            return [str(config.name) for config in found if "snappy-unfinished" in (config.metadata or {})]

        begun = [line for line in self.server.lines if "Starting snapshot for" in line]
        ended = [line for line in self.server.lines if "Completed snapshot of" in line or "Snapshot for stream" in line]
        below = _folders(self.folder / "js")
        staged = [str(path) for path in below if path.name.startswith(("snap-", "js-restore-"))]
        return [*(name for account in ACCOUNTS for name in self.run(work, account)), *begun[len(ended) :], *staged]


def _folders(above: Path) -> Iterator[Path]:
    """All below, though the server may remove some meanwhile."""
    for folder, names, files in os.walk(above):
        yield from (Path(folder, name) for name in (*names, *files))


async def messages(js: JetStreamContext, stream: str) -> list[tuple[int, str, bytes]]:
    """Number, subject and data of each, in order."""
    try:
        count = (await js.stream_info(stream)).state.messages
    except NotFoundError:
        return []
    if not count:
        return []
    found: list[tuple[int, str, bytes]] = []
    subscription = await js.subscribe(">", stream=stream, ordered_consumer=True)
    async for message in subscription.messages:
        found.append((message.metadata.sequence.stream, message.subject, message.data))
        if len(found) == count:
            break
    await subscription.unsubscribe()
    return found


@contextmanager
def running(folder: Path) -> Iterator[Jetstream]:
    """A server whose files lie in ``folder``."""
    with nats_server(folder, CONFIG.format(folder=folder)) as server:
        yield Jetstream(server, folder)
