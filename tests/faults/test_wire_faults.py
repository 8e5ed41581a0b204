"""Messages that are harmed on the wire: jobs succeed all the same, and no harmed bit reaches a repository or a tree.

All processes of the site talk to the server over one wire. A message to a target passes it twice, on its way to the
server and on its way from there, so that a plan's subject and way say at whose end it is struck.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import MIB, Arena, arena, make_noise
from tests.support.wire_faults import FaultyWire, Plan, Way, Which, WireFault, faulty_wire

pytestmark = [pytest.mark.timeout(300), pytest.mark.restic]

SIZE = 64 * MIB
SMALL = 8 * MIB
FRAME = 200_000
"""Bytes from which a message holds an object's data."""
MANY = 1_000_000

SENT = "snappy.data.vault.>"
FETCHED = "_INBOX.site1.>"
ENDS = {"source": (Way.TO_SERVER, Way.TO_CLIENT), "target": (Way.TO_CLIENT, Way.TO_SERVER)}
"""Which way the frames of a backup go there, and those of a restore."""
QUICK = {("source", WireFault.FLIP), ("source", WireFault.REORDER), ("source", WireFault.CUT)}
"""What CI tries. Whoever waits for the answer to a lost frame or question gives it 20 seconds."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with arena(tmp_path_factory.mktemp("wired"), wire=faulty_wire) as made:
        yield made


@pytest.fixture
def wire(running: Arena) -> Iterator[FaultyWire]:
    made: FaultyWire = running.proxies["core"]  # type: ignore[assignment]
    yield made
    for plan in made.plans:
        plan.end()


def long_if(slow: bool) -> list[pytest.MarkDecorator]:
    return [pytest.mark.long] if slow else []


# ---- what a backup sends, and a restore fetches ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "fault"),
    [pytest.param(end, fault, marks=long_if((end, fault) not in QUICK)) for end in ENDS for fault in WireFault],
)
async def test_frames(running: Arena, wire: FaultyWire, end: str, fault: WireFault, restic: str) -> None:
    name, (up, down) = f"{end}-{fault}", ENDS[end]
    tree = make_noise(running.data / name, SIZE)

    plan = wire.plan(fault, Which(SENT, up, least=FRAME))
    saved = await ended(running, await running.backup(tree), plan)
    assert saved["result"]["bytes_stored"] >= SIZE

    plan = wire.plan(fault, Which(FETCHED, down, least=FRAME))
    await ended(running, await running.restore(name, saved["result"]["snapshot"]), plan)
    assert running.expect_same(name, tree) == SIZE
    assert running.snapshots_of(restic, saved["id"]) == [saved["result"]["snapshot"]]
    running.expect_sound(restic)


@pytest.mark.long
async def test_flips_all_along(running: Arena, wire: FaultyWire, restic: str) -> None:
    """A second try for each pack, or each frame, and not for the whole job alone."""
    tree = make_noise(running.data / "all along", SIZE)
    up, down = ENDS["source"]
    sent = wire.plan(WireFault.FLIP, Which(SENT, up, least=FRAME), MANY, every=40)
    fetched = wire.plan(WireFault.FLIP, Which(FETCHED, down, least=FRAME), MANY, every=8)
    saved = await running.succeeded(await running.backup(tree))
    await running.succeeded(await running.restore("all along", saved["result"]["snapshot"]))
    sent.expect(2)
    fetched.expect(4)
    assert running.expect_same("all along", tree) == SIZE
    running.expect_sound(restic)


# ---- what is asked of a target ---------------------------------------------------------------------------------------

VERBS = ("info", "ls", "put", "open", "read", "rm")
FEW = ("put", "read")


@pytest.mark.parametrize(
    ("fault", "verbs"),
    [
        (WireFault.FLIP, VERBS),
        pytest.param(WireFault.DUPLICATE, VERBS, marks=pytest.mark.long),
        pytest.param(WireFault.DELAY, VERBS, marks=pytest.mark.long),
        pytest.param(WireFault.CUT, VERBS, marks=pytest.mark.long),
        pytest.param(WireFault.DROP, FEW, marks=pytest.mark.long),
    ],
)
async def test_questions_to_a_target(
    running: Arena, wire: FaultyWire, fault: WireFault, verbs: tuple[str, ...], restic: str
) -> None:
    """The first of each kind."""
    name = f"asked-{fault}"
    tree = make_noise(running.data / name, SMALL, 1 * MIB)
    plans = [wire.plan(fault, Which(f"snappy.fs.vault.{verb}.site1", Way.TO_SERVER)) for verb in verbs]
    await expect_both(running, name, tree, restic)
    for plan in plans:
        plan.expect()


async def test_flipped_answers_of_a_target(running: Arena, wire: FaultyWire, restic: str) -> None:
    """Each third small one, whatever it answers."""
    tree = make_noise(running.data / "answered", SMALL, 1 * MIB)
    plan = wire.plan(WireFault.FLIP, Which(FETCHED, Way.TO_SERVER, most=FRAME), MANY, every=3)
    await expect_both(running, "answered", tree, restic)
    plan.expect(6)


# ---- what all of them tell one another -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "every", "way"),
    [
        pytest.param(WireFault.DUPLICATE, 1, Way.TO_SERVER, marks=pytest.mark.long),
        pytest.param(WireFault.REORDER, 5, Way.TO_CLIENT, marks=pytest.mark.long),
        pytest.param(WireFault.DUPLICATE, 1, Way.TO_CLIENT, marks=pytest.mark.long),
        pytest.param(WireFault.REORDER, 5, Way.TO_SERVER, marks=pytest.mark.long),
    ],
)
async def test_small_messages_of_all(
    running: Arena, wire: FaultyWire, fault: WireFault, every: int, way: Way, restic: str
) -> None:
    """Whatever it is: commands, calls, claims, reports, records, events, acknowledgements, and answers to all."""
    name = f"all {fault} {way}"
    tree = make_noise(running.data / name, SMALL, 1 * MIB)
    plan = wire.plan(fault, Which(">", way, most=FRAME), MANY, every=every, seconds=0.2)
    await expect_both(running, name, tree, restic)
    plan.end()
    plan.expect(10)


LOST = {
    "claim": ("snappy.hold.claim.>", Way.TO_SERVER),
    "record": ("$KV.snappy_jobs.>", Way.TO_SERVER),
    "command": ("snappy.cmd.>", Way.TO_CLIENT),
    "call": ("snappy.work.>", Way.TO_CLIENT),
    "claim at the core": ("snappy.hold.claim.>", Way.TO_CLIENT),
    "answer of the core": ("_R_.>", Way.TO_SERVER),
    "report": ("snappy.report.>", Way.TO_SERVER),
    "report at the core": ("snappy.report.>", Way.TO_CLIENT),
    "hold": ("$KV.snappy_holds.>", Way.TO_SERVER),
    "event": ("snappy.event.>", Way.TO_SERVER),
    "event at the audit": ("snappy.event.>", Way.TO_CLIENT),
    "acknowledgement": ("$JS.ACK.>", Way.TO_SERVER),
    "answer to the core": ("_INBOX.core.>", Way.TO_CLIENT),
}


@pytest.mark.parametrize("lost", [pytest.param(lost, marks=long_if(lost != "claim")) for lost in LOST])
async def test_a_lost_message(running: Arena, wire: FaultyWire, lost: str, restic: str) -> None:
    subject, way = LOST[lost]
    tree = make_noise(running.data / f"lost {lost}", SMALL, 1 * MIB)
    plan = wire.plan(WireFault.DROP, Which(subject, way))
    await expect_both(running, f"lost {lost}", tree, restic)
    plan.expect()


# ---- below -----------------------------------------------------------------------------------------------------------


async def ended(running: Arena, request: str, plan: Plan) -> dict[str, Any]:
    """The record of a job that was struck, and succeeded at its first attempt."""
    record = await running.succeeded(request)
    plan.expect()
    assert [attempt.get("error") for attempt in record["attempts"]] == [None]
    assert await running.expect_told_once(record) == ["accepted", "started", "succeeded"]
    return record


async def expect_both(running: Arena, name: str, tree: Path, restic: str) -> None:
    """A backup and a restore succeed, are told once, and leave one snapshot and the same tree."""
    saved = await running.succeeded(await running.backup(tree))
    brought = await running.succeeded(await running.restore(name, saved["result"]["snapshot"]))
    for record in (saved, brought):
        await running.expect_told_once(record)
    assert running.expect_same(name, tree) == SMALL
    assert running.snapshots_of(restic, saved["id"]) == [saved["result"]["snapshot"]]
    running.expect_sound(restic)
    await running.expect_audit_whole()
