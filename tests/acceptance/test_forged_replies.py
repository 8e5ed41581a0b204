"""Attacks by a reply of the caller's choice: neither the server nor a service can be made to publish elsewhere."""

from __future__ import annotations

from pathlib import Path

from nats.aio.msg import Msg

from snappy import config
from snappy.bus import streams
from snappy.bus.connection import Bus, serve
from snappy.bus.watchdog import ping
from tests.support.natsserver import nats_server
from tests.support.roles import DEPLOYED, VICTIM, Ground, expect_only

FORGED = (
    VICTIM,
    "$KV.snappy_holds.victim",
    "snappy.cmd.restore.bob",
    "snappy.work.site2",
    "snappy.report.site2.r",
    "snappy.schedule.nightly",
    "snappy.due.nightly",
    "snappy.event.backup.succeeded.victim",
    "$JS.API.STREAM.PURGE.SNAPPY_EVENTS",
    "$JS.API.STREAM.DELETE.SNAPPY_COMMANDS",
)


async def send(bus: Bus, subject: str, body: bytes, reply: str) -> None:
    """Publish with a reply of the attacker's choice; the server has taken it when this returns."""
    await bus.nc.publish(subject, body, reply=reply)
    assert await ping(bus.nc, 5.0)


# ---- the server publishes its receipt where the sender says --------------------------------------------------------


async def test_a_receipt_for_a_command_lands_nowhere_else(ground: Ground) -> None:
    for reply in FORGED:
        before = await ground.stored()
        await send(ground["alice"], "snappy.cmd.backup.alice", b"{}", reply)
        await ground["alice"].store("snappy.cmd.backup.alice", b"{}")
        await expect_only(ground, before, {"SNAPPY_COMMANDS": 2})


async def test_a_receipt_for_a_report_lands_nowhere_else(ground: Ground) -> None:
    for reply in FORGED:
        before = await ground.stored()
        await send(ground["site1"], "snappy.report.site1.r", b"{}", reply)
        await ground["site1"].store("snappy.report.site1.r", b"{}")
        await expect_only(ground, before, {"SNAPPY_REPORTS": 2})


async def test_the_next_call_lands_nowhere_else(ground: Ground) -> None:
    """Neither the message that was asked for, nor the server's word that there is none."""
    for reply in FORGED:
        await ground.core.store("snappy.work.site1", b"call")
        before = await ground.stored()
        for _ in range(2):
            pull = "$JS.API.CONSUMER.MSG.NEXT.SNAPPY_WORK.work-site1"
            await send(ground["site1"], pull, b'{"batch": 1, "no_wait": true}', reply)
        await ground.core.store("snappy.work.site2", b"its receipt comes after what the stream had to say")
        await expect_only(ground, before, {"SNAPPY_WORK": 1})


async def test_the_word_on_an_acknowledgement_lands_nowhere_else(ground: Ground) -> None:
    site = ground["site1"]
    pull = await site.js.pull_subscribe_bind(durable="work-site1", stream="SNAPPY_WORK")
    for reply in FORGED:
        for _ in range(2):
            await ground.core.store("snappy.work.site1", b"call")
        [first] = await pull.fetch(1, timeout=5)
        [second] = await pull.fetch(1, timeout=5)
        before = await ground.stored()
        await send(site, first.reply, b"+ACK", reply)
        await second.ack_sync(timeout=5)
        last, messages = before["SNAPPY_WORK"]
        assert await ground.stored() == before | {"SNAPPY_WORK": (last, messages - 2)}


async def test_a_receipt_is_no_claim_in_another_name(ground: Ground) -> None:
    """A claim needs nothing in its body, so that the server's receipt would do."""
    heard: list[str] = []

    async def note(message: Msg) -> None:
        heard.append(message.subject)
        await ground.core.respond(message, b"heard")

    await serve(ground.core, "snappy.hold.*.*.*", "core", note, limit=4)
    await send(ground["site1"], "snappy.report.site1.r", b"{}", "snappy.hold.claim.site2.r")
    await ground["site1"].store("snappy.report.site1.r", b"{}")
    assert await ground["site1"].request("snappy.hold.beat.site1.r", b"", timeout=5) == b"heard"
    assert heard == ["snappy.hold.beat.site1.r"]


async def test_without_accounts_the_receipt_overwrites_a_record(tmp_path: Path) -> None:
    """The control: the same rights in one account, and the attack works."""
    rights = f"""jetstream {{ store_dir: "{tmp_path}" }}
    authorization {{ users: [
      {{ user: core, password: p }}
      {{ user: alice, password: p, permissions: {{ publish: ["snappy.cmd.*.alice"], subscribe: ["_INBOX.alice.>"] }} }}
    ] }}"""
    with nats_server(tmp_path, rights) as server:
        (tmp_path / "password").write_text("p")
        core, alice = [await connect(server.url, user, tmp_path / "password") for user in ("core", "alice")]
        await streams.ensure(core)
        await core.store(VICTIM, b"good")
        await send(alice, "snappy.cmd.backup.alice", b"{}", VICTIM)
        await alice.store("snappy.cmd.backup.alice", b"{}")
        bucket = await core.js.key_value("snappy_jobs")
        assert b"SNAPPY_COMMANDS" in ((await bucket.get("victim")).value or b"")
        await alice.drain()
        await core.drain()


async def connect(url: str, user: str, password: Path) -> Bus:
    return await Bus.connect(config.Nats(url=url, user=user, password=config.Secret(file=str(password))), name=user)


# ---- a service answers where the caller says -----------------------------------------------------------------------


async def test_the_cores_answer_lands_nowhere_else(ground: Ground) -> None:
    """Even a core that does not look at the reply (ours does) can be made to speak to the caller alone."""

    async def answer(message: Msg) -> None:
        await ground.core.respond(message, b"{}")

    await serve(ground.core, "snappy.api.*.*.*", "core", answer, limit=4)
    for reply in FORGED:
        before = await ground.stored()
        await send(ground["alice"], "snappy.api.job.get.alice", b"{}", reply)
        assert await ground["alice"].request("snappy.api.job.get.alice", b"{}", timeout=5) == b"{}"
        await expect_only(ground, before, {})


async def test_a_targets_answer_goes_to_the_callers_inbox_or_nowhere(ground: Ground) -> None:
    """Sources and targets share an account: the target looks, and the server's permissions stand behind it."""
    heard: list[bool] = []

    async def look(message: Msg) -> None:
        heard.append(Bus.reply_allowed(message, "site1", private=True))
        await ground["vault"].respond(message, b"answered")

    await serve(ground["vault"], "snappy.fs.vault.>", "vault", look, limit=1)
    for reply in (*FORGED, "_INBOX.site2.x", "_INBOX.site11.x", "snappy.control.site2", "snappy.hold.claim.vault.r"):
        before = await ground.stored()
        ground["vault"].last_violation = ""
        await send(ground["site1"], "snappy.fs.vault.info.site1", b"", reply)
        assert await ground["site1"].request("snappy.fs.vault.info.site1", b"", timeout=5) == b"answered"
        assert heard[-2:] == [False, True]
        assert (ground["vault"].last_violation != "") == (not reply.startswith("_INBOX."))
        await expect_only(ground, before, {})


async def test_no_client_may_name_a_reply_that_only_the_server_makes(ground: Ground) -> None:
    await send(ground["site1"], "snappy.fs.vault.info.site1", b"", "_R_.abcdef.ghijkl")
    assert "_r_.abcdef" in ground["site1"].last_violation


def test_no_role_answers_by_allow_responses() -> None:
    assert "allow_responses" not in DEPLOYED.read_text()
