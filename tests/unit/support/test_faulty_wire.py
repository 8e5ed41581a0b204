from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support import raw_nats
from tests.support.natsserver import nats_server
from tests.support.wire_faults import (
    FaultyWire,
    Way,
    Which,
    WireFault,
    faulty_wire,
    subject_matches,
    without_other_nodes,
)

BODY = b"0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats")) as running:
        yield running.url


@pytest.fixture
def wire(server: str) -> Iterator[FaultyWire]:
    with faulty_wire(server) as made:
        yield made


async def heard(server: str, wire: FaultyWire, sent: list[bytes], headers: str = "") -> list[bytes]:
    """What a subscriber with a straight connection gets of what is published over the wire, up to the word ``end``."""
    async with raw_nats.connect(server) as listener, raw_nats.connect(wire.url) as speaker:
        queue = await listener.subscribe("word.*")
        for body in sent:
            await speaker.publish("word.x", body, headers=headers)
        await speaker.publish("word.end", b"end")
        found: list[bytes] = []
        while (body := (await asyncio.wait_for(queue.get(), 10)).body) != b"end":
            found.append(body)
        return found


async def test_what_nobody_planned_passes_unharmed(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.DROP, Which("other.>"))
    assert await heard(server, wire, [BODY, b""], headers="A: b") == [BODY, b""]
    assert (plan.struck, wire.connections) == (0, 1)
    with pytest.raises(AssertionError, match="struck 0 times, not 1"):
        plan.expect()


async def test_one_bit_is_flipped_in_as_many_messages_as_planned(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.FLIP, Which("word.x", least=10), times=2)
    found = await heard(server, wire, [b"short", BODY, BODY, BODY], headers="A: b")
    harmed = [bin(int.from_bytes(body) ^ int.from_bytes(BODY)).count("1") for body in found[1:]]
    assert (found[0], harmed) == (b"short", [1, 1, 0])
    assert (plan.struck, plan.subjects) == (2, ["word.x"] * 2)
    assert wire.counts == {WireFault.FLIP: 2}


async def test_duplicate_and_drop(server: str, wire: FaultyWire) -> None:
    wire.plan(WireFault.DUPLICATE, Which("word.x"))
    wire.plan(WireFault.DROP, Which("word.x"))
    assert await heard(server, wire, [b"1", b"2", b"3"]) == [b"1", b"1", b"3"]
    assert wire.counts == {WireFault.DUPLICATE: 1, WireFault.DROP: 1}


async def test_reorder_counts_when_others_went_before(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.REORDER, Which("word.x"), overtakers=2, seconds=30)
    assert await heard(server, wire, [b"1", b"2", b"3", b"4"]) == [b"2", b"3", b"1", b"4"]
    plan.expect()


async def test_what_nothing_overtakes_is_sent_and_does_not_count(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.REORDER, Which("word.x"), overtakers=1, seconds=0.1)
    async with raw_nats.connect(server) as listener, raw_nats.connect(wire.url) as speaker:
        queue = await listener.subscribe("word.*")
        await speaker.publish("word.x", BODY)
        assert (await asyncio.wait_for(queue.get(), 10)).body == BODY
    assert plan.struck == 0


async def test_delay(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.DELAY, Which("word.x", Way.TO_SERVER), seconds=0.3)
    began = asyncio.get_running_loop().time()
    assert await heard(server, wire, [BODY]) == [BODY]
    assert asyncio.get_running_loop().time() - began >= 0.3
    plan.expect()


async def test_cut_in_the_middle_of_a_payload(server: str, wire: FaultyWire) -> None:
    plan = wire.plan(WireFault.CUT, Which("word.>", Way.TO_CLIENT))
    async with raw_nats.connect(server) as speaker, raw_nats.connect(wire.url) as listener:
        queue = await listener.subscribe("word.*")
        await speaker.publish("word.x", BODY)
        await plan.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 0.2)
        with pytest.raises((TimeoutError, ConnectionError)):
            await listener.ping(timeout=1)
    assert await heard(server, wire, [BODY]) == [BODY], "the next connection is whole"


async def test_a_plan_that_ended_strikes_no_more(server: str, wire: FaultyWire) -> None:
    wire.plan(WireFault.DROP, Which("word.x")).end()
    assert await heard(server, wire, [BODY]) == [BODY]


@pytest.mark.parametrize(
    ("pattern", "subject", "same"),
    [
        (">", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.*", "a.b.c", False),
        ("a.b", "a.c", False),
    ],
)
def test_subjects_match_as_in_nats(pattern: str, subject: str, same: bool) -> None:
    assert subject_matches(pattern, subject) is same


def test_other_nodes_are_not_told() -> None:
    assert without_other_nodes(b'INFO {"a":1,"connect_urls":["x:1"]}\r\n') == b'INFO {"a": 1}\r\n'
    assert without_other_nodes(b'INFO {"a":1} \r\n') == b'INFO {"a":1} \r\n'
    assert without_other_nodes(b"PING\r\n") == b"PING\r\n"
