"""Commands and faults in any order that hypothesis thinks of, on a site of real processes; and what must hold of all
jobs once everything runs again.

Each example leaves its jobs behind for the next one: the site, its streams and its repository grow for the whole test.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from snappy.bus.grants import CLOCK_MARGIN
from tests.support import event_log
from tests.support.event_log import Log
from tests.support.faults import UNREACHABLE, Arena, arena
from tests.support.site import FINAL
from tests.support.storage_faults import FaultyStorage, On, StorageFault

pytestmark = [pytest.mark.restic]

PROCESSES = ("core", "site1", "site1.b", "vault", "audit")
LIMITS = {"hold_seconds": 3.0, "max_attempts": 100, "max_lost_attempts": 1000}
"""No job may fail for what is done here."""
FAULTS = ("kill", "kill and restart", "stop", "kill nats-server")
SLOW_SECONDS = 0.08
"""For each write, so that a small job can be met in the middle."""
END_SECONDS = 240.0
ROUNDING = 0.01

Value = TypeVar("Value")


@dataclass
class Asked:
    """A backup or a restore, as the model knows it."""

    request: str
    kind: str
    tree: str
    command: dict[str, Any]
    may_be_cancelled: bool = False
    may_be_refused: bool = False

    def allowed(self) -> set[str]:
        """How it may end."""
        endings = {"cancelled": self.may_be_cancelled, "rejected": self.may_be_refused}
        return {"succeeded", *(ending for ending, may in endings.items() if may)}


@dataclass
class Tally:
    """What has been done so far, in all examples, and how many jobs each kill or stop met in transition."""

    steps: Counter[str] = field(default_factory=Counter)
    moments: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    examples: int = 0


class Jobs(RuleBasedStateMachine):
    """One example: its rules ask and break, its end waits for everything and judges."""

    trees: Bundle[str] = Bundle("trees")
    backups: Bundle[Asked] = Bundle("backups")

    def __init__(self, site: Arena, storage: FaultyStorage, restic: str, tally: Tally) -> None:
        super().__init__()
        self.site, self.storage, self.restic, self.tally = site, storage, restic, tally
        tally.examples += 1
        self.asked: dict[str, Asked] = {}
        self.contents: dict[str, list[bytes]] = {}
        self.dead: set[str] = set()
        self.frozen: set[str] = set()
        self.slow = storage.plan(StorageFault.SLOW, On.WRITE, times=0, seconds=SLOW_SECONDS)

    # ---- what is asked -------------------------------------------------------------------------------------------

    @initialize(target=backups)
    def begin(self) -> Asked:
        return self.back_up_anew()

    @rule(target=trees, files=st.lists(st.binary(max_size=3000), min_size=1, max_size=5))
    def another_tree(self, files: list[bytes]) -> str:
        return self.plant(files)

    def plant(self, files: list[bytes]) -> str:
        """A tree that never changes: what a backup of it must hold is known, whenever it runs."""
        name = f"tree-{self.tally.examples}-{len(self.contents)}"
        self.contents[name] = files
        for number, content in enumerate(files):
            path = self.site.data / name / str(number % 2) / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name

    @rule(target=backups, tree=trees, duplicates=st.sampled_from(["queue", "skip", "replace"]))
    def back_up(self, tree: str, duplicates: str) -> Asked:
        twins = [asked for asked in self.asked.values() if (asked.kind, asked.tree) == ("backup", tree)]
        asked = self.submit("backup", tree, {**self.reads(tree), "duplicates": duplicates})
        asked.may_be_refused = duplicates == "skip" and bool(twins)
        for twin in twins:
            twin.may_be_cancelled |= duplicates == "replace"
            twin.may_be_refused |= twin.command["duplicates"] == "skip"
        return asked

    @rule(asked=backups)
    def repeat(self, asked: Asked) -> None:
        self.publish(asked)

    @precondition(lambda self: self.answers())
    @rule(asked=backups)
    def restore(self, asked: Asked) -> None:
        """Of what was backed up so far."""
        record = self.do(self.site.record(asked.request))
        if record.get("state") == "succeeded":
            name = f"r{len(self.asked)}-{self.tally.examples}"
            where = {"options": {"to": str(self.site.folder / "back" / name)}}
            self.submit("restore", asked.tree, {**where, "snapshot": record["result"]["snapshot"]}, name)

    @precondition(lambda self: self.answers())
    @rule(asked=backups)
    def cancel(self, asked: Asked) -> None:
        record = self.do(self.site.record(asked.request))
        if not record:
            return
        asked.may_be_cancelled |= record["state"] in ("queued", "running", "retrying")
        try:
            self.do(self.site.ask("snappy.api.job.cancel.alice", {"job": record["id"]}, 5.0))
        except UNREACHABLE:
            self.tally.steps["cancel: no answer"] += 1

    def back_up_anew(self) -> Asked:
        """Of a tree that was in no backup."""
        tree = self.plant([b"one", f"tree {len(self.contents)} of example {self.tally.examples}".encode()])
        return self.submit("backup", tree, self.reads(tree))

    def reads(self, tree: str) -> dict[str, Any]:
        return {"init": True, "duplicates": "queue", "options": {"paths": [str(self.site.data / tree)]}}

    def submit(self, kind: str, tree: str, command: dict[str, Any], name: str = "") -> Asked:
        request = name or f"b{len(self.asked)}-{self.tally.examples}"
        asked = self.asked[request] = Asked(request, kind, tree, command)
        self.publish(asked)
        return asked

    def publish(self, asked: Asked) -> None:
        """Until it is acknowledged."""
        self.do(self.site.submit(asked.kind, **asked.command, request=asked.request))
        self.tally.steps[f"command: {asked.kind}"] += 1

    # ---- what goes wrong -----------------------------------------------------------------------------------------

    @rule(target=backups, fault=st.sampled_from(FAULTS), victim=st.sampled_from(PROCESSES), delay=st.floats(0.0, 1.0))
    def strike(self, fault: str, victim: str, delay: float) -> Asked:
        """While a job runs, if that is possible, and so long after it began."""
        asked = self.back_up_anew()
        if not self.dead | self.frozen:
            self.do(self.site.wait_state(asked.request, {"running", *FINAL}))
            self.do(asyncio.sleep(delay))
        self.tally.moments.append(time.time())
        if fault == "kill nats-server":
            self.site.server.server.restart()
            self.tally.steps[fault] += 1
        elif victim not in self.dead | self.frozen:
            self.strike_process(fault, victim)
        return asked

    def strike_process(self, fault: str, victim: str) -> None:
        self.tally.steps[f"{fault} {victim}"] += 1
        if fault == "stop":
            self.site.freeze(victim)
            self.frozen.add(victim)
            return
        self.site.kill(victim)
        self.dead.add(victim)
        if fault == "kill and restart":
            self.mend(victim)

    @precondition(lambda self: self.dead | self.frozen)
    @rule(data=st.data())
    def mend_one(self, data: st.DataObject) -> None:
        self.mend(data.draw(st.sampled_from(sorted(self.dead | self.frozen))))

    @precondition(lambda self: self.dead | self.frozen in ({"site1"}, {"site1.b"}))
    @rule()
    def let_the_other_finish(self) -> None:
        """What the dead or stopped replica held comes to an end without it."""
        for request in self.asked:
            self.do(self.site.final(request, END_SECONDS))

    def mend(self, victim: str) -> None:
        if victim in self.frozen:
            self.site.thaw(victim)
        else:
            self.site.start(victim)
        self.dead.discard(victim)
        self.frozen.discard(victim)

    @rule(path=st.sampled_from(["data/*", "index/*", "snapshots/*", "locks/*"]), times=st.integers(1, 3))
    def storage_says_later(self, path: str, times: int) -> None:
        """A write fails in a way that may pass: the job is retried. What was planned first strikes first."""
        self.slow.end()
        self.storage.plan(StorageFault.BUSY, On.WRITE, path, times)
        self.slow = self.storage.plan(StorageFault.SLOW, On.WRITE, times=0, seconds=SLOW_SECONDS)

    @rule(seconds=st.floats(0.1, 3.0))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    def answers(self) -> bool:
        return "core" not in self.dead | self.frozen

    def do(self, work: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run(work)

    # ---- what must hold ------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        for victim in sorted(self.dead | self.frozen):
            self.mend(victim)
        self.back_up_anew()  # the site must still serve; and whoever writes too late has done it by then
        self.do(self.judge())

    async def judge(self) -> None:
        records = {request: await self.site.final(request, END_SECONDS) for request in self.asked}
        self.slow.end()
        log = await event_log.read(self.site)
        event_log.expect_told_once(log)
        await self.expect_audited(log)
        for asked in self.asked.values():
            self.expect_one_end(asked, records[asked.request], log)
            expect_one_at_a_time(records[asked.request])
        self.expect_a_backup_of_each(records)
        self.expect_snapshots(records)
        self.expect_same(records)
        self.site.expect_sound(self.restic)

    def expect_one_end(self, asked: Asked, record: dict[str, Any], log: Log) -> None:
        told = [events for events in log.by_job().values() if events[0].request == asked.request]
        assert len(told) == 1, f"{asked} became {len(told)} jobs"
        assert told[0][-1].data == record, (told[0][-1], record)
        assert record["state"] in asked.allowed(), (asked, record)
        self.tally.ends[f"{asked.kind} {record['state']}"] += 1

    def expect_a_backup_of_each(self, records: dict[str, Any]) -> None:
        """Twins may end one another, but not all."""
        for tree in self.contents:
            ends = [
                records[asked.request] for asked in self.asked.values() if (asked.kind, asked.tree) == ("backup", tree)
            ]
            by_hand = [
                end
                for end in ends
                if end["state"] == "cancelled" and (end.get("error") or {}).get("code") != "replaced"
            ]
            assert not ends or by_hand or any(end["state"] == "succeeded" for end in ends), ends

    def expect_snapshots(self, records: dict[str, Any]) -> None:
        """Who was at work twice left two."""
        found = self.site.snapshots_by_job(self.restic)
        for asked in self.asked.values():
            record = records[asked.request]
            snapshots = found.get(record["id"], [])
            if asked.kind == "backup" and record["state"] == "succeeded":
                assert snapshots == [record["result"]["snapshot"]], record
            else:
                assert len(snapshots) <= (record["state"] == "cancelled"), (record, snapshots)

    def expect_same(self, records: dict[str, Any]) -> None:
        """What restores is what was planted; the whole of it."""
        for asked in self.asked.values():
            if asked.kind == "restore" and records[asked.request]["state"] == "succeeded":
                self.site.expect_same(asked.request, self.site.data / asked.tree)

    async def expect_audited(self, log: Log) -> None:
        deadline = time.monotonic() + END_SECONDS
        while await self.site.expect_audit_whole() < log.messages:
            assert time.monotonic() < deadline, "events never came to the audit"
            await asyncio.sleep(0.1)


def expect_one_at_a_time(record: dict[str, Any]) -> None:
    """No attempt began before the last grant of the one before it had run out, and the margin with it."""
    attempts: Sequence[dict[str, Any]] = record["attempts"]
    assert [attempt["number"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    for earlier, later in pairwise(attempts):
        assert earlier["ended"] is not None, record
        assert later["started"] >= max(earlier["ended"], earlier["until"] + CLOCK_MARGIN) - ROUNDING, record


CHECKS = settings(
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
FEW = settings(CHECKS, max_examples=5, stateful_step_count=10, derandomize=True)
MANY = settings(CHECKS, max_examples=30, stateful_step_count=30)


@pytest.fixture
def storage(tmp_path: Path) -> FaultyStorage:
    return FaultyStorage(tmp_path / "faults")


@pytest.fixture
def running(tmp_path: Path, storage: FaultyStorage) -> Iterator[Arena]:
    with arena(tmp_path, core=LIMITS, processes=PROCESSES, programs={"vault": storage.program}) as made:
        yield made


@pytest.mark.parametrize(
    ("chosen", "least"),
    [
        pytest.param(FEW, 2, marks=[pytest.mark.long, pytest.mark.timeout(400)]),
        pytest.param(MANY, 60, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
    ids=["few", "many"],
)
def test_whatever_is_asked_and_whatever_breaks(
    running: Arena, storage: FaultyStorage, restic: str, chosen: settings, least: int
) -> None:
    tally = Tally()
    machine: Any = partial(Jobs, running, storage, restic, tally)
    run_state_machine_as_test(machine, settings=chosen)
    log = asyncio.run(event_log.read(running))
    met = [moment for moment in tally.moments if event_log.in_transition(log.by_job().values(), moment)]
    print(f"{tally.examples} examples: {dict(sorted(tally.steps.items()))}; {dict(tally.ends)}; {dict(storage.counts)}")
    print(f"{len(met)} of {len(tally.moments)} kills and stops met a job in transition")
    assert len(met) >= least
    assert tally.ends["backup succeeded"] >= tally.examples
