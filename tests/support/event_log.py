"""The stream of events as it lies there, read one by one past every service of Snappy, and what must hold of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.support import raw_nats
from tests.support.site import FINAL, Site

STREAM = "SNAPPY_EVENTS"
AT_ONCE = 32


class Told(NamedTuple):
    """An event of a job. ``at`` is Unix seconds, ``sequence`` the event's place in the stream."""

    sequence: int
    id: str
    job: str
    name: str
    request: str
    at: float
    data: dict[str, Any]

    @classmethod
    def of(cls, sequence: int, event: Mapping[str, Any]) -> Told:
        name = str(event["type"]).rpartition(".")[2]
        data = event["data"]
        return cls(sequence, event["id"], event["subject"], name, str(event.get("request")), data["updated"], data)


class Log(NamedTuple):
    """``messages``: how many lie in the stream, those that are of no job among them."""

    messages: int
    told: list[Told]

    def by_job(self) -> dict[str, list[Told]]:
        found: dict[str, list[Told]] = defaultdict(list)
        for event in self.told:
            found[event.job].append(event)
        return dict(found)


@asynccontextmanager
async def as_core(site: Site) -> AsyncIterator[raw_nats.RawClient]:
    """A connection that may read every stream."""
    async with raw_nats.connect(site.server.url, "core", site.password("core")) as client:
        yield client


async def read(site: Site) -> Log:
    """All that was told so far. No sequence may be missing: nothing is ever taken out of a stream this young."""
    async with as_core(site) as client:
        state = (await _ask(client, f"$JS.API.STREAM.INFO.{STREAM}", {}))["state"]
        assert state["messages"] == state["last_seq"], state
        told: list[Told] = []
        for start in range(1, state["last_seq"] + 1, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, state["last_seq"] + 1))
            told += [event for event in await asyncio.gather(*(_told(client, number) for number in numbers)) if event]
        return Log(state["messages"], told)


async def _told(client: raw_nats.RawClient, number: int) -> Told | None:
    """None for what tells of no job."""
    message = (await _ask(client, f"$JS.API.STREAM.MSG.GET.{STREAM}", {"seq": number}))["message"]
    event = json.loads(base64.b64decode(message["data"]))
    return Told.of(number, event) if "state" in event["data"] and "submitter" in event["data"] else None


async def _ask(client: raw_nats.RawClient, subject: str, body: object) -> dict[str, Any]:
    answer = json.loads((await client.request(subject, json.dumps(body).encode())).body)
    assert "error" not in answer, answer
    found: dict[str, Any] = answer
    return found


def expect_told_once(log: Log) -> None:
    """Each job's events are numbered without a gap or a repeat; one accepted it or rejected it, one ended it."""
    repeated = [id for id, count in Counter(event.id for event in log.told).items() if count > 1]
    assert not repeated, f"told more than once: {repeated}"
    for job, events in log.by_job().items():
        names = [event.name for event in events]
        assert [event.id for event in events] == [f"{job}/{number + 1}" for number in range(len(events))], names
        assert names[0] in ("accepted", "rejected"), names
        assert names.count("accepted") <= 1, names
        assert [name for name in names if name in FINAL] == names[-1:], names


def in_transition(events: Iterable[Sequence[Told]], moment: float) -> int:
    """How many jobs were begun and not over at a moment (Unix seconds)."""
    found = 0
    for told in events:
        begun = [event.at for event in told if event.name == "started"]
        found += bool(begun) and begun[0] < moment < told[-1].at
    return found
