"""Processes that die while an object is on its way: it is whole afterwards, or not there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.remote import Patience
from snappy.bus.uploads import Upload
from snappy.errors import BusUnavailable
from snappy.targets.drafts import PART_SUFFIX
from snappy.targets.opening import open_target
from tests.support.mortal import die_with_parent
from tests.support.natsserver import NatsServer, nats_server

PATIENT = Patience(answer=2.0, frame=2.0, commit=20.0, attempts=6, delay=0.05)
CONTENT = os.urandom(24 << 20)
NAME = f"data/{hashlib.sha256(CONTENT).hexdigest()}"
HALF = 8 << 20

TARGET_PROGRAM = """
import asyncio, sys
from snappy import config
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer
from snappy.targets.opening import open_target

async def main(url, folder):
    bus = await Bus.connect(config.Nats(url=url), name="target", user="vault")
    await FileServer(bus, open_target(folder, rights="rlwWd"), target="vault").start()
    print("ready", flush=True)
    await bus.wait_closed()

asyncio.run(main(*sys.argv[1:]))
"""


class Target:
    """A target service's file server in a process of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self._command = [sys.executable, "-c", TARGET_PROGRAM, url, str(folder)]
        self.start()
        self.wait_ready()

    def start(self) -> None:
        """In a thread that lasts: the process dies with it."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=die_with_parent
        )

    def wait_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """May be called again."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running_target(url: str, folder: Path) -> Iterator[Target]:
    target = Target(url, folder)
    try:
        yield target
    finally:
        target.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "vault"
    made.mkdir()
    return made


def caller(url: str) -> SnappyFileSystem:
    return SnappyFileSystem("vault", url, "site1", asynchronous=True, patience=PATIENT)


async def test_a_target_killed_on_the_way_leaves_nothing_that_shows(server: NatsServer, folder: Path) -> None:
    with running_target(server.url, folder) as target:
        fs = caller(server.url)
        upload = await fs.objects.open_upload(NAME, "create", len(CONTENT))
        await upload.write(CONTENT[:HALF])
        target.kill()
        left = [path.name for path in (folder / "data").iterdir()]
        assert [name.endswith(PART_SUFFIX) for name in left] == [True]
        assert open_target(str(folder)).find("") == []
        assert list((folder / "data").iterdir()) == []
        await fs.aclose()


async def test_a_put_goes_on_when_the_target_is_started_again(server: NatsServer, folder: Path) -> None:
    with running_target(server.url, folder) as target:
        fs = caller(server.url)
        await fs._ls("")
        sent: list[int] = []

        def count(size: int) -> None:
            sent.append(size)
            if sum(sent) > HALF and not killed.is_set():
                killed.set()
                target.kill()

        killed = asyncio.Event()
        source = folder.parent / "source"
        source.write_bytes(CONTENT)
        with source.open("rb") as file:
            putting = asyncio.create_task(fs.objects.write_file(NAME, file, len(CONTENT), "create", count))
            await killed.wait()
            target.start()
            await asyncio.to_thread(target.wait_ready)
            await putting
        assert sum(sent) > len(CONTENT)
        assert (folder / NAME).read_bytes() == CONTENT
        assert [path.name for path in (folder / "data").iterdir()] == [NAME.removeprefix("data/")]
        await fs.aclose()


async def test_a_target_that_died_is_noticed_long_before_a_slow_one_is_given_up(
    server: NatsServer, folder: Path
) -> None:
    fs = SnappyFileSystem("vault", server.url, "site1", asynchronous=True)
    assert fs.objects._remote.patience.frame > 15.0
    with running_target(server.url, folder) as target:
        upload = await fs.objects.open_upload(NAME, "create", len(CONTENT))
        target.freeze()
        writing = asyncio.create_task(upload.write(CONTENT[: 4 << 20]))
        await asyncio.wait({writing}, timeout=3.0)
        target.kill()
        with pytest.raises(BusUnavailable, match="nobody answers"):
            await asyncio.wait_for(written(writing, upload), 15.0)
        await fs.aclose()


async def written(writing: asyncio.Task[None], upload: Upload) -> None:
    await writing
    await upload.commit()


@pytest.mark.parametrize("when", [1 << 20, HALF, len(CONTENT) - (1 << 20)])
async def test_a_put_goes_on_when_the_nats_server_is_started_again(server: NatsServer, folder: Path, when: int) -> None:
    with running_target(server.url, folder):
        fs = caller(server.url)
        await fs._ls("")
        sent: list[int] = []
        reached = asyncio.Event()

        def count(size: int) -> None:
            sent.append(size)
            if sum(sent) >= when:
                reached.set()

        source = folder.parent / "source"
        source.write_bytes(CONTENT)
        with source.open("rb") as file:
            putting = asyncio.create_task(fs.objects.write_file(NAME, file, len(CONTENT), "create", count))
            await reached.wait()
            await server.restart_meanwhile()
            await putting
        assert (folder / NAME).read_bytes() == CONTENT
        assert await fs._cat_file(NAME) == CONTENT
        await fs.aclose()


async def test_a_get_goes_on_when_the_nats_server_is_started_again(server: NatsServer, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / NAME).write_bytes(CONTENT)
    with running_target(server.url, folder):
        fs = caller(server.url)
        pieces = (await fs.objects.download(NAME, 0, None)).pieces()
        got = [bytes(await anext(pieces))]
        await server.restart_meanwhile()
        got += [bytes(piece) async for piece in pieces]
        assert b"".join(got) == CONTENT
        await fs.aclose()
