"""What jobs say of sources, and when a promise is broken."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from snappy.jobs import protection
from snappy.jobs.messages import Attempt, Drilled, ErrorInfo, JobRecord, Result
from snappy.jobs.place_words import StoredAt
from snappy.jobs.protection import Promise, Protections, judged, note, of_backup
from snappy.jobs.protection_words import Protection
from snappy.jobs.result_words import SnapshotCopy, SnapshotGroup, SnapshotRow
from snappy.jobs.states import State

NOW = 1_800_000_000.0
HOUR = 3600
COMMAND = {"source": "site1", "target": "vault", "plugin": "files", "options": {"paths": ["/srv"]}}
SNAPSHOT = "a" * 64


def job(kind: str, name: str, at: float = NOW, *, state: State = State.SUCCEEDED, **fields: Any) -> JobRecord:
    """One that took a minute and ended ``at``."""
    command = fields.pop("command", COMMAND)
    attempt = Attempt(number=1, service="site1", replica="r1", started=at - 60, ended=at)
    made = JobRecord(id=name, kind=kind, submitter="alice", state=state, command=command, source="site1", updated=at)
    return replace(made, created=at - 90, attempts=[attempt], **fields)


def backup(name: str, at: float = NOW, *, snapshot: str = "", **fields: Any) -> JobRecord:
    result = Result(snapshot=snapshot or name * 8, host="db1", paths=["/srv"], time=at - 50, bytes_processed=7)
    return job("backup", name, at, result=result, **fields)


def failed(kind: str, name: str, at: float, **fields: Any) -> JobRecord:
    return job(kind, name, at, state=State.FAILED, error=ErrorInfo(code="no-space", message="full"), **fields)


def noted(*records: JobRecord, known: Protections | None = None) -> Protections:
    found = dict(known or {})
    for record in records:
        note(found, record)
    return found


def only(known: Protections) -> Protection:
    (found,) = known.values()
    return found


# ---- which source ----------------------------------------------------------------------------------------------------


def test_a_source_is_what_is_read_where_it_goes_and_who_reads_it() -> None:
    here = of_backup(COMMAND, NOW)
    same = [
        {**COMMAND, "options": {"paths": ["/srv/"], "exclude": ["*.tmp"]}},
        {**COMMAND, "tags": ["x"], "host": None, "priority": 3},
    ]
    assert {of_backup(command, 0.0).id for command in same} == {here.id}
    others = [
        {**COMMAND, "source": "site2"},
        {**COMMAND, "target": "second"},
        {**COMMAND, "host": "db2"},
        {**COMMAND, "options": {"paths": ["/srv", "/etc"]}},
        {**COMMAND, "plugin": "other", "options": {"name": "x"}},
        {**COMMAND, "plugin": "other", "options": {"name": "y"}},
        {**COMMAND, "plugin": "third", "options": {"name": "y"}},
    ]
    assert len({of_backup(command, 0.0).id for command in others} | {here.id}) == len(others) + 1


# ---- what jobs say ---------------------------------------------------------------------------------------------------


def test_a_backup_is_as_old_as_its_snapshot() -> None:
    source = only(noted(backup("one")))
    (good,) = source.backups
    assert (good.job, good.at, good.bytes, source.host, source.paths) == ("one", NOW - 50, 7, "db1", ["/srv"])


@pytest.mark.parametrize(("told", "at"), [(0.0, NOW - 60), (NOW + 9999, NOW)])
def test_a_snapshot_is_never_from_after_its_job_and_of_an_old_worker_from_its_begin(told: float, at: float) -> None:
    made = backup("one")
    assert made.result is not None
    assert only(noted(replace(made, result=replace(made.result, time=told)))).backups[0].at == at


def at_two(over: State, **second: str) -> JobRecord:
    """A backup that its first target has, and what became of it at the second."""
    stored = [
        StoredAt(target="vault", key="k", state="stored", snapshot=SNAPSHOT),
        StoredAt(target="second", key="k", **second),  # type: ignore[arg-type]
    ]
    made = backup("one", snapshot=SNAPSHOT, command={**COMMAND, "targets": [{"target": "second", "key": None}]})
    assert made.result is not None
    error = ErrorInfo(code="quorum-missed", message="too few") if over is State.FAILED else None
    return replace(made, state=over, error=error, result=replace(made.result, stored=stored))


def test_a_backup_to_several_targets_is_known_at_each_that_has_it() -> None:
    both = noted(at_two(State.SUCCEEDED, state="stored", snapshot="b" * 64))
    assert {each.target: each.backups[0].snapshot for each in both.values()} == {"vault": SNAPSHOT, "second": "b" * 64}
    behind = noted(at_two(State.FAILED, state="behind"))
    told = {each.target: (len(each.backups), each.mishap is not None) for each in behind.values()}
    assert told == {"vault": (1, False), "second": (0, True)}
    for state in (State.SUCCEEDED, State.COPYING, State.CANCELLED):
        known = noted(at_two(state, state="waiting")).values()
        assert {each.target: (len(each.backups), each.mishap) for each in known} == {
            "vault": (1, None),
            "second": (0, None),
        }


def test_a_copy_that_follows_a_backup_tells_no_more_than_the_backup() -> None:
    copy = {"source": "site1", "target": "second", "origin": "vault"}
    copies = [SnapshotCopy(snapshot=SNAPSHOT, copy="b" * 64, is_new=True)]
    follower = job("copy", "c", NOW + HOUR, command=copy, result=Result(copies=copies), follows="one")
    before, after = at_two(State.SUCCEEDED, state="behind"), at_two(State.SUCCEEDED, state="stored", snapshot="b" * 64)
    told = noted(before, follower)
    assert {each.target: len(each.backups) for each in told.values()} == {"vault": 1, "second": 1}
    known = noted(before, follower, after)
    assert noted(follower, after, known=known) == known
    assert {each.target: each.backups[0].job for each in known.values()} == {"vault": "one", "second": "one"}


def test_the_newest_backups_are_kept_whatever_the_order() -> None:
    records = [backup(f"{number:02}", NOW + number) for number in range(20)]
    random.Random(7).shuffle(records)
    assert [good.job for good in only(noted(*records)).backups] == [f"{number:02}" for number in range(19, 11, -1)]


@pytest.mark.parametrize("state", [State.FAILED, State.REJECTED])
def test_a_failure_is_noted_and_takes_nothing_away(state: State) -> None:
    source = only(noted(backup("one"), replace(failed("backup", "two", NOW + 9), state=state)))
    assert source.backups[0].job == "one"
    assert source.mishap is not None
    assert (source.mishap.job, source.mishap.code, source.mishap.at) == ("two", "no-space", NOW + 9)


def test_that_a_twin_goes_on_is_no_failure() -> None:
    twin = replace(failed("backup", "two", NOW), state=State.REJECTED, error=ErrorInfo(code="duplicate", message="x"))
    assert only(noted(twin)).mishap is None


def test_what_was_cancelled_or_never_was_a_command_says_nothing() -> None:
    cancelled = replace(backup("one"), state=State.CANCELLED)
    odd = failed("backup", "two", NOW, command={"source": "site1", "target": "vault"})
    assert noted(cancelled, odd, job("restore", "three"), job("init", "four")) == {}


def drill(name: str, at: float, *, target: str = "vault", **result: Any) -> JobRecord:
    return job("drill", name, at, command={"source": "site1", "target": target}, result=Result(**result))


def test_a_drill_proves_the_source_whose_snapshot_it_was() -> None:
    known = noted(backup("one"))
    by_group = drill("d1", NOW + 1, snapshot="f" * 64, host="db1", paths=["/srv"])
    by_id = drill("d2", NOW + 2, snapshot="one" * 8)
    for each in (by_group, by_id):
        proven = only(noted(each, known=known)).drill
        assert proven is not None
        assert (proven.job, proven.at) == (each.id, each.updated - 60)
    for other in (
        drill("d3", NOW, snapshot="f" * 64, host="db2", paths=["/srv"]),
        drill("d4", NOW, snapshot="f" * 64, host="db1", paths=["/etc"]),
        drill("d5", NOW, snapshot="one" * 8, target="second"),
        failed("drill", "d6", NOW, command={"source": "site1", "target": "vault", "snapshot": "one"}),
    ):
        assert only(noted(other, known=known)).drill is None


def test_a_drill_says_how_long_a_recovery_takes_and_of_how_much() -> None:
    drilled = Drilled(sample="5%", seed=7, recovery=12.5, proof=80.0)
    proven = only(noted(backup("one"), drill("d", NOW + 1, snapshot="one" * 8, seconds=100.0, drill=drilled))).drill
    assert proven
    assert (proven.seconds, proven.sample) == (12.5, "5%")


def test_a_drill_that_failed_is_remembered_beside_a_backup_that_did() -> None:
    command = {"source": "site1", "target": "vault"}
    known = noted(backup("one"), failed("drill", "d", NOW + 1, command=command), failed("backup", "b", NOW + 2))
    source = only(known)
    assert source.mishap
    assert source.drill_mishap
    assert (source.mishap.job, source.drill_mishap.job) == ("b", "d")
    again = only(noted(failed("drill", "d", NOW + 1, command=command), known=known))
    assert again == source


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ({}, True),
        ({"snapshot": "latest", "host": "db1", "paths": ["/srv"]}, True),
        ({"host": "db2"}, False),
        ({"paths": ["/etc"]}, False),
        ({"snapshot": "oneone"}, True),
        ({"snapshot": "twotwo"}, False),
        ({"target": "second"}, False),
    ],
)
def test_a_drill_that_found_no_snapshot_failed_what_it_was_meant_for(wanted: dict[str, Any], meant: bool) -> None:
    command = {"source": "site1", "target": "vault", **wanted}
    source = only(noted(backup("one"), failed("drill", "d", NOW + 9, command=command)))
    assert (source.mishap is not None) is meant


def test_a_copy_protects_at_the_other_target_and_is_as_old() -> None:
    copy = {"source": "site1", "target": "second", "origin": "vault"}
    copies = [SnapshotCopy(snapshot="one" * 8, copy=SNAPSHOT, is_new=True)]
    known = noted(backup("one"), job("copy", "c", NOW + HOUR, command=copy, result=Result(copies=copies)))
    there = of_backup({**COMMAND, "target": "second"}, 0.0).id
    (good,) = known[there].backups
    assert (good.snapshot, good.at, good.job) == (SNAPSHOT, NOW - 50, "c")
    assert (known[there].target, known[there].host, known[there].paths) == ("second", "db1", ["/srv"])
    both = noted(backup("two", NOW + 2 * HOUR, command={**COMMAND, "target": "second"}), known=known)
    assert [each.job for each in both[there].backups] == ["two", "c"]


def forget(name: str, at: float, *gone: str, **command: Any) -> JobRecord:
    rows = [
        SnapshotRow(id=each, time=datetime.fromtimestamp(NOW, UTC), hostname="db1", paths=None, tags=None)
        for each in gone
    ]
    kept = [replace(row, id="k", reasons=["x"]) for row in rows]
    groups = [SnapshotGroup(host="db1", paths=None, tags=None, snapshots=[*rows, *kept])]
    return job("forget", name, at, command={"source": "s", "target": "vault", **command}, result=Result(groups=groups))


def test_what_is_forgotten_protects_nothing_any_more() -> None:
    known = noted(backup("one", NOW), backup("two", NOW + HOUR))
    left = only(noted(forget("f", NOW + 2 * HOUR, "two" * 8), known=known))
    assert ([each.job for each in left.backups], left.emptied) == (["one"], 0.0)
    named = only(noted(forget("f", NOW + 2 * HOUR, snapshots=["onetwo", "oneone"]), known=known))
    assert [each.job for each in named.backups] == ["two"]
    none = only(noted(forget("f", NOW + 2 * HOUR, "one" * 8, "two" * 8), known=known))
    assert (none.backups, none.emptied) == ([], NOW + 2 * HOUR)
    assert only(noted(forget("f", NOW, "one" * 8, dry_run=True), known=known)) == only(known)
    assert only(noted(forget("f", NOW, "one" * 8, target="second"), known=known)) == only(known)


HAPPENED = st.lists(
    st.one_of(
        st.builds(lambda n: backup(f"{n:03}", NOW + n), st.integers(0, 99)),
        st.builds(lambda n: failed("backup", f"x{n}", NOW + n), st.integers(0, 99)),
        st.builds(lambda n: drill(f"d{n}", NOW + n, snapshot="f", host="db1", paths=["/srv"]), st.integers(0, 99)),
        st.builds(lambda n: forget(f"f{n}", NOW + n, f"{n // 2:03}" * 8), st.integers(0, 99)),
    ),
    max_size=7,
    unique_by=lambda record: record.updated,
)


@given(HAPPENED, st.integers(0, 8))
def test_reading_all_again_leads_to_the_same(records: list[JobRecord], place: int) -> None:
    """As a core that starts does, over what another one has written."""
    records = [backup("first", NOW - 1), *sorted(records, key=lambda record: record.updated)]
    once = noted(*records)
    assert noted(*records, known=noted(*records[:place])) == once
    assert noted(*records, known=once) == once
    assert msgspec.json.decode(msgspec.json.encode(once), type=dict[str, Protection]) == once


def test_two_memories_make_one() -> None:
    early, late = only(noted(backup("one"))), only(noted(backup("two", NOW + HOUR), failed("backup", "x", NOW + HOUR)))
    told = replace(early, event_number=4, is_stale=True)
    for found in (protection.merged(told, late), protection.merged(late, told)):
        assert [each.job for each in found.backups] == ["two", "one"]
        assert (found.event_number, found.is_stale, found.mishap) == (4, True, late.mishap)
    assert protection.merged(found, late) == found


# ---- promises --------------------------------------------------------------------------------------------------------

DAILY = Promise(max_age=26 * HOUR, max_drill_age=30 * 24 * HOUR)


def at(source: Protection, hours: float, *, promise: Promise = DAILY, may_accuse: bool = True) -> Protection:
    return judged(source, promise, NOW + hours * HOUR, may_accuse=may_accuse)


def test_each_change_is_an_event_of_its_own() -> None:
    fresh = only(noted(backup("one")))
    assert at(fresh, 25) is fresh
    stale = at(fresh, 27)
    assert (stale.is_stale, stale.event, stale.event_number, stale.told) == (True, "stale", 1, False)
    assert at(stale, 28) is stale, "the next is told once this one was"
    told = replace(stale, told=True)
    assert at(told, 28) is told
    unproven = at(told, 24 * 31)
    assert (unproven.is_unproven, unproven.is_stale) == (True, True)
    assert (unproven.event, unproven.event_number) == ("unproven", 2)
    again = only(noted(backup("two", NOW + 24 * 31 * HOUR), known={told.id: told}))
    better = at(again, 24 * 31)
    assert (better.is_stale, better.event, better.event_number) == (False, "fresh", 2)


STEPS = st.lists(
    st.one_of(
        st.integers(1, 40 * 24).map(lambda hours: ("wait", hours)),
        st.sampled_from([("back up", 0), ("drill", 0), ("tell", 0)]),
        st.integers(0, 2).map(lambda which: ("promise", which)),
    ),
    max_size=40,
)
PROMISES = [Promise(), DAILY, Promise(max_age=99 * HOUR)]


@given(STEPS)
def test_whatever_happens_each_event_contradicts_the_one_before_of_its_kind(steps: list[tuple[str, int]]) -> None:
    source, now, promise = only(noted(backup("first"))), NOW, DAILY
    told = {"backup": ["fresh"], "drill": ["proven"]}
    for step, number in [*steps, *[("tell", 0)] * 3]:
        now += number * HOUR if step == "wait" else 1
        promise = PROMISES[number] if step == "promise" else promise
        if step == "back up":
            source = only(noted(backup(f"b{now}", now), known={source.id: source}))
        if step == "drill":
            proof = drill(f"d{now}", now, snapshot="f", host="db1", paths=["/srv"])
            source = only(noted(proof, known={source.id: source}))
        if step == "tell":
            source = replace(source, told=True)
        before, source = source, judged(source, promise, now, may_accuse=True)
        if source is not before:
            assert source.event_number == before.event_number + 1
            told["backup" if source.event in ("stale", "fresh") else "drill"].append(source.event)
    for events in told.values():
        assert all(one != other for one, other in pairwise(events))
    assert source.is_stale is protection.is_stale(source, promise, now)
    assert source.is_unproven is protection.is_unproven(source, promise, now)


def test_a_core_that_may_not_accuse_yet_still_gives_the_all_clear() -> None:
    fresh = only(noted(backup("one")))
    assert at(fresh, 99, may_accuse=False) is fresh
    accused = replace(fresh, is_stale=True, event_number=1)
    assert at(accused, 1, may_accuse=False).event == "fresh"


def test_a_promise_taken_back_is_not_broken() -> None:
    accused = replace(only(noted(backup("one"))), is_stale=True)
    assert at(accused, 99, promise=Promise(), may_accuse=False).event == "fresh"


def test_one_that_was_never_backed_up_has_the_time_that_is_promised() -> None:
    source = of_backup(COMMAND, NOW)
    assert at(source, 26) is source
    assert at(source, 26.1).event == "stale"


def test_drills_are_due_from_when_they_were_promised() -> None:
    source = only(noted(backup("one", NOW - 90 * 24 * HOUR)))
    promise = Promise(max_drill_age=HOUR, drills_since=NOW)
    assert not protection.is_unproven(source, promise, NOW + HOUR)
    assert protection.is_unproven(source, promise, NOW + HOUR + 1)


@given(st.integers(1, 10**6), st.integers(-(10**6), 10**6))
def test_a_promise_holds_to_the_second(most: int, age: int) -> None:
    source = only(noted(backup("one")))
    now = source.backups[0].at + age
    assert protection.is_stale(source, Promise(max_age=most), now) is (age > most)


def test_what_nobody_speaks_of_any_more_is_idle() -> None:
    source = only(noted(backup("one")))
    later = NOW + 1
    assert protection.is_idle(source, Promise(), later)
    assert not protection.is_idle(source, Promise(), NOW - 100)
    assert not protection.is_idle(source, DAILY, later)
    assert not protection.is_idle(replace(source, told=False), Promise(), later)
    assert protection.is_idle(of_backup(COMMAND, NOW), DAILY, 0.0), "nobody ever backed it up, nor expects it"
    emptied = only(noted(forget("f", NOW + 5, "one" * 8), known={source.id: source}))
    assert not protection.is_idle(emptied, DAILY, later)
    assert not protection.is_idle(emptied, Promise(), NOW)
