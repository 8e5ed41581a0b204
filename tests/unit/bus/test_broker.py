"""The embedded server: one a state folder, joined by whoever comes later, gone with its owner."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from snappy.bus import broker as module
from snappy.bus import program, streams
from snappy.bus.broker import Broker
from snappy.bus.connection import Bus
from snappy.bus.roles import User
from snappy.errors import BusDenied, BusUnavailable, UsageError

CORE, ALICE, BOB = User("core", "core"), User("alice", "submitter"), User("bob", "submitter")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    started = await Broker.start(tmp_path, [CORE, ALICE])
    yield started
    await started.stop()


async def connect(broker: Broker, user: str) -> Bus:
    return await Bus.connect(broker.nats(user), name=user)


async def serves(broker: Broker, user: str) -> bool:
    """Whether a submitter's command is stored."""
    bus = await connect(broker, user)
    try:
        return (await bus.store(f"snappy.cmd.backup.{user}", b"{}")).stream == "SNAPPY_COMMANDS"
    finally:
        await bus.drain()


async def make_streams(broker: Broker) -> None:
    core = await connect(broker, "core")
    await streams.ensure(core)
    await core.drain()


def is_free(state: Path) -> bool:
    """Whether no server holds the state folder."""
    with (state / "nats" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def until_free(state: Path) -> None:
    async with asyncio.timeout(20):
        while not is_free(state):
            await asyncio.sleep(0.02)


# ---- one server ----------------------------------------------------------------------------------------------------


async def test_roles_hold_on_the_embedded_server_too(broker: Broker) -> None:
    await make_streams(broker)
    assert await serves(broker, "alice")
    alice = await connect(broker, "alice")
    with pytest.raises(BusDenied):
        await alice.store("snappy.cmd.backup.bob", b"{}")
    await alice.drain()


async def test_loopback_and_durable(broker: Broker, tmp_path: Path) -> None:
    configured = (tmp_path / "nats" / "server.conf").read_text()
    assert 'sync_interval: "always"' in configured
    assert 'listen: "127.0.0.1:' in configured
    assert "max_payload: 2097152" in configured
    assert broker.url.startswith("nats://127.0.0.1:")


async def test_secrets_are_the_owners_alone(broker: Broker, tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        if path.suffix in (".conf", ".json", ".password"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    passwords = {(folder / f"{name}.password").read_text() for name in ("core", "alice")}
    assert len(passwords) == 2
    assert all(len(password) == 48 for password in passwords)


async def test_passwords_are_not_on_the_command_line(broker: Broker, tmp_path: Path) -> None:
    assert broker._process is not None
    line = Path(f"/proc/{broker._process.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{broker._process.pid}/environ").read_bytes()
    secret = (tmp_path / "nats" / "core.password").read_bytes()
    assert b"nats-server" in line
    assert secret not in line + environment


async def test_an_unknown_user_has_no_way_in(broker: Broker) -> None:
    with pytest.raises(UsageError, match="mallory"):
        broker.nats("mallory")


async def test_what_was_stored_is_there_after_a_stop(tmp_path: Path) -> None:
    first = await Broker.start(tmp_path, [CORE, ALICE])
    await make_streams(first)
    assert await serves(first, "alice")
    await first.stop()
    await first.stop()
    assert is_free(tmp_path)
    second = await Broker.start(tmp_path, [CORE])
    core = await connect(second, "core")
    assert (await core.js.stream_info("SNAPPY_COMMANDS")).state.messages == 1
    await core.drain()
    await second.stop()


# ---- joining -------------------------------------------------------------------------------------------------------


async def test_a_second_command_joins(broker: Broker, tmp_path: Path) -> None:
    await make_streams(broker)
    second = await Broker.start(tmp_path, [CORE, BOB])
    assert (broker.owned, second.owned, second.url) == (True, False, broker.url)
    assert await serves(second, "bob")
    assert await serves(second, "alice")
    await second.stop()
    assert await serves(broker, "alice")


async def test_many_join_at_once(broker: Broker, tmp_path: Path) -> None:
    await make_streams(broker)
    names = [f"user{number}" for number in range(6)]
    joined = await asyncio.gather(*(Broker.start(tmp_path, [User(name, "submitter")]) for name in names))
    assert all([await serves(one, name) for one, name in zip(joined, names, strict=True)])
    assert await serves(joined[0], "alice")


async def test_joining_leaves_those_who_are_there_alone(broker: Broker, tmp_path: Path) -> None:
    await make_streams(broker)
    alice = await connect(broker, "alice")
    for number in range(3):
        await Broker.start(tmp_path, [User(f"user{number}", "submitter")])
    assert (await alice.store("snappy.cmd.backup.alice", b"{}")).seq == 1
    assert alice.nc.stats["reconnects"] == 0
    await alice.drain()


async def test_jetstream_answers_while_somebody_is_let_in(broker: Broker, tmp_path: Path) -> None:
    """The server, as it reads its configuration again, says for some milliseconds that nobody does."""
    bus = await connect(broker, "core")
    done = asyncio.Event()

    async def ask() -> int:
        asked = 0
        while not done.is_set():
            await bus.request("$JS.API.INFO", b"", timeout=5.0)
            asked += 1
        return asked

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    for number in range(10):
        await Broker.start(tmp_path, [User(f"new-{number}", "submitter")])
    done.set()
    assert all(await asyncio.gather(*asking))
    await bus.drain()


async def test_several_start_at_once_and_one_owns(tmp_path: Path) -> None:
    started = await asyncio.gather(*(Broker.start(tmp_path, [CORE, ALICE]) for _ in range(4)))
    assert sorted(one.owned for one in started) == [False, False, False, True]
    assert len({one.url for one in started}) == 1
    for one in started:
        await one.stop()
    assert is_free(tmp_path)


async def test_a_name_keeps_its_role(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alice"):
        await Broker.start(tmp_path, [User("alice", "source")])


async def test_another_prefix_is_refused(broker: Broker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prefix"):
        await Broker.start(tmp_path, [CORE], prefix="other")


async def test_who_joins_knows_whether_the_server_stays(broker: Broker, tmp_path: Path) -> None:
    joined = await Broker.start(tmp_path, [BOB], lasting=True)
    assert (joined.owned, joined.lasting) == (False, False)
    ended = asyncio.create_task(joined.ended())
    await asyncio.sleep(0)
    assert not ended.done()
    await broker.stop()
    await asyncio.wait_for(ended, 10)
    lasting = await Broker.start(tmp_path, [BOB], lasting=True)
    assert (lasting.owned, lasting.lasting) == (True, True)
    await asyncio.wait_for(joined.ended(), 10)
    assert (await Broker.start(tmp_path, [ALICE])).lasting
    await lasting.stop()


async def test_who_only_joins_starts_nothing(tmp_path: Path) -> None:
    assert await Broker.join(tmp_path) is None
    assert is_free(tmp_path)
    assert not (tmp_path / "nats" / "server.log").exists()
    owner = await Broker.start(tmp_path, [CORE])
    joined = await Broker.join(tmp_path, [ALICE])
    assert joined is not None
    assert (joined.url, joined.owned) == (owner.url, False)
    await owner.stop()


# ---- death ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_dies_is_started_again_on_its_port(broker: Broker, tmp_path: Path) -> None:
    await make_streams(broker)
    joined = await Broker.start(tmp_path, [BOB])
    bob = await connect(joined, "bob")
    assert broker._process is not None
    os.kill(broker._process.pid, signal.SIGKILL)
    assert (await bob.store("snappy.cmd.backup.bob", b"{}", attempts=10)).seq == 1
    await bob.drain()


OWNER = """
import asyncio, signal, sys
from snappy.bus.broker import Broker
from snappy.bus.roles import User
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs in the background is born deaf to it
async def main():
    broker = await Broker.start(sys.argv[1], [User("core", "core"), User("alice", "submitter")])
    print(broker._process.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_the_server_ends_with_its_owner(tmp_path: Path, number: signal.Signals) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    server = int(await owner.stdout.readline())
    os.kill(server, 0)
    assert not is_free(tmp_path)
    owner.send_signal(number)
    await owner.wait()
    await until_free(tmp_path)
    successor = await Broker.start(tmp_path, [CORE])
    assert successor.owned
    await successor.stop()


async def test_ctrl_c_on_the_terminal_is_not_the_servers(broker: Broker) -> None:
    assert broker._process is not None
    assert os.getpgid(broker._process.pid) != os.getpgid(0)


async def test_stop_leaves_no_process(tmp_path: Path) -> None:
    started = await Broker.start(tmp_path, [CORE])
    assert started._process is not None
    group = started._process.pid
    await started.stop()
    async with asyncio.timeout(5):
        while _members(group):
            await asyncio.sleep(0.02)


def _members(group: int) -> list[str]:
    """Living processes of a session, from /proc/<pid>/stat: name, state, parent, group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(path.parent.name)
    return found


# ---- the program ---------------------------------------------------------------------------------------------------


def fake(folder: Path, version: str) -> Path:
    path = folder / "nats-server"
    path.write_text(f"#!/bin/sh\necho 'nats-server: v{version}'\n")
    path.chmod(0o755)
    return path


def test_the_one_that_is_named_comes_first(tmp_path: Path) -> None:
    path = fake(tmp_path, "2.14.0")
    assert program.find({"SNAPPY_NATS_SERVER": str(path), "PATH": ""}) == str(path)


def test_the_one_on_path_comes_before_the_wheels(tmp_path: Path) -> None:
    assert program.find({"PATH": str(tmp_path)}) == str(Path(sys.executable).parent / "nats-server")
    assert program.find({"PATH": str(fake(tmp_path, "3.0.1").parent)}) == str(tmp_path / "nats-server")


def test_one_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    fake(tmp_path, "2.10.29")
    assert program.find({"PATH": str(tmp_path)}) == str(Path(sys.executable).parent / "nats-server")


@pytest.mark.parametrize(("version", "said"), [("2.13.9", r"2\.13"), ("nonsense", "no nats-server")])
def test_the_named_one_must_be_new_enough(tmp_path: Path, version: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        program.find({"SNAPPY_NATS_SERVER": str(fake(tmp_path, version))})
    assert "pip install" in caught.value.hint


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UsageError, match="no nats-server here"):
        program.find({"PATH": str(tmp_path)})


async def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    path = tmp_path / "nats-server"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "nats-server: v2.14.0" && exit\necho no luck\nexit 1\n')
    path.chmod(0o755)
    with pytest.raises(BusUnavailable, match="no luck"):
        await Broker.start(tmp_path, [CORE], environ={"SNAPPY_NATS_SERVER": str(path)})
    assert is_free(tmp_path)


async def test_one_that_never_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nats-server"
    path.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "nats-server: v2.14.0" && exit\nexec sleep 60\n')
    path.chmod(0o755)
    monkeypatch.setattr(module, "START_SECONDS", 0.5)
    with pytest.raises(BusUnavailable, match="does not come up"):
        await Broker.start(tmp_path, [CORE], environ={"SNAPPY_NATS_SERVER": str(path)})
    assert is_free(tmp_path)


def test_a_ports_file_that_is_not_whole_yet(tmp_path: Path) -> None:
    waiting = Broker(tmp_path, "snappy", {})
    assert waiting._announced_port() is None
    file = tmp_path / "nats-server_1.ports"
    for written in ("", '{"nats": ["nats://127.0'):
        file.write_text(written)
        assert waiting._announced_port() is None
    file.write_text('{"nats": ["nats://127.0.0.1:4222"]}')
    assert waiting._announced_port() == 4222


async def test_a_long_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    for _ in range(2):
        started = await Broker.start(tmp_path, [CORE])
        await started.stop()
    assert (tmp_path / "nats" / "server.log.1").exists()


async def test_what_joiners_read_holds_no_more_than_it_must(broker: Broker, tmp_path: Path) -> None:
    told = json.loads((tmp_path / "nats" / "broker.json").read_text())
    assert set(told) == {"prefix", "port", "admin", "users", "lasting"}


async def test_a_state_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="state folder") as caught:
        await Broker.start(tmp_path / "file", [CORE])
    assert "SNAPPY_STATE_DIR" in caught.value.hint
