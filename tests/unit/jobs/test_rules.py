"""The rules of a job, as functions of its record and the time; and which holds count against a limit."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from snappy import config
from snappy.bus.grants import CLOCK_MARGIN
from snappy.jobs import rules
from snappy.jobs.kinds import BackupCommand
from snappy.jobs.limits import Limits
from snappy.jobs.messages import Attempt, Hold, JobRecord
from snappy.jobs.mirror import Kept
from snappy.jobs.states import State
from snappy.jobs.upkeep import ForgetCommand

NOW = 1_800_000_000.0
COMMAND = BackupCommand(source="site1", target="vault", options={"paths": ["/etc"]})


def record(state: State = State.QUEUED, *, command: BackupCommand = COMMAND, **fields: Any) -> JobRecord:
    made = JobRecord(
        id="j",
        kind="backup",
        submitter="alice",
        state=state,
        source=command.source,
        created=NOW,
        command=msgspec.to_builtins(command),
    )
    return msgspec.structs.replace(rules.with_rules(made, command), **fields)


def running(started: float = NOW, **fields: Any) -> JobRecord:
    attempt = Attempt(number=1, service="site1", replica="r1", started=started)
    return record(State.RUNNING, attempts=[attempt], **fields)


def asking(**fields: Any) -> BackupCommand:
    return msgspec.structs.replace(COMMAND, **fields)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_times_of_the_command_stand_in_the_record() -> None:
    made = record(command=asking(priority=3, not_before=moment(NOW + 60), deadline=moment(NOW + 90)))
    assert (made.priority, made.not_before, made.since, made.deadline) == (3, NOW + 60, NOW + 60, NOW + 90)
    plain = record()
    assert (plain.priority, plain.not_before, plain.since, plain.deadline) == (0, 0.0, NOW, 0.0)


def test_a_schedules_wait_and_the_commands_both_hold() -> None:
    waiting = msgspec.structs.replace(record(), not_before=NOW + 100)
    assert rules.with_rules(waiting, asking(not_before=moment(NOW + 60))).not_before == NOW + 100


@pytest.mark.parametrize(
    ("seconds", "due"),
    [(9.9, False), (10.0, True), (19.9, True), (20.0, False)],
)
def test_due_from_not_before_until_the_deadline(seconds: float, due: bool) -> None:
    made = record(command=asking(not_before=moment(NOW + 10), deadline=moment(NOW + 20)))
    assert rules.is_due(made, NOW + seconds) is due
    assert not rules.is_due(msgspec.structs.replace(made, state=State.RUNNING), NOW + seconds)


def code(made: JobRecord, now: float) -> str:
    reason = rules.overdue(made, now)
    return reason.code if reason else ""


def test_an_attempt_has_its_time_and_no_more() -> None:
    made = running(command=asking(time_limit=5.0))
    assert [code(made, NOW + seconds) for seconds in (5.0, 5.1)] == ["", "time-limit"]
    assert code(record(command=asking(time_limit=5.0)), NOW + 100) == "", "waiting takes no time of an attempt"


def test_what_is_over_is_never_late() -> None:
    late = asking(deadline=moment(NOW + 1))
    assert code(running(command=late), NOW + 2) == "deadline"
    assert code(record(State.SUCCEEDED, command=late), NOW + 2) == ""


@pytest.mark.parametrize(("asked", "limit"), [(None, 3), (1, 1), (3, 3), (9, 3)])
def test_no_more_attempts_than_the_core_allows(asked: int | None, limit: int) -> None:
    assert rules.attempt_limit(record(command=asking(attempts=asked)), 3) == limit


@pytest.mark.parametrize(
    ("changes", "twins"),
    [
        ({"tags": ["other"], "priority": 4, "request": "r", "key": "other"}, True),
        ({"options": {"paths": ["/srv"]}}, False),
        ({"target": "other"}, False),
        ({"source": "site2"}, False),
        ({"plugin": "other"}, False),
    ],
)
def test_twins_do_the_same(changes: dict[str, Any], twins: bool) -> None:
    other = record(command=asking(**changes))
    assert rules.are_twins(record(), other) is twins
    assert (rules.twin_key(record()) == rules.twin_key(other)) is twins
    assert not rules.are_twins(record(), msgspec.structs.replace(record(), submitter="bob"))


def test_what_has_no_plugin_does_the_same_if_it_agrees_in_all_that_it_is_asked() -> None:
    def forget(**more: Any) -> JobRecord:
        command = ForgetCommand(source="site1", target="vault", keep_last=1, **more)
        return msgspec.structs.replace(record(), kind="forget", command=msgspec.to_builtins(command))

    assert rules.twin_key(forget()) == rules.twin_key(forget(priority=4, request="r", key="other", attempts=2))
    for other in (forget(keep_daily=3), forget(dry_run=True), forget(hosts=["north"])):
        assert not rules.are_twins(forget(), other)
        assert rules.twin_key(forget()) != rules.twin_key(other)


# ---- limits ----------------------------------------------------------------------------------------------------------


def has_room(hold: Hold, held: JobRecord | None, now: float) -> bool:
    """Whether another job may run beside one attempt, where one at a time may."""
    records = {} if held is None else {"held": Kept(held, 1)}
    store: Any = SimpleNamespace(records=records, holds=SimpleNamespace(kept={"held": Kept(hold, 1)}))
    return Limits(config.Limits(source=1), store, lambda: now).have_room(record())


HELD = Hold(attempt=1, service="site1", replica="r1", deadline=NOW + 30, target="vault", key="default")


@pytest.mark.parametrize("now", [NOW, NOW + 1000])
def test_an_attempt_counts_until_its_record_says_that_it_ended(now: float) -> None:
    """Though its hold ran out: while the core was away nobody could renew it."""
    assert not has_room(HELD, running(), now)
    (attempt,) = running().attempts
    ended = msgspec.structs.replace(attempt, ended=NOW)
    assert has_room(HELD, record(State.RETRYING, attempts=[ended]), now)
    assert has_room(HELD, record(State.SUCCEEDED), now)


def test_a_hold_whose_core_died_before_the_record_counts_until_it_runs_out() -> None:
    for held in (None, record()):
        assert not has_room(HELD, held, NOW + 30 + CLOCK_MARGIN - 0.1)
        assert has_room(HELD, held, NOW + 30 + CLOCK_MARGIN)


def test_what_the_core_ended_does_not_count() -> None:
    assert has_room(msgspec.structs.replace(HELD, over=True), running(), NOW)
    assert has_room(msgspec.structs.replace(HELD, service="site2"), running(), NOW), "another service's"
