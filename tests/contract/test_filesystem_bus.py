"""What the filesystem over NATS promises beyond fsspec's suite, on a real nats-server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from nats.aio.msg import Msg

from snappy import config
from snappy.bandwidth import Timetable
from snappy.bus.connection import Bus
from snappy.bus.fileserver import FileServer, Limits
from snappy.bus.filesystem import SnappyFileSystem
from snappy.bus.grants import Grant
from snappy.bus.protocol import (
    OPERATIONS,
    Answer,
    Commit,
    Kind,
    Open,
    OpenAnswer,
    PathRequest,
    decode,
    encode,
    pack_frame,
    parse_frame,
    seal,
    unseal,
)
from snappy.bus.remote import Patience
from snappy.bus.throttle import Throttles
from snappy.bus.transfers import PutTransfer
from snappy.bus.uploads import Upload
from snappy.errors import (
    AccessDenied,
    AlreadyExists,
    AttemptOver,
    BusError,
    BusUnavailable,
    ClockSkew,
    Corrupt,
    NotFound,
    SnappyError,
    Unavailable,
    UsageError,
)
from snappy.targets.opening import open_target
from snappy.targets.policy import APPEND_ONLY, PolicyFileSystem
from tests.support.fileservers import ALL_RIGHTS, served
from tests.support.natsserver import NatsServer, nats_server
from tests.support.weed import Weed

FRAME = (1 << 20) - 4096
"""Bytes of data in a frame on a stock server."""
QUICK = Patience(answer=1.0, frame=0.5, commit=5.0, attempts=4, delay=0.02)
BIG = os.urandom(5 * FRAME + 17)
BIG_NAME = f"data/{hashlib.sha256(BIG).hexdigest()}"


class Stage:
    """A target and its caller on one event loop. ``options`` go to the file server."""

    def __init__(self, url: str, files: PolicyFileSystem, **options: Any) -> None:
        self.target = f"vault-{secrets.token_hex(4)}"
        self.url, self.files, self._options = url, files, options
        self.callers: list[SnappyFileSystem] = []
        self.server: FileServer
        self.bus: Bus

    def caller(self, name: str = "site1", **options: Any) -> SnappyFileSystem:
        settings = {"patience": QUICK, **options}
        made = SnappyFileSystem(self.target, self.url, name, asynchronous=True, **settings)
        self.callers.append(made)
        return made

    async def serve(self) -> None:
        self.server = FileServer(self.bus, self.files, target=self.target, **self._options)
        await self.server.start()

    async def connect(self, user: str) -> Bus:
        return await Bus.connect(config.Nats(url=self.url), name=user, user=user)


@asynccontextmanager
async def staged(url: str, files: PolicyFileSystem | None = None, **options: Any) -> AsyncIterator[Stage]:
    stage = Stage(url, files or in_memory(), **options)
    stage.bus = await stage.connect(stage.target)
    await stage.serve()
    try:
        yield stage
    finally:
        await stage.server.close()
        await stage.bus.drain()
        for caller in stage.callers:
            await caller.aclose()


def in_memory(rights: str = ALL_RIGHTS) -> PolicyFileSystem:
    return PolicyFileSystem(MemoryFileSystem(), f"/{secrets.token_hex(8)}", rights)


@pytest.fixture
async def stage(stock_nats: NatsServer) -> AsyncIterator[Stage]:
    async with staged(stock_nats.url) as made:
        yield made


@pytest.fixture
def fs(stage: Stage) -> SnappyFileSystem:
    return stage.caller()


# ---- content


@pytest.mark.parametrize("size", [0, 1, FRAME - 200, FRAME, FRAME + 1, 3 * FRAME, 5 * FRAME + 17])
async def test_any_size_comes_back_as_it_was(fs: SnappyFileSystem, size: int) -> None:
    content = os.urandom(size)
    await fs._pipe_file("x", content)
    assert await fs._cat_file("x") == content
    assert (await fs._info("x"))["size"] == size


@pytest.mark.parametrize("size", [100, 3 * FRAME])
async def test_what_lies_in_anothers_memory_is_sent_from_there(fs: SnappyFileSystem, size: int) -> None:
    memory = bytearray(os.urandom(size))
    content = bytes(memory)
    for name in ("x", "y"):
        await fs._pipe_file(name, memoryview(memory))
        memory[:] = bytes(size) if name == "x" else content
    assert await fs._cat_file("x") == content
    assert await fs._cat_file("y") == bytes(size)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 10), (FRAME - 1, FRAME + 1), (7, None), (None, 2 * FRAME), (-10, None), (-FRAME * 2, -5), (10, 10), (10, 5)],
)
async def test_any_range_is_the_slice(fs: SnappyFileSystem, start: int | None, end: int | None) -> None:
    await fs._pipe_file(BIG_NAME, BIG)
    assert await fs._cat_file(BIG_NAME, start, end) == BIG[start:end]


async def test_a_range_that_ends_past_the_object_is_cut(fs: SnappyFileSystem) -> None:
    await fs._pipe_file(BIG_NAME, BIG)
    assert await fs._cat_file(BIG_NAME, 10, len(BIG) + 5000) == BIG[10:]


async def test_many_ranges_come_in_their_order(fs: SnappyFileSystem) -> None:
    await fs._pipe_file(BIG_NAME, BIG)
    starts = [number * 1000 for number in range(100)]
    got = await fs._cat_ranges([BIG_NAME] * 100, starts, [start + 1500 for start in starts])
    assert got == [BIG[start : start + 1500] for start in starts]


async def test_the_first_error_of_many_ranges_is_raised(fs: SnappyFileSystem) -> None:
    await fs._pipe_file("x", b"content")
    with pytest.raises(FileNotFoundError):
        await fs._cat_ranges(["x", "none"], 0, 4)
    got = await fs._cat_ranges(["x", "none"], 0, 4, on_error="return")
    assert got[0] == b"cont"
    assert isinstance(got[1], NotFound)


async def test_a_caller_with_a_proof_of_its_own_reads_without_a_digest(stage: Stage) -> None:
    fs = stage.caller(read_digest=False)
    await fs._pipe_file(BIG_NAME, BIG)
    assert await fs._cat_file(BIG_NAME) == BIG


async def test_more_than_a_page_is_listed(stage: Stage, fs: SnappyFileSystem) -> None:
    names = [f"data/{number:064x}" for number in range(12_345)]
    backing = stage.files.fs
    for name in names:
        backing.pipe_file(f"{stage.files.root}/{name}", b"x")
    assert await fs._find("data") == names
    assert len(await fs._ls("data", detail=False)) == len(names)


async def test_files_go_over_and_come_back(fs: SnappyFileSystem, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    (tmp_path / "small").write_bytes(b"small")
    seen: list[int] = []
    progress = fsspec.Callback(hooks={"seen": lambda size, value: seen.append(value)})
    await fs._put_file(str(tmp_path / "big"), BIG_NAME, callback=progress)
    await fs._put_file(str(tmp_path / "small"), "small")
    await fs._get_file(BIG_NAME, str(tmp_path / "back" / "big"))
    await fs._get_file("small", str(tmp_path / "back" / "small"))
    assert (tmp_path / "back" / "big").read_bytes() == BIG
    assert (tmp_path / "back" / "small").read_bytes() == b"small"
    assert progress.size == progress.value == max(seen) == len(BIG)


async def test_a_failed_get_leaves_no_file(fs: SnappyFileSystem, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await fs._get_file("none", str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload", ["64KB", "2MB", "8MB"])
async def test_any_max_payload_will_do(payload: str, tmp_path: Path) -> None:
    with nats_server(tmp_path, f"max_payload: {payload}") as server:
        async with staged(server.url) as stage:
            fs = stage.caller()
            await fs._pipe_file(BIG_NAME, BIG)
            assert await fs._cat_file(BIG_NAME) == BIG
            assert await fs._cat_file(BIG_NAME, 5, 500) == BIG[5:500]


# ---- from threads, as a file, by URL


def test_any_thread_may_use_it(stock_nats: NatsServer) -> None:
    target = f"vault-{secrets.token_hex(4)}"
    with served(in_memory(), stock_nats.url, target), ThreadPoolExecutor(8) as pool:
        fs = fsspec.filesystem("snappy", target=target, url=stock_nats.url, caller="site1")

        def round_trip(number: int) -> bool:
            content = os.urandom(FRAME + number)
            fs.pipe_file(f"thread/{number}", content)
            return bool(fs.cat_file(f"thread/{number}") == content)

        assert all(pool.map(round_trip, range(16)))
        fs.close()


def test_files_are_whole_or_not_there(stock_nats: NatsServer) -> None:
    target = f"vault-{secrets.token_hex(4)}"
    with served(in_memory(), stock_nats.url, target):
        fs = fsspec.filesystem("snappy", target=target, url=stock_nats.url, caller="site1")
        for name, content in (("small", b"small"), ("big", BIG)):
            with fs.open(name, "wb", block_size=2 << 20) as file:
                file.write(content)
                assert not fs.exists(name)
            with fs.open(f"snappy://{target}/{name}", "rb") as file:
                assert file.read() == content

        def write_half() -> None:
            with fs.open("half", "wb", block_size=1 << 20) as file:
                file.write(BIG[: 3 << 20])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_half()
        with fs.transaction:
            with fs.open("later", "wb") as file:
                file.write(b"later")
            assert not fs.exists("later")
        assert sorted(fs.find("")) == ["big", "later", "small"]
        fs.close()


def test_it_needs_a_target() -> None:
    with pytest.raises(UsageError):
        SnappyFileSystem(url="nats://127.0.0.1:4222")


# ---- errors


async def test_errors_are_ours_and_those_that_fsspec_s_users_expect(fs: SnappyFileSystem) -> None:
    await fs._pipe_file("there", b"")
    cases: list[tuple[Callable[[], Any], type[SnappyError], type[OSError]]] = [
        (lambda: fs._cat_file("none"), NotFound, FileNotFoundError),
        (lambda: fs._cat_file("none", 0, 10), NotFound, FileNotFoundError),
        (lambda: fs._rm_file("none"), NotFound, FileNotFoundError),
        (lambda: fs._pipe_file("there", b"", mode="create"), AlreadyExists, FileExistsError),
        (lambda: fs._pipe_file("there", BIG, mode="create"), AlreadyExists, FileExistsError),
        (lambda: fs._info("../x"), AccessDenied, PermissionError),
        (lambda: fs._pipe_file("a/../../x", BIG), AccessDenied, PermissionError),
    ]
    for call, ours, theirs in cases:
        with pytest.raises(ours) as raised:
            await call()
        assert isinstance(raised.value, theirs)


@pytest.mark.parametrize("content", [b"small", BIG])
async def test_an_object_is_what_its_name_says(stage: Stage, fs: SnappyFileSystem, content: bytes) -> None:
    with pytest.raises(Corrupt):
        await fs._pipe_file(f"data/{'0' * 64}", content)
    assert stage.files.find("") == []


async def test_append_only_holds_over_the_bus(stock_nats: NatsServer) -> None:
    async with staged(stock_nats.url, in_memory(APPEND_ONLY)) as stage:
        fs = stage.caller()
        await fs._pipe_file("config", b"first")
        lock = f"locks/{hashlib.sha256(b'lock').hexdigest()}"
        await fs._pipe_file(lock, b"lock")
        for call in (
            lambda: fs._pipe_file("config", b"second"),
            lambda: fs._pipe_file("config", BIG),
            lambda: fs._rm_file("config"),
            lambda: fs._cp_file(lock, "config"),
            lambda: fs._rm_file("locks/../config"),
        ):
            with pytest.raises(AccessDenied):
                await call()
        await fs._rm_file(lock)
        assert await fs._find("") == ["config"]
        assert await fs._cat_file("config") == b"first"


async def test_no_path_of_the_server_is_told(stock_nats: NatsServer, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden-folder"
    hidden.mkdir()
    async with staged(stock_nats.url, open_target(str(hidden), rights=ALL_RIGHTS)) as stage:
        fs = stage.caller()
        await fs._pipe_file("file", b"")
        for call in (
            lambda: fs._cat_file("none"),
            lambda: fs._info("none"),
            lambda: fs._ls("none"),
            lambda: fs._rm_file("none"),
            lambda: fs._pipe_file("file/below", b""),
            lambda: fs._pipe_file("file/below", BIG),
            lambda: fs._mkdir("file"),
            lambda: fs._cat_file("x" * 300),
            lambda: fs._pipe_file("x" * 300, b""),
        ):
            with pytest.raises(SnappyError) as raised:
                await call()
            assert "hidden-folder" not in raised.value.message + raised.value.hint + str(raised.value)


@pytest.mark.s3
async def test_no_endpoint_or_credential_is_told(stock_nats: NatsServer, weed: Weed) -> None:
    wrong = {**weed.options, "secret": "not-the-secret"}
    fsspec.filesystem("s3", skip_instance_cache=True, **weed.options).makedirs("told", exist_ok=True)
    for options, url, kind in (
        (wrong, "s3://told/x", AccessDenied),
        ({**weed.options, "endpoint_url": "http://127.0.0.1:9"}, "s3://told/x", Unavailable),
    ):
        async with staged(stock_nats.url, open_target(url, options, rights=ALL_RIGHTS)) as stage:
            fs = stage.caller(patience=Patience(attempts=1))
            with pytest.raises(kind) as raised:
                await fs._pipe_file("config", b"content")
            told = raised.value.message + raised.value.hint
            assert not any(word in told for word in ("127.0.0.1", weed.access_key, "not-the-secret", "told"))


@pytest.mark.s3
async def test_a_bucket_that_is_not_there_is_named_as_the_cause(stock_nats: NatsServer, weed: Weed) -> None:
    files = open_target("s3://no-such-bucket/x", weed.options, rights=ALL_RIGHTS)
    async with staged(stock_nats.url, files) as stage:
        fs = stage.caller()
        with pytest.raises(NotFound, match="the bucket of the target does not exist"):
            await fs._ls("")


async def test_without_a_target_service_that_is_said_soon(stock_nats: NatsServer) -> None:
    fs = SnappyFileSystem("nobody", stock_nats.url, "site1", asynchronous=True, patience=QUICK)
    started = time.monotonic()
    with pytest.raises(BusUnavailable):
        await fs._ls("")
    assert time.monotonic() - started < 3
    await fs.aclose()
    await fs.aclose()


@pytest.mark.parametrize("ahead", [-10.0, 10.0])
async def test_clocks_that_differ_are_an_error(stock_nats: NatsServer, ahead: float) -> None:
    async with staged(stock_nats.url, clock=lambda: time.time() + ahead) as stage:
        fs = stage.caller()
        with pytest.raises(ClockSkew, match="10"):
            await fs._info("")


@asynccontextmanager
async def committing(stage: Stage) -> AsyncIterator[Callable[[], Awaitable[Answer]]]:
    """An empty object that is on its way to the target; each call asks for its commit and gives the answer."""
    bus = await stage.connect("site1")
    request = seal(Open(path="x", max_payload=1 << 20))
    opened = unseal(await bus.request(bus.subjects.fs(stage.target, "open", "site1"), request, timeout=5), OpenAnswer)
    subject = bus.subjects.data(stage.target, opened.replica, "site1", opened.transfer)
    frame = pack_frame(Kind.COMMIT, 0, encode(Commit(size=0, sha256=hashlib.sha256().hexdigest())))

    async def commit() -> Answer:
        return decode(parse_frame(await bus.request(subject, frame, timeout=5)).rest, Answer)

    yield commit
    await bus.drain()


async def test_an_answer_that_is_given_again_tells_the_time_as_it_is_then(stock_nats: NatsServer) -> None:
    """After an outage a commit is sent again, whose first answer was lost."""
    times = iter(range(100, 200))
    async with staged(stock_nats.url, clock=lambda: next(times)) as stage, committing(stage) as commit:
        first, second = await commit(), await commit()
        assert second.clock > first.clock


async def test_what_comes_while_a_transfer_lets_go_is_answered(
    stock_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    monkeypatch.setattr(PutTransfer, "release", lambda transfer: gone.wait(20))
    async with staged(stock_nats.url) as stage, committing(stage) as commit:
        try:
            assert [(await commit()).failure for _ in range(2)] == [None, None]
        finally:
            gone.set()


# ---- the gate


class Gate:
    """A core's word that can be taken back; remembers what it was asked."""

    def __init__(self) -> None:
        self.valid = {"grant-1"}
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, grant: str, caller: str, right: str) -> None:
        self.asked.append((grant, caller, right))
        if grant not in self.valid:
            raise AttemptOver("the attempt is over")


async def test_every_operation_is_put_to_the_gate(stock_nats: NatsServer) -> None:
    gate = Gate()
    async with staged(stock_nats.url, gate=gate) as stage:
        fs = stage.caller("site1", grant="forged")
        for call in (
            lambda: fs._info("x"),
            lambda: fs._exists("x"),
            lambda: fs._ls("x"),
            lambda: fs._find("x"),
            lambda: fs._cat_file("x"),
            lambda: fs._pipe_file("x", b""),
            lambda: fs._pipe_file("x", BIG),
            lambda: fs._cp_file("x", "y"),
            lambda: fs._rm_file("x"),
            lambda: fs._mkdir("x"),
        ):
            gate.asked.clear()
            with pytest.raises(AttemptOver):
                await call()
            assert {asked[:2] for asked in gate.asked} == {("forged", "site1")}
        assert stage.files.find("") == []


@pytest.mark.parametrize("renewed", [True, False])
async def test_what_counts_is_the_grant_when_the_object_becomes_visible(stock_nats: NatsServer, renewed: bool) -> None:
    gate, current = Gate(), ["grant-1"]
    async with staged(stock_nats.url, gate=gate) as stage:
        fs = stage.caller(grant=lambda: current[-1])
        upload = await fs.objects.open_upload("x", "create", len(BIG))
        await upload.write(BIG)
        gate.valid = {"grant-2"}
        if renewed:
            current.append("grant-2")
            await upload.commit()
        else:
            with pytest.raises(AttemptOver):
                await upload.commit()
        assert stage.files.exists("x") == renewed


# ---- attacks


async def test_an_answer_goes_to_an_inbox_alone(stock_nats: NatsServer) -> None:
    attacks: list[tuple[str, str]] = []
    async with staged(stock_nats.url, on_attack=lambda *attack: attacks.append(attack)) as stage:
        mallory = await stage.connect("mallory")
        heard = await mallory.nc.subscribe("danger.>")
        subject = stage.bus.subjects.fs(stage.target, "exists", "mallory")
        data = stage.bus.subjects.data(stage.target, stage.server.replica, "mallory", "0" * 32)
        for where in (subject, data):
            await mallory.nc.publish(where, seal(PathRequest(path="x")), reply="danger.delete.all")
        for where in (subject, data):
            assert await mallory.request(where, seal(PathRequest(path="x")), timeout=5)
        assert sorted(attacks) == [(data, "danger.delete.all"), (subject, "danger.delete.all")]
        assert heard.pending_msgs == 0
        await mallory.drain()


async def test_an_answer_goes_to_the_caller_s_own_inbox(stock_nats: NatsServer) -> None:
    attacks: list[tuple[str, str]] = []
    options = {"private_inboxes": True, "on_attack": lambda *attack: attacks.append(attack)}
    async with staged(stock_nats.url, **options) as stage:
        mallory = await stage.connect("mallory")
        heard = await mallory.nc.subscribe("_INBOX.alice.>")
        subject = stage.bus.subjects.fs(stage.target, "exists", "mallory")
        await mallory.nc.publish(subject, seal(PathRequest(path="x")), reply="_INBOX.alice.1")
        await mallory.request(subject, seal(PathRequest(path="x")), timeout=5)
        assert attacks == [(subject, "_INBOX.alice.1")]
        assert heard.pending_msgs == 0
        await mallory.drain()


async def test_a_transfer_belongs_to_its_caller(stage: Stage, fs: SnappyFileSystem) -> None:
    upload = await fs.objects.open_upload("x", "create", len(BIG))
    await upload.write(BIG[:100])
    mallory = await stage.connect("mallory")
    token = upload._subject.rpartition(".")[2]
    stolen = stage.bus.subjects.data(stage.target, stage.server.replica, "mallory", token)
    for frame in (pack_frame(Kind.ABORT, 0), pack_frame(Kind.WRITE, 100, b"forged")):
        answer = await mallory.request(stolen, frame, timeout=5)
        assert b"does not know this transfer" in answer
    await upload.write(BIG[100:])
    await upload.commit()
    assert await fs._cat_file("x") == BIG
    await mallory.drain()


async def test_tokens_are_random(stage: Stage) -> None:
    bus = await stage.connect("site1")
    subject = bus.subjects.fs(stage.target, "open", "site1")
    found = set()
    for number in range(5):
        request = Open(path=f"x{number}", max_payload=1 << 20)
        found.add(unseal(await bus.request(subject, seal(request), timeout=5), OpenAnswer).transfer)
    assert {len(token) for token in found} == {32}
    assert len(found) == 5
    await bus.drain()


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 50, seal(PathRequest(path="x", v=99)), b"\x81\xa4path\xc0"])
async def test_nonsense_is_answered_and_harms_nobody(stage: Stage, fs: SnappyFileSystem, body: bytes) -> None:
    bus = await stage.connect("site1")
    for name in [*OPERATIONS, "no-such-operation"]:
        answer = await bus.request(bus.subjects.fs(stage.target, name, "site1"), body, timeout=5)
        assert b"\xa3bus" in answer or b"\xa7garbled" in answer
    data = bus.subjects.data(stage.target, stage.server.replica, "site1", "0" * 32)
    assert b"unavailable" in await bus.request(data, body, timeout=5)
    assert await fs._ls("") == []
    await bus.drain()


# ---- what goes missing


class Lossy:
    """Loses the answers that ``choose`` picks, as a connection that breaks at that moment does."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch, *lost: int) -> None:
        self.count, self._lost, self._publish = 0, lost, stage.bus.publish
        monkeypatch.setattr(stage.bus, "publish", self.publish)

    async def publish(self, subject: str, body: bytes, **options: Any) -> None:
        self.count += 1
        if self.count not in self._lost:
            await self._publish(subject, body, **options)


@pytest.mark.parametrize("mode", ["create", "overwrite"])
async def test_a_small_put_whose_answer_was_lost_is_a_success(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    lossy = Lossy(stage, monkeypatch, 1)
    await fs._pipe_file("x", b"content", mode=mode)
    assert lossy.count >= 2
    assert await fs._cat_file("x") == b"content"


@pytest.mark.parametrize("rights", [ALL_RIGHTS, APPEND_ONLY])
async def test_another_s_object_is_not_taken_for_one_s_own(
    stock_nats: NatsServer, monkeypatch: pytest.MonkeyPatch, rights: str
) -> None:
    async with staged(stock_nats.url, in_memory(rights)) as stage:
        fs = stage.caller()
        await fs._pipe_file("x", b"another")
        Lossy(stage, monkeypatch, 1)
        with pytest.raises(AlreadyExists):
            await fs._pipe_file("x", b"content", mode="create")


@pytest.mark.parametrize("lost", [(2,), (4,), (7,), (8,), (2, 3, 4, 5), (8, 9)])
async def test_a_big_put_survives_lost_answers(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    lossy = Lossy(stage, monkeypatch, *lost)
    await fs._pipe_file(BIG_NAME, BIG, mode="create")
    assert lossy.count > max(lost)
    assert await fs._cat_file(BIG_NAME) == BIG


@pytest.mark.parametrize("lost", [(1,), (2,), (4,), (8,)])
async def test_a_big_get_survives_lost_answers(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    await fs._pipe_file(BIG_NAME, BIG)
    lossy = Lossy(stage, monkeypatch, *lost)
    assert await fs._cat_file(BIG_NAME) == BIG
    assert lossy.count > max(lost)


async def test_a_frame_lost_on_its_way_in_is_sent_again(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[Msg] = []
    receive = stage.server._subscriptions[0]._cb
    assert receive is not None

    async def lose(message: Msg) -> None:
        frames.append(message)
        if len(frames) not in (1, 3):
            await receive(message)

    monkeypatch.setattr(stage.server._subscriptions[0], "_cb", lose)
    await fs._pipe_file(BIG_NAME, BIG)
    assert len(frames) > 7
    assert await fs._cat_file(BIG_NAME) == BIG


async def test_removing_what_a_first_try_removed_is_a_success(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs._pipe_file("x", b"content")
    Lossy(stage, monkeypatch, 1)
    await fs._rm_file("x")
    assert not await fs._exists("x")


async def test_a_target_restarted_on_the_way_gets_the_object_again(
    stage: Stage, fs: SnappyFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, restarts = Upload.commit, []

    async def restart_first(upload: Upload) -> None:
        if not restarts:
            restarts.append(1)
            await stage.server.close()
            await stage.serve()
        await commit(upload)

    monkeypatch.setattr(Upload, "commit", restart_first)
    await fs._pipe_file(BIG_NAME, BIG, mode="create")
    assert restarts
    assert stage.files.cat_file(BIG_NAME) == BIG


async def test_closing_a_target_leaves_nothing_half_written(stock_nats: NatsServer, tmp_path: Path) -> None:
    async with staged(stock_nats.url, open_target(str(tmp_path), rights=ALL_RIGHTS)) as stage:
        fs = stage.caller()
        upload = await fs.objects.open_upload("x", "create")
        await upload.write(BIG)
        assert stage.server.transfers == 1
        await stage.server.close()
        assert stage.server.transfers == 0
        assert list(tmp_path.iterdir()) == []


# ---- bounds


async def test_idle_transfers_are_given_up(stock_nats: NatsServer, tmp_path: Path) -> None:
    files = open_target(str(tmp_path), rights=ALL_RIGHTS)
    async with staged(stock_nats.url, files, limits=Limits(idle_seconds=0.2)) as stage:
        fs = stage.caller()
        upload = await fs.objects.open_upload("x", "create")
        await upload.write(BIG[:100])
        async with asyncio.timeout(10):
            await asyncio.wait(stage.server._tasks)
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(Unavailable):
            await upload.commit()


async def test_more_transfers_than_places_wait_their_turn(stock_nats: NatsServer) -> None:
    limits = Limits(transfers=2, wait_seconds=0.01)
    async with staged(stock_nats.url, limits=limits) as stage:
        fs = stage.caller(patience=Patience(attempts=10, delay=0.05))
        await asyncio.gather(*(fs._pipe_file(f"x{number}", BIG) for number in range(6)))
        assert len(await fs._find("")) == 6


async def test_a_caller_that_hoards_transfers_is_told_to_come_back(stock_nats: NatsServer) -> None:
    async with staged(stock_nats.url, limits=Limits(transfers=1, wait_seconds=0.01)) as stage:
        fs = stage.caller()
        hoarded = await fs.objects.open_upload("x", "create")
        with pytest.raises(Unavailable, match="busy"):
            await fs.objects.open_upload("y", "create")
        await hoarded.discard()
        async with asyncio.timeout(10):
            await asyncio.wait(stage.server._tasks) if stage.server._tasks else None
        await fs._pipe_file("y", BIG)


async def test_an_abandoned_read_gives_its_place_back(stock_nats: NatsServer) -> None:
    async with staged(stock_nats.url, limits=Limits(transfers=1)) as stage:
        fs = stage.caller()
        await fs._pipe_file("x", BIG)
        pieces = (await fs.objects.download("x", 0, None)).pieces()
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        assert await fs._cat_file("x") == BIG


async def test_a_flood_of_frames_is_refused(stage: Stage) -> None:
    bus = await stage.connect("site1")
    request = Open(path="x", max_payload=1 << 20)
    opened = unseal(
        await bus.request(bus.subjects.fs(stage.target, "open", "site1"), seal(request), timeout=5), OpenAnswer
    )
    subject = bus.subjects.data(stage.target, opened.replica, "site1", opened.transfer)
    frame = pack_frame(Kind.WRITE, 1 << 40, bytes(1000))
    answers = await asyncio.gather(
        *(bus.request(subject, frame, timeout=1) for _ in range(200)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, bytes)]
    assert refused
    assert all(isinstance(answer, (bytes, BusError)) for answer in answers)
    await bus.drain()


@pytest.mark.parametrize("content", [BIG, b"small"])
async def test_an_object_that_is_there_already_counts_as_written(stock_nats: NatsServer, content: bytes) -> None:
    """As after an upload that the storage's client repeated, or whose grant ran out before the answer came."""
    name = f"data/{hashlib.sha256(content).hexdigest()}"
    async with staged(stock_nats.url, in_memory(APPEND_ONLY)) as stage:
        stage.files.pipe_file(name, content)
        await stage.caller()._pipe_file(name, content)
        with pytest.raises(Corrupt):
            await stage.caller()._pipe_file(name, content + b"!")
        assert stage.files.cat_file(name) == content


# ---- bandwidth


@pytest.mark.parametrize("job", ["", "4M"], ids=["of-the-target", "of-the-job"])
async def test_bytes_take_the_time_that_the_limit_gives_them(stock_nats: NatsServer, job: str) -> None:
    """In frames and in whole messages, both ways; nobody waits longer for one answer than the callers' patience."""
    own = Throttles(Timetable.parse("" if job else "4M"))
    grant = Grant("j1", 1, "site1", "vault", ALL_RIGHTS, 2e9, (), job)
    async with staged(stock_nats.url, throttles=own, gate=lambda *_asked: grant) as stage:
        fs = stage.caller()
        for work in (fs._pipe_file("x", BIG), fs._cat_file("x")):
            began = time.monotonic()
            await asyncio.gather(work, *(fs._pipe_file(f"y{number}", b"\0" * 100_000) for number in range(10)))
            assert time.monotonic() - began > (len(BIG) / (4 << 20)) - 0.2
