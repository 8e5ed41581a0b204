"""What no role can do under deploy/nats.conf, whatever works on a server with lesser rules; and what each role can."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from snappy.bus import connection, roles, streams
from snappy.bus.connection import Bus, serve
from snappy.errors import BusDenied, BusError, BusFull, SnappyError
from tests.support.roles import VICTIM, Ground, deployed, expect_only

OTHERS = ("audit", "site1", "vault", "alice", "watcher")


async def denied(bus: Bus, subject: str) -> bool:
    try:
        await bus.request(subject, b"{}", timeout=5)
    except BusDenied:
        return True
    return False


async def deaf(bus: Bus, subject: str, queue: str = "") -> bool:
    async def ignore(_message: Msg) -> None:
        return None

    try:
        await bus.listen(subject, queue, ignore)
    except BusDenied:
        return True
    return False


# ---- speaking as another -------------------------------------------------------------------------------------------


FOREIGN = {
    "alice": (
        "snappy.cmd.backup.bob",
        "snappy.cmd.backup",
        "snappy.api.job.cancel.bob",
        "snappy.ask.site1.snapshots.list.bob",
        "snappy.hold.claim.site1.r",
        "snappy.work.site1",
        "snappy.control.site1",
        "snappy.progress.job",
        "snappy.fs.vault.rm.site1",
    ),
    "site1": (
        "snappy.hold.claim.site2.r",
        "snappy.report.site2.r",
        "snappy.fs.vault.rm.site2",
        "snappy.data.vault.r.site2.token",
        "snappy.control.site2",
        "snappy.work.site2",
        "snappy.cmd.backup.alice",
        "snappy.ask.site2.snapshots.list.alice",
        "_INBOX.vault.x",
        "$JS.API.CONSUMER.MSG.NEXT.SNAPPY_WORK.work-site2",
        "$JS.ACK.SNAPPY_WORK.work-site2.1.1.1.1.1",
    ),
    "vault": (
        "snappy.hold.claim.vault.r",
        "snappy.hold.beat.cellar.r",
        "snappy.fs.cellar.rm.site1",
        "snappy.report.site1.r",
    ),
    "watcher": (
        "snappy.cmd.backup.watcher",
        "snappy.api.job.submit.watcher",
        "snappy.api.job.cancel.watcher",
    ),
    "audit": ("snappy.event.backup.succeeded.job",),
    "core": (
        "snappy.cmd.backup.alice",
        "snappy.due.nightly",
    ),
}
"""What each could say to speak as another."""
KEPT_BY_THE_CORE = (
    VICTIM,
    "snappy.schedule.nightly",
    "snappy.due.nightly",
    "snappy.event.backup.succeeded.job",
    "$JS.API.INFO",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.DELETE.SNAPPY_EVENTS",
    "$JS.API.STREAM.PURGE.SNAPPY_COMMANDS",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.MSG.GET.KV_snappy_jobs",
    "$JS.API.DIRECT.GET.KV_snappy_jobs.$KV.snappy_jobs.victim",
    "$JS.API.CONSUMER.CREATE.SNAPPY_COMMANDS.mine",
    "$JS.API.CONSUMER.DELETE.SNAPPY_WORK.work-site1",
    "$JS.API.CONSUMER.MSG.NEXT.SNAPPY_COMMANDS.snappy_core",
    "$SYS.REQ.SERVER.PING",
)


@pytest.mark.parametrize("user", FOREIGN)
async def test_nobody_speaks_as_another(ground: Ground, user: str) -> None:
    before = await ground.stored()
    assert [subject for subject in FOREIGN[user] if not await denied(ground[user], subject)] == []
    await expect_only(ground, before, {})


@pytest.mark.parametrize("user", OTHERS)
async def test_only_the_core_keeps_state(ground: Ground, user: str) -> None:
    before = await ground.stored()
    assert [subject for subject in KEPT_BY_THE_CORE if not await denied(ground[user], subject)] == []
    await expect_only(ground, before, {})


# ---- listening in --------------------------------------------------------------------------------------------------


PRYING = (">", "_INBOX.>", "_INBOX.*.>", "_INBOX.bob.>", "snappy.>", "$JS.>", "$KV.>", "_R_.>")
QUEUES = {
    "alice": (
        ("snappy.cmd.>", ""),
        ("snappy.api.>", "core"),
        ("snappy.fs.vault.>", "vault"),
        ("snappy.control.site1", ""),
    ),
    "site1": (
        ("snappy.work.site1", ""),
        ("snappy.work.*", "work-site1"),
        ("snappy.hold.>", "core"),
        ("snappy.fs.vault.>", "vault"),
        ("snappy.data.vault.>", ""),
        ("snappy.ask.site2.>", "site2"),
        ("snappy.ask.site1.>", ""),
        ("snappy.control.site2", ""),
        ("snappy.event.>", ""),
    ),
    "vault": (
        ("snappy.fs.cellar.>", "cellar"),
        ("snappy.fs.vault.>", ""),
        ("snappy.fs.vault.>", "another"),
        ("snappy.data.cellar.>", ""),
        ("snappy.ask.site1.>", "site1"),
    ),
    "watcher": (
        ("snappy.cmd.>", ""),
        ("snappy.fs.>", ""),
    ),
    "audit": (("snappy.hold.>", ""),),
}
"""What each could join, as subject and queue group."""


@pytest.mark.parametrize("user", OTHERS)
async def test_nobody_reads_anothers_answers(ground: Ground, user: str) -> None:
    assert [subject for subject in PRYING if not await deaf(ground[user], subject)] == []


@pytest.mark.parametrize("user", QUEUES)
async def test_nobody_joins_anothers_queue(ground: Ground, user: str) -> None:
    assert [joined for joined in QUEUES[user] if not await deaf(ground[user], *joined)] == []


# ---- headers that command the server -------------------------------------------------------------------------------


async def test_a_command_cannot_schedule_another(ground: Ground) -> None:
    """With schedules allowed on the stream, the server itself would publish to the target that the header names."""
    before = await ground.stored()
    schedule = {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "snappy.cmd.restore.bob"}
    with pytest.raises(BusError):
        await ground["alice"].store("snappy.cmd.backup.alice", b"{}", headers=schedule)
    await expect_only(ground, before, {})


@pytest.mark.parametrize(
    ("user", "subject"), [("alice", "snappy.cmd.backup.alice"), ("site1", "snappy.report.site1.r")]
)
@pytest.mark.parametrize("extent", ["all", "sub"])
async def test_a_message_cannot_roll_up_the_others(ground: Ground, user: str, subject: str, extent: str) -> None:
    await ground["bob"].store("snappy.cmd.backup.bob", b"{}")
    await ground["site2"].store("snappy.report.site2.r", b"{}")
    before = await ground.stored()
    with pytest.raises(BusError):
        await ground[user].store(subject, b"{}", headers={"Nats-Rollup": extent})
    await expect_only(ground, before, {})


async def test_a_message_id_used_up_beforehand_is_noticed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are random, so that nobody can know one; if somebody does, the victim hears of it instead of losing a job."""
    monkeypatch.setattr(connection.secrets, "token_hex", lambda _count: "known")
    await ground["bob"].store("snappy.cmd.backup.bob", b"{}", message_id="known")
    with pytest.raises(SnappyError, match="repeat"):
        await ground["alice"].store("snappy.cmd.backup.alice", b"{}")


async def test_message_ids_are_128_random_bits(ground: Ground) -> None:
    stored = [await ground["alice"].store("snappy.cmd.backup.alice", b"{}") for _ in range(2)]
    ids = [(await ground.core.js.get_msg("SNAPPY_COMMANDS", ack.seq)).headers["Nats-Msg-Id"] for ack in stored]
    assert len(set(ids)) == 2
    assert all(len(bytes.fromhex(each)) == 16 for each in ids)


async def test_a_flood_of_commands_leaves_room_for_others(ground: Ground) -> None:
    """The limit is by submitter (and kind), and it refuses what is new."""
    commands = streams.streams(ground.subjects)[0].config() | {"max_msgs_per_subject": 3}
    answer = await ground.core.request(
        "$JS.API.STREAM.UPDATE.SNAPPY_COMMANDS", json.dumps(commands).encode(), timeout=5
    )
    assert "error" not in json.loads(answer)
    for _ in range(3):
        await ground["alice"].store("snappy.cmd.backup.alice", b"{}")
    with pytest.raises(BusFull):
        await ground["alice"].store("snappy.cmd.backup.alice", b"{}")
    assert (await ground["bob"].store("snappy.cmd.backup.bob", b"{}")).seq == 4


# ---- what each role is there for -----------------------------------------------------------------------------------


async def test_submitter_and_observer_follow_a_job(ground: Ground) -> None:
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    for user in ("alice", "watcher"):

        async def note(message: Msg, user: str = user) -> None:
            heard.put_nowait((user, message.subject))

        await ground[user].listen("snappy.event.backup.succeeded.*", "", note)
        await ground[user].listen("snappy.progress.*", "", note)
    await ground.core.store("snappy.event.backup.succeeded.job", b"{}")
    await ground["site1"].publish("snappy.progress.job", b"{}")
    async with asyncio.timeout(5):
        got = {await heard.get() for _ in range(4)}
    subjects = ("snappy.event.backup.succeeded.job", "snappy.progress.job")
    assert got == {(user, subject) for user in ("alice", "watcher") for subject in subjects}


async def test_the_core_controls_a_source_and_a_submitter_asks_it(ground: Ground) -> None:
    controlled: asyncio.Queue[bytes] = asyncio.Queue()

    async def note(message: Msg) -> None:
        controlled.put_nowait(message.data)

    async def answer(message: Msg) -> None:
        assert Bus.reply_allowed(message, "alice", private=True)
        await ground["site1"].respond(message, b"snapshots")

    await ground["site1"].listen("snappy.control.site1", "", note)
    await serve(ground["site1"], "snappy.ask.site1.*.*.*", "site1", answer, limit=1)
    await ground.core.publish("snappy.control.site1", b"cancel")
    async with asyncio.timeout(5):
        assert await controlled.get() == b"cancel"
    assert await ground["alice"].request("snappy.ask.site1.snapshots.list.alice", b"", timeout=5) == b"snapshots"


async def test_the_audit_reads_events_and_answers(ground: Ground) -> None:
    async def answer(message: Msg) -> None:
        await ground["audit"].respond(message, b"entries")

    await serve(ground["audit"], "snappy.api.audit.*.*", "audit", answer, limit=1)
    await ground.core.store("snappy.event.backup.succeeded.job", b"{}")
    pull = await ground["audit"].js.pull_subscribe_bind(durable="snappy_audit", stream="SNAPPY_EVENTS")
    [event] = await pull.fetch(1, timeout=5)
    await event.ack_sync(timeout=5)
    assert await ground["watcher"].request("snappy.api.audit.query.watcher", b"", timeout=5) == b"entries"


async def test_an_observer_finds_every_service(ground: Ground) -> None:
    for user in ("core", "site1", "vault"):

        async def pong(message: Msg, user: str = user) -> None:
            await ground[user].respond(message, user.encode())

        await ground[user].listen("$SRV.PING", "", pong)
    found: asyncio.Queue[bytes] = asyncio.Queue()

    async def note(message: Msg) -> None:
        found.put_nowait(message.data)

    inbox = ground["watcher"].nc.new_inbox()
    await ground["watcher"].listen(inbox, "", note)
    await ground["watcher"].nc.publish("$SRV.PING", b"", reply=inbox)
    async with asyncio.timeout(5):
        assert {await found.get() for _ in range(3)} == {b"core", b"site1", b"vault"}


async def test_deployed_file_itself_starts_and_lets_each_user_in(tmp_path: Path) -> None:
    with deployed(tmp_path) as server:
        for _, name in roles.EXAMPLE:
            async with server.bus(name) as bus:
                assert bus.user == name
