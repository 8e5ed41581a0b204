"""The direct way: what it promises beside the frames, and who is kept out."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snappy import config
from snappy.bandwidth import Timetable
from snappy.bus.connection import Bus
from snappy.bus.direct import AVAILABLE, TOKEN_SIZE, WELCOME, Dialer
from snappy.bus.fileserver import FileServer, Limits
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import Grant
from snappy.bus.protocol import Read, ReadAnswer
from snappy.bus.remote import Patience
from snappy.bus.throttle import Throttles
from snappy.bus.uploads import Upload
from snappy.errors import AttemptOver, BusUnavailable, Corrupt, NoSpace, Unavailable
from snappy.targets.local import LocalDraft
from snappy.targets.opening import open_target
from snappy.targets.policy import PolicyFileSystem
from tests.support.fileservers import ALL_RIGHTS
from tests.support.natsserver import NatsServer

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="no abstract sockets here")

BIG = os.urandom((5 << 20) + 17)
BIG_NAME = f"data/{hashlib.sha256(BIG).hexdigest()}"
SECONDS = 5.0
QUICK = Patience(answer=2.0, frame=5.0, commit=5.0, attempts=3, delay=0.02)


class Pair(NamedTuple):
    server: FileServer
    files: SnappyFileSystem

    @property
    def carried(self) -> int:
        """Bytes that came and went over NATS, as the caller saw it."""
        stats = self.files._remote._bus.nc.stats  # type: ignore[union-attr]
        return int(stats["in_bytes"] + stats["out_bytes"])

    async def opened(self, user: int = os.geteuid()) -> ReadAnswer:
        """A get that has begun, for a caller who runs as ``user``."""
        request = Read(path=BIG_NAME, max_payload=await self.files._remote.max_payload(), user=user)
        return await self.files._remote.ask("read", request, ReadAnswer)


@asynccontextmanager
async def paired(url: str, files: PolicyFileSystem, *, offer: bool = True, **options: Any) -> AsyncIterator[Pair]:
    target = f"vault-{secrets.token_hex(4)}"
    bus = await Bus.connect(config.Nats(url=url), name=target, user=target)
    caller_options = {name: options.pop(name) for name in ("direct", "read_digest") if name in options}
    server = FileServer(bus, files, target=target, direct=offer, **options)
    await server.start()
    caller = SnappyFileSystem(target, url, "site1", asynchronous=True, patience=QUICK, **caller_options)
    try:
        yield Pair(server, caller)
    finally:
        await server.close()
        await bus.drain()
        await caller.aclose()


def in_memory() -> PolicyFileSystem:
    return PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", ALL_RIGHTS)


@pytest.fixture(params=["file", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> PolicyFileSystem:
    return open_target(f"file://{tmp_path}/kept", rights=ALL_RIGHTS) if request.param == "file" else in_memory()


@pytest.fixture
async def pair(storage: PolicyFileSystem, stock_nats: NatsServer) -> AsyncIterator[Pair]:
    async with paired(stock_nats.url, storage) as made:
        yield made


@pytest.mark.parametrize("digest", [True, False])
async def test_objects_go_past_nats(storage: PolicyFileSystem, stock_nats: NatsServer, digest: bool) -> None:
    async with paired(stock_nats.url, storage, read_digest=digest) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        await pair.files._pipe_file("plain", BIG)
        assert await pair.files._cat_file(BIG_NAME) == BIG
        assert await pair.files._cat_file("plain", 7, -9) == BIG[7:-9]
        assert pair.carried < 100_000


@pytest.mark.parametrize("ends", [{"offer": False}, {"direct": False}])
async def test_either_end_may_insist_on_frames(stock_nats: NatsServer, ends: dict[str, bool]) -> None:
    async with paired(stock_nats.url, in_memory(), **ends) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        assert await pair.files._cat_file(BIG_NAME) == BIG
        assert pair.carried > 2 * len(BIG)


async def test_files_are_sent_and_received_whole(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(BIG)
    await pair.files._put_file(str(tmp_path / "here"), "x")
    await pair.files._get_file("x", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == BIG
    assert pair.carried < 100_000


async def test_many_at_the_same_time_each_get_their_own(pair: Pair) -> None:
    contents = [os.urandom((1 << 20) + number) for number in range(24)]
    await asyncio.gather(*(pair.files._pipe_file(f"x{number}", each) for number, each in enumerate(contents)))
    assert await pair.files._cat_ranges([f"x{number}" for number in range(24)], 0, None) == contents


async def test_no_descriptor_stays_open(pair: Pair) -> None:
    content = os.urandom(1 << 20)
    await pair.files._pipe_file("x", content)
    await pair.files._cat_file("x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(500):
        await pair.files._pipe_file("x", content)
        await pair.files._cat_file("x")
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert pair.carried < 100 * len(content)


# ---- who is let in


async def test_a_token_opens_one_line_once(pair: Pair) -> None:
    await pair.files._pipe_file(BIG_NAME, BIG)
    answer = await pair.opened()
    lines = [
        await Dialer(True).dial(answer.direct, answer.user, token, SECONDS)
        for token in ("f" * TOKEN_SIZE, answer.transfer, answer.transfer)
    ]
    assert [line is not None for line in lines] == [False, True, False]
    assert lines[1] is not None
    lines[1].close()


async def test_a_socket_of_another_user_is_shown_no_token(pair: Pair) -> None:
    await pair.files._pipe_file(BIG_NAME, BIG)
    answer = await pair.opened()
    assert await Dialer(True).dial(answer.direct, answer.user + 1, answer.transfer, SECONDS) is None
    line = await Dialer(True).dial(answer.direct, answer.user, answer.transfer, SECONDS)
    assert line is not None
    line.close()


@pytest.mark.needs_root
@pytest.mark.parametrize("right", [0, 65534])
async def test_the_right_token_lets_nobody_in_but_the_caller(pair: Pair, right: int) -> None:
    await pair.files._pipe_file(BIG_NAME, BIG)
    answer = await pair.opened(right)
    program = (
        "import os, socket, sys\n"
        "os.setuid(int(sys.argv[1]))\n"
        "line = socket.socket(socket.AF_UNIX)\n"
        "line.connect('\\0snappy-' + sys.argv[2])\n"
        "try:\n    line.sendall(sys.argv[3].encode()); print(line.recv(1))\n"
        "except OSError:\n    print(b'')\n"
    )

    def said(user: int) -> str:
        words = [sys.executable, "-c", program, str(user), answer.direct, answer.transfer]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    assert await asyncio.to_thread(said, 65534 - right) == repr(b"")
    assert await asyncio.to_thread(said, right) == repr(WELCOME)


async def test_who_shows_no_token_is_hung_up_on(pair: Pair) -> None:
    await pair.files._pipe_file(BIG_NAME, BIG)
    answer = await pair.opened()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(SECONDS)
        line.connect(f"\0snappy-{answer.direct}")
        assert await asyncio.to_thread(line.recv, 1) == b""


async def test_a_name_that_nobody_has_means_frames_and_is_tried_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pair.server._listener is not None
    tried = []
    give_up = Dialer.give_up

    def noted(dialer: Dialer, name: str, error: Exception) -> None:
        tried.append(name)
        give_up(dialer, name, error)

    monkeypatch.setattr(Dialer, "give_up", noted)
    pair.server._listener.name = secrets.token_hex(16)
    await pair.files._pipe_file(BIG_NAME, BIG)
    assert await pair.files._cat_file(BIG_NAME) == BIG
    assert tried == [pair.server._listener.name]
    assert pair.carried > 2 * len(BIG)


@pytest.mark.parametrize("name", ["", "../x", "f" * 31, "F" * 32, "f" * 32 + "\n"])
async def test_a_name_that_is_none_is_not_dialled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snappy.bus.direct._dial", lambda *_: pytest.fail("dialled"))
    assert await Dialer(True).dial(name, os.geteuid(), "f" * TOKEN_SIZE, SECONDS) is None


# ---- what fails


async def test_a_grant_that_ran_out_shows_nothing(stock_nats: NatsServer) -> None:
    over = False

    def gate(_grant: str, _caller: str, _right: str) -> Grant | None:
        if over:
            raise AttemptOver("the grant ran out")
        return None

    async with paired(stock_nats.url, in_memory(), gate=gate) as pair:
        upload = await pair.files.objects.open_upload(BIG_NAME, "create", len(BIG))
        await upload.write(BIG)
        over = True
        with pytest.raises(AttemptOver):
            await upload.commit()
        over = False
        assert not await pair.files._exists(BIG_NAME)
        assert pair.carried < 100_000


async def test_what_does_not_have_its_name_is_refused(pair: Pair) -> None:
    with pytest.raises(Corrupt):
        await pair.files._pipe_file(BIG_NAME, BIG[:-1] + bytes([BIG[-1] ^ 1]))
    assert not await pair.files._exists(BIG_NAME)


async def test_a_put_whose_line_ends_early_is_refused(pair: Pair) -> None:
    upload = await pair.files.objects.open_upload("x", "create", len(BIG))
    await upload.write(BIG)
    upload.size += 1
    with pytest.raises(Corrupt, match="bytes of"):
        await upload.commit()
    assert not await pair.files._exists("x")


async def test_a_full_disk_is_told_as_such(
    tmp_path: Path, stock_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 2 << 20

    def write(_draft: LocalDraft, data: memoryview) -> None:
        nonlocal room
        room -= len(data)
        if room < 0:
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(LocalDraft, "write", write)
    async with paired(stock_nats.url, open_target(f"file://{tmp_path}/kept", rights=ALL_RIGHTS)) as pair:
        with pytest.raises((NoSpace, OSError)) as caught:
            await pair.files._pipe_file(BIG_NAME, BIG)
        assert isinstance(caught.value, NoSpace)
        assert not await pair.files._exists(BIG_NAME)


async def test_an_object_that_ends_early_is_no_object(
    tmp_path: Path, stock_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snappy.bus.transfers.send_file", lambda line, *_: line.send(b"some"))
    async with paired(
        stock_nats.url, open_target(f"file://{tmp_path}/kept", rights=ALL_RIGHTS), read_digest=False
    ) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        with pytest.raises(Corrupt, match="ended early"):
            await (await pair.files.objects.download(BIG_NAME, 0, None)).read()


async def test_a_line_that_breaks_is_made_good_in_frames(
    tmp_path: Path, stock_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = 0

    def breaks(line: socket.socket, *_: int) -> int:
        nonlocal broken
        broken += 1
        raise ConnectionResetError(line)

    monkeypatch.setattr("snappy.bus.transfers.send_file", breaks)
    storage = open_target(f"file://{tmp_path}/kept", rights=ALL_RIGHTS)
    async with paired(stock_nats.url, storage, read_digest=False) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        assert await pair.files._cat_file(BIG_NAME) == BIG
        assert broken >= 1
        assert pair.carried > len(BIG)


async def test_a_target_that_goes_leaves_nothing_and_waits_for_nobody(pair: Pair) -> None:
    upload = await pair.files.objects.open_upload(BIG_NAME, "create", len(BIG))
    await upload.write(BIG[: 1 << 20])  # and neither more nor an end: a thread waits for it
    async with asyncio.timeout(SECONDS):
        await pair.server.close()
    with pytest.raises((Unavailable, BusUnavailable)):
        await _finish(upload, BIG[1 << 20 :])
    await upload.discard()
    assert not pair.server._files.exists(BIG_NAME)


async def _finish(upload: Upload, rest: bytes) -> None:
    await upload.write(rest)
    await upload.commit()


async def test_a_caller_that_stands_still_is_given_up(stock_nats: NatsServer, tmp_path: Path) -> None:
    limits = Limits(transfers=1, idle_seconds=0.2)
    storage = open_target(f"file://{tmp_path}/kept", rights=ALL_RIGHTS)
    async with paired(stock_nats.url, storage, limits=limits, read_digest=False) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        answer = await pair.opened()
        line = await Dialer(True).dial(answer.direct, answer.user, answer.transfer, SECONDS)
        assert line is not None
        with line:
            async with asyncio.timeout(SECONDS):
                while pair.server.transfers:
                    await asyncio.sleep(0.02)
        assert await pair.files._cat_file(BIG_NAME) == BIG


async def test_a_cancelled_get_ends_at_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    await pair.files._pipe_file(BIG_NAME, BIG)
    stopped = asyncio.Event()
    monkeypatch.setattr("snappy.bus.transfers.GetTransfer.carry", lambda _self, line: bool(line.recv(1)))
    getting = asyncio.create_task(pair.files._cat_file(BIG_NAME))
    await asyncio.sleep(0.3)
    getting.cancel()
    getting.add_done_callback(lambda _task: stopped.set())
    async with asyncio.timeout(SECONDS):
        await stopped.wait()
    assert getting.cancelled()


async def test_what_is_held_to_a_rate_goes_in_frames(stock_nats: NatsServer) -> None:
    throttles = Throttles(Timetable.parse("100M"))
    async with paired(stock_nats.url, in_memory(), throttles=throttles) as pair:
        await pair.files._pipe_file(BIG_NAME, BIG)
        answer = await pair.opened()
        assert answer.direct == ""
        assert pair.server._listener is not None
        name = pair.server._listener.name
        assert await Dialer(True).dial(name, os.geteuid(), answer.transfer, SECONDS) is None
        assert pair.carried > len(BIG)
