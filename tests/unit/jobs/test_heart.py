"""A service's heartbeat: patient with a core that is away, not with a server that refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from snappy.bus.subjects import Subjects
from snappy.errors import BusDenied, BusUnavailable, Rejected
from snappy.jobs import heart as module
from snappy.jobs.heart import Heart
from snappy.jobs.messages import Beat, ErrorInfo, HoldAnswer, HoldRequest

BEAT = Beat(service="site", replica="r1", role="source", version="1")


class Core:
    """Answers beats in the place of a bus; what is an exception is raised. The last answer stays."""

    def __init__(self, *answers: HoldAnswer | Exception) -> None:
        self.subjects = Subjects()
        self.answers = list(answers)
        self.heard: list[tuple[str, HoldRequest]] = []

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        self.heard.append((subject, msgspec.json.decode(body, type=HoldRequest)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return msgspec.json.encode(answer)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.001)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)


def heart(core: Core) -> Heart:
    bus: Any = core
    return Heart(bus, BEAT)


async def test_a_beat_goes_out_under_the_services_own_name() -> None:
    core = Core(HoldAnswer(clock=1.0))
    await heart(core).once()
    assert core.heard == [("snappy.hold.beat.site.r1", HoldRequest(beat=BEAT))]


async def test_plug_ins_are_told_until_the_core_has_a_name_for_them() -> None:
    told, brief = msgspec.structs.replace(BEAT, plugins={"files": {}}), msgspec.structs.replace(BEAT, etag="e1")
    core = Core(HoldAnswer(clock=1.0), *[HoldAnswer(clock=1.0, etag="e1")] * 3, HoldAnswer(clock=1.0))
    bus: Any = core
    beating = Heart(bus, told)
    for _ in range(5):
        await beating.once()
    beats = [request.beat for _, request in core.heard]
    assert beats == [told, told, brief, brief, brief, told], "at once where the core does not know the name any more"


async def test_the_first_waits_for_a_core() -> None:
    core = Core(BusUnavailable(), BusUnavailable(), HoldAnswer(clock=1.0))
    await heart(core).first()
    assert len(core.heard) == 3


async def test_a_refusal_is_not_waited_out() -> None:
    with pytest.raises(BusDenied):
        await heart(Core(BusDenied())).first()


async def test_what_the_core_says_is_raised() -> None:
    with pytest.raises(Rejected):
        await heart(Core(HoldAnswer(clock=1.0, error=ErrorInfo.of(Rejected())))).first()


async def test_it_goes_on_while_no_core_hears_it() -> None:
    core = Core(BusUnavailable(), BusDenied(), HoldAnswer(clock=1.0))
    beating = asyncio.create_task(heart(core).keep())
    async with asyncio.timeout(10):
        while len(core.heard) < 5:
            await asyncio.sleep(0.001)
    assert not beating.done()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
