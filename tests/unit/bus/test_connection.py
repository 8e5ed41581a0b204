"""The bus connection on a real server: what nats-py does not do for us, and what each failure is called."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from nats.js.api import PubAck

from snappy.bus import connection
from snappy.bus.connection import Bus, serve
from snappy.bus.watchdog import Watchdog, ping
from snappy.config import Nats, Secret
from snappy.errors import BusDenied, BusError, BusFull, BusUnavailable, TooLarge, UsageError, WrongSequence
from tests.support.natsserver import NatsServer, nats_server

CONFIG = 'jetstream {{ store_dir: "{folder}/store" }}\nmax_payload: 64KB\n'
USERS = """authorization { users: [
  { user: alice, password: right, permissions: { publish: ["open.>"], subscribe: ["_INBOX.alice.>", "heard"] } }
] }"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with nats_server(tmp_path, CONFIG.format(folder=tmp_path)) as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    made = await Bus.connect(Nats(url=server.url), name="test", user="core")
    yield made
    await made.drain()


async def echo(bus: Bus, subject: str = "echo", limit: int = 4) -> None:
    async def answer(message: Msg) -> None:
        await bus.respond(message, b"echo " + message.data)

    await serve(bus, subject, "queue", answer, limit=limit)


async def echo_after_reconnect(bus: Bus) -> bytes:
    """The answer, however many requests are lost with the old connection."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bus.request("echo", b"1", timeout=10)
            except BusUnavailable:
                continue


# ---- connecting ----------------------------------------------------------------------------------------------------


async def test_the_user_names_the_inbox(bus: Bus) -> None:
    assert bus.user == "core"
    assert bus.nc.new_inbox().startswith("_INBOX.core.")


async def test_without_a_user_the_caller_is_anyone(server: NatsServer) -> None:
    bus = await Bus.connect(Nats(url=server.url), name="test", prefix="other")
    assert (bus.user, bus.subjects.prefix) == ("anyone", "other")
    await bus.drain()


async def test_a_server_that_is_not_there_is_named_in_time(unused_port: int) -> None:
    url = f"nats://127.0.0.1:{unused_port}"
    with pytest.raises(BusUnavailable, match=url) as caught:
        async with asyncio.timeout(5):
            await Bus.connect(Nats(url=url), name="test", connect_timeout=0.3)
    assert "running" in caught.value.hint


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(BusUnavailable):
            async with asyncio.timeout(5):
                await Bus.connect(Nats(url=f"nats://127.0.0.1:{port}"), name="test", connect_timeout=0.3)


async def test_a_wrong_password_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    with nats_server(tmp_path, USERS) as server:
        nats = Nats(url=server.url, user="alice", password=Secret(file=str(tmp_path / "password")))
        with pytest.raises(BusDenied) as caught:
            async with asyncio.timeout(5):
                await Bus.connect(nats, name="test", connect_timeout=60)
    assert "wrong" not in str(caught.value)


async def test_an_inbox_that_the_user_may_not_read_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    with nats_server(tmp_path, USERS.replace("_INBOX.alice.>", "_INBOX.bob.>")) as server:
        nats = Nats(url=server.url, user="alice", password=Secret(file=str(tmp_path / "password")))
        with pytest.raises(BusDenied):
            await Bus.connect(nats, name="test")


async def test_a_services_user_has_the_services_name(server: NatsServer) -> None:
    with pytest.raises(UsageError, match="site1"):
        await Bus.connect(Nats(url=server.url, user="alice"), name="test", user="site1")


@pytest.fixture
async def unused_port() -> int:
    probe = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port: int = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    return port


# ---- asking --------------------------------------------------------------------------------------------------------


async def test_a_request_is_answered(bus: Bus) -> None:
    await echo(bus)
    assert await bus.request("echo", b"1", timeout=5) == b"echo 1"


async def test_answers_do_not_mix(bus: Bus) -> None:
    await echo(bus, limit=100)
    asked = [bus.request("echo", str(number).encode(), timeout=5) for number in range(100)]
    assert await asyncio.gather(*asked) == [f"echo {number}".encode() for number in range(100)]


async def test_nobody_there_is_known_at_once(bus: Bus) -> None:
    with pytest.raises(BusUnavailable, match="nobody answers on nowhere"):
        async with asyncio.timeout(5):
            await bus.request("nowhere", b"", timeout=60)


async def test_no_answer_in_time(bus: Bus) -> None:
    await bus.listen("silent", "", _ignore)
    with pytest.raises(BusUnavailable, match=r"no answer on silent in 0\.05 s"):
        await bus.request("silent", b"", timeout=0.05)


async def test_a_request_that_failed_leaves_nothing_behind(bus: Bus) -> None:
    await bus.listen("silent", "", _ignore)
    for _ in range(3):
        with pytest.raises(BusUnavailable):
            await bus.request("silent", b"", timeout=0.01)
        with pytest.raises(TooLarge):
            await bus.request("silent", bytes(1 << 20), timeout=1)
    assert bus._replies._open == {}
    assert bus._waiters._subjects == {}


async def test_headers_count_and_the_connection_stays(bus: Bus) -> None:
    """The server would cut the connection."""
    await echo(bus)
    with pytest.raises(TooLarge, match="65"):
        await bus.publish("echo", bytes(64 * 1024 - 10), headers={"Header": "value"})
    await bus.publish("echo", bytes(64 * 1024))
    assert await bus.request("echo", b"1", timeout=5) == b"echo 1"


async def test_refused_by_the_servers_permissions(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    with nats_server(tmp_path, USERS) as server:
        nats = Nats(url=server.url, user="alice", password=Secret(file=str(tmp_path / "password")))
        bus = await Bus.connect(nats, name="test")
        async with asyncio.timeout(5):
            with pytest.raises(BusDenied, match="Other.subject".lower()):
                await bus.request("Other.subject", b"", timeout=60)
            with pytest.raises(BusDenied):
                await bus.listen("unheard", "", _ignore)
            await bus.listen("heard", "", _ignore)
        await bus.drain()


async def test_answers_carry_no_headers_of_the_request(bus: Bus) -> None:
    await echo(bus)
    inbox, answers = bus.nc.new_inbox(), asyncio.Queue[Msg]()
    await bus.listen(inbox, "", answers.put)
    await bus.nc.publish("echo", b"1", reply=inbox, headers={"Grant": "secret"})
    async with asyncio.timeout(5):
        assert (await answers.get()).headers is None


async def test_who_answers_one_request_cannot_guess_where_the_next_is_awaited(bus: Bus) -> None:
    seen: list[str] = []

    async def note(message: Msg) -> None:
        seen.append(message.reply)
        await bus.respond(message, b"")

    await serve(bus, "noted", "queue", note, limit=1)
    for _ in range(3):
        await bus.request("noted", b"", timeout=5)
    tokens = [reply.removeprefix("_INBOX.core.").split(".") for reply in seen]
    assert len({last for _, last in tokens}) == 3
    assert all(len(bytes.fromhex(word)) == 16 for words in tokens for word in words)
    assert not any(word in bus.nc.new_inbox() for words in tokens for word in words)


@pytest.mark.parametrize(
    ("reply", "private", "allowed"),
    [
        ("_INBOX.alice.x", True, True),
        ("_INBOX.alice.x.y", True, True),
        ("_INBOX.alice", True, False),
        ("_INBOX.alicen.x", True, False),
        ("_INBOX.bob.x", True, False),
        ("_INBOX.bob.x", False, True),
        ("_INBOXES.x", False, False),
        ("snappy.cmd.restore.bob", False, False),
        ("snappy.cmd.restore.alice", True, False),
        ("$KV.snappy_jobs.x", True, False),
        ("_R_.abc.def", True, True),
        ("", True, False),
        ("", False, False),
    ],
)
async def test_where_an_answer_may_go(bus: Bus, reply: str, private: bool, allowed: bool) -> None:
    assert Bus.reply_allowed(Msg(bus.nc, "subject", reply), "alice", private) is allowed


# ---- storing -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stream(bus: Bus) -> str:
    await bus.js.add_stream(name="KEPT", subjects=["kept.>"], max_msgs=3, discard="new")
    return "KEPT"


async def test_a_message_whose_receipt_was_lost_is_stored_once(
    bus: Bus, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, ids = bus._store_once, []

    async def lossy(subject: str, body: bytes, headers: dict[str, str], timeout: float) -> PubAck:
        ack = await once(subject, body, headers, timeout)
        ids.append(headers["Nats-Msg-Id"])
        if len(ids) == 1:
            raise BusUnavailable("the receipt was lost")
        return ack

    monkeypatch.setattr(bus, "_store_once", lossy)
    ack = await bus.store("kept.a", b"1")
    assert (ack.seq, ack.duplicate, len(set(ids))) == (1, True, 1)
    assert (await bus.js.stream_info(stream)).state.messages == 1


async def test_a_repeat_of_what_was_never_sent_is_an_error(
    bus: Bus, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.secrets, "token_hex", lambda _count: "same")
    await bus.store("kept.a", b"1")
    with pytest.raises(BusError, match="repeat"):
        await bus.store("kept.a", b"2")


async def test_with_an_id_of_the_callers_a_repeat_is_the_callers_to_judge(bus: Bus, stream: str) -> None:
    assert not (await bus.store("kept.a", b"1", message_id="job/1")).duplicate
    assert (await bus.store("kept.a", b"1", message_id="job/1")).duplicate


async def test_the_callers_headers_are_left_alone(bus: Bus, stream: str) -> None:
    headers = {"Nats-Expected-Last-Sequence": "0"}
    await bus.store("kept.a", b"1", headers=headers)
    assert headers == {"Nats-Expected-Last-Sequence": "0"}


async def test_another_message_came_in_between(bus: Bus, stream: str) -> None:
    await bus.store("kept.a", b"1")
    for header in ("Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence"):
        with pytest.raises(WrongSequence):
            await bus.store("kept.a", b"2", headers={header: "7"})


async def test_a_full_stream_pushes_back(bus: Bus, stream: str) -> None:
    for number in range(3):
        await bus.store("kept.a", str(number).encode())
    with pytest.raises(BusFull) as caught:
        await bus.store("kept.a", b"4")
    assert caught.value.retryable


async def test_no_stream(bus: Bus) -> None:
    with pytest.raises(BusUnavailable, match=r"nobody answers on unkept\.a"):
        await bus.store("unkept.a", b"1", attempts=2)


async def test_what_the_stream_refuses_for_good(bus: Bus, stream: str) -> None:
    with pytest.raises(BusError, match="not stored") as caught:
        await bus.store("kept.a", b"1", headers={"Nats-Expected-Stream": "OTHER"})
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"code": 503, "err_code": 10023, "description": "insufficient resources"}, BusFull),
        ({"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}, BusFull),
        ({"code": 503, "err_code": 10008, "description": "system temporarily unavailable"}, BusUnavailable),
        ({"code": 400, "err_code": 10164, "description": "wrong last sequence"}, WrongSequence),
        ({"code": 400, "err_code": 10054, "description": "message size exceeds maximum allowed"}, BusError),
    ],
)
def test_what_jetstream_answers_instead(answer: dict[str, object], kind: type[BusError]) -> None:
    assert type(connection._refusal("subject", answer)) is kind


# ---- serving -------------------------------------------------------------------------------------------------------


async def _ignore(_message: Msg) -> None:
    return None


async def test_a_handler_that_raises_does_not_stop_the_others(bus: Bus) -> None:
    async def handle(message: Msg) -> None:
        if message.data == b"bad":
            raise ValueError("bad")
        await bus.respond(message, b"good")

    await serve(bus, "work", "queue", handle, limit=1)
    for _ in range(3):
        await bus.publish("work", b"bad")
    assert await bus.request("work", b"", timeout=5) == b"good"


async def test_no_more_than_the_limit_at_once(bus: Bus) -> None:
    running, most, go = 0, 0, asyncio.Event()

    async def handle(message: Msg) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            go.set()
        await go.wait()
        running -= 1
        await bus.respond(message, b"")

    await serve(bus, "work", "queue", handle, limit=3)
    await asyncio.gather(*(bus.request("work", b"", timeout=5) for _ in range(9)))
    assert most == 3


async def test_a_slow_handler_does_not_hold_up_the_rest(bus: Bus) -> None:
    release = asyncio.Event()

    async def handle(message: Msg) -> None:
        if message.data == b"slow":
            await release.wait()
        await bus.respond(message, message.data)

    await serve(bus, "work", "queue", handle, limit=2)
    slow = asyncio.create_task(bus.request("work", b"slow", timeout=5))
    assert await bus.request("work", b"fast", timeout=5) == b"fast"
    release.set()
    assert await slow == b"slow"


# ---- the end -------------------------------------------------------------------------------------------------------


async def test_drain_lets_handlers_finish(server: NatsServer, bus: Bus) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def handle(message: Msg) -> None:
        started.set()
        await release.wait()
        await other.respond(message, b"finished")

    other = await Bus.connect(Nats(url=server.url), name="other")
    await serve(other, "work", "queue", handle, limit=1)
    answer = asyncio.create_task(bus.request("work", b"", timeout=5))
    await started.wait()
    draining = asyncio.create_task(other.drain())
    release.set()
    await draining
    assert await answer == b"finished"
    await other.drain()
    await other.wait_closed()
    with pytest.raises(BusUnavailable):
        await other.request("work", b"", timeout=5)


async def test_closed_for_good_is_told_once(server: NatsServer) -> None:
    told: list[str] = []
    bus = await Bus.connect(Nats(url=server.url), name="test", on_closed=lambda: told.append("closed"))
    await bus.nc._process_err("'user authentication expired'")
    async with asyncio.timeout(5):
        await bus.wait_closed()
    assert told == ["closed"]
    await bus.drain()
    assert told == ["closed"]


async def test_a_callback_that_raises_ends_nothing(
    server: NatsServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py's read loop ends with an error callback that raises, and the connection never comes back."""

    def broken(*_arguments: object, **_words: object) -> None:
        raise BrokenPipeError("no log")

    for level in ("info", "warning", "error"):
        monkeypatch.setattr(connection._log, level, broken, raising=False)
    await echo(bus)
    server.restart()
    assert await echo_after_reconnect(bus) == b"echo 1"


# ---- the connection goes -------------------------------------------------------------------------------------------


async def test_a_killed_server_comes_back_and_so_do_we(server: NatsServer, bus: Bus) -> None:
    await echo(bus)
    await bus.listen("silent", "", _ignore)
    waiting = asyncio.create_task(bus.request("silent", b"", timeout=60))
    await ping(bus.nc, 5)
    server.kill()
    async with asyncio.timeout(10):
        with pytest.raises(BusUnavailable, match="lost"):
            await waiting
    asked = asyncio.create_task(bus.request("echo", b"while down", timeout=30))
    server.restart()
    assert await asked == b"echo while down"


async def test_drain_while_the_server_is_away_is_quick(server: NatsServer) -> None:
    bus = await Bus.connect(Nats(url=server.url), name="test")
    await echo(bus)
    server.kill()
    with pytest.raises(BusUnavailable):
        await bus.request("echo", b"", timeout=0.2)
    async with asyncio.timeout(5):
        await bus.drain()


async def test_the_watchdog_revives_a_dead_read_loop(bus: Bus) -> None:
    """nats-py goes on saying that it is connected."""
    await echo(bus)
    assert bus.nc._reading_task is not None
    bus.nc._reading_task.cancel()
    await asyncio.wait({bus.nc._reading_task})
    assert bus.nc.is_connected
    await bus._watchdog.look()
    assert await echo_after_reconnect(bus) == b"echo 1"


async def test_the_watchdog_leaves_a_server_that_hangs(server: NatsServer, bus: Bus) -> None:
    await echo(bus)
    watchdog = Watchdog(bus.nc, patience=0.05, misses=2)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        while await ping(bus.nc, 0.05):
            pass  # the signal is on its way
        await watchdog.look()
        assert bus.nc.is_connected
        await watchdog.look()
        assert bus.nc.is_reconnecting
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert await echo_after_reconnect(bus) == b"echo 1"


async def test_the_watchdog_closes_a_reconnection_that_is_stuck(server: NatsServer) -> None:
    bus = await Bus.connect(Nats(url=server.url), name="test")
    now = 0.0
    watchdog = Watchdog(bus.nc, stuck_after=60, clock=lambda: now)
    server.kill()
    with pytest.raises(BusUnavailable):
        await bus.request("gone", b"", timeout=0.2)
    await watchdog.look()
    assert not bus.nc.is_closed
    now = 61.0
    await watchdog.look()
    assert bus.nc.is_closed
    async with asyncio.timeout(5):
        await bus.wait_closed()


async def test_a_late_pong_hurts_nobody(server: NatsServer, bus: Bus) -> None:
    """nats-py's own rtt cancels its future, and the PONG that comes later ends the read loop."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        while await ping(bus.nc, 0.05):
            pass  # the signal is on its way
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert await ping(bus.nc, 5)
    assert bus.nc._reading_task is not None
    assert not bus.nc._reading_task.done()
