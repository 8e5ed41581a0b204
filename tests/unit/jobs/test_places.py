"""A backup to several targets: where its attempts store it, and what becomes of it at each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.errors import (
    AttemptLost,
    NotARepository,
    SnappyError,
    SourceMissing,
    SourceUnavailable,
    Unavailable,
    WrongPassword,
)
from snappy.jobs import places
from snappy.jobs.kinds import BackupCommand, typed_command
from snappy.jobs.messages import Attempt, ErrorInfo, JobRecord, Result
from snappy.jobs.place_words import StoredAt, TargetKey
from snappy.jobs.result_words import SnapshotCopy
from snappy.jobs.states import State

LIMIT = 2
NAMES = ["a", "b", "c"]


def backup(**fields: Any) -> JobRecord:
    command = BackupCommand(
        source="site", target="a", key="ka", targets=[TargetKey(target="b", key="kb"), TargetKey(target="c")], **fields
    )
    return JobRecord(
        id="j", kind="backup", submitter="alice", state=State.RUNNING, command=msgspec.to_builtins(command)
    )


def failed(number: int, target: str, error: SnappyError) -> Attempt:
    return Attempt(number=number, service="site", replica="r", started=0.0, target=target, error=ErrorInfo.of(error))


def tried(*errors: SnappyError) -> list[str]:
    """Where the attempts work that end with these errors, and where the next one would; empty: there is none."""
    record, attempts, where = backup(), list[Attempt](), ["a"]
    for number, error in enumerate(errors):
        attempts.append(failed(number, places.place_of(record).target, error))
        place = places.next_place(record, attempts, LIMIT)
        where.append(place.target if place else "")
        record = msgspec.structs.replace(record, place=place)
    return where


def test_each_target_with_its_key_and_all_as_the_quorum() -> None:
    record = backup()
    assert [(place.target, place.key) for place in places.places_of(record.command)] == [
        ("a", "ka"),
        ("b", "kb"),
        ("c", "ka"),
    ]
    assert (places.quorum_of(record.command), places.quorum_of(backup(quorum=2).command)) == (3, 2)
    assert places.is_spread(record)
    assert not places.is_spread(JobRecord(id="j", kind="init", submitter="alice", state=State.RUNNING))


def test_the_worker_sees_the_target_of_its_attempt_and_the_others_beside_it() -> None:
    record = msgspec.structs.replace(backup(), place=TargetKey(target="b", key="kb"))
    command = typed_command("backup", places.at_place(record).command)
    assert isinstance(command, BackupCommand)
    assert (command.target, command.key) == ("b", "kb")
    assert [(place.target, place.key) for place in command.targets] == [("a", "ka"), ("c", "ka")]
    assert places.at_place(backup()) == backup()


def test_after_an_error_the_next_target_has_its_turn_and_after_a_loss_the_same() -> None:
    assert tried(Unavailable(), Unavailable(), Unavailable(), Unavailable()) == ["a", "b", "c", "a", "b"]
    assert tried(AttemptLost(), AttemptLost(), Unavailable(), AttemptLost()) == ["a", "a", "a", "b", "b"]


def test_a_target_where_it_can_never_be_is_not_tried_again() -> None:
    assert tried(WrongPassword(), Unavailable(), NotARepository(), Unavailable()) == ["a", "b", "c", "b", ""]


def test_what_is_wrong_with_the_source_is_wrong_at_each_target() -> None:
    assert tried(SourceMissing()) == ["a", ""]
    assert tried(SourceUnavailable(), SourceUnavailable()) == ["a", "a", ""]


@given(st.lists(st.sampled_from([Unavailable, WrongPassword]), min_size=6, max_size=6))
def test_no_target_is_tried_too_often(errors: list[type[SnappyError]]) -> None:
    where = tried(*(error() for error in errors[: LIMIT * len(NAMES)]))
    end = where.index("")
    assert all(where[:end].count(name) <= LIMIT for name in NAMES)
    assert set(where[:end]) == set(NAMES)


def test_nobody_took_it() -> None:
    attempts = [failed(1, "a", WrongPassword("wrong")), failed(2, "b", NotARepository("none"))]
    error, result = places.nowhere(backup(quorum=1), attempts)
    assert (error.code, error.message) == (
        "quorum-missed",
        "no target has the backup, and 1 of 3 were asked for; a: wrong; b: none; c: failed",
    )
    assert {one.state for one in result.stored} == {"failed"}


def test_who_has_it_first_and_who_is_to_follow() -> None:
    record = msgspec.structs.replace(backup(priority=3, bandwidth="1M"), place=TargetKey(target="b", key="kb"))
    result = places.stored_first(record, Result(snapshot="5" * 64), ["0", "1", "2"])
    assert [(one.target, one.state, one.job) for one in result.stored] == [
        ("a", "waiting", "0"),
        ("b", "stored", ""),
        ("c", "waiting", "2"),
    ]
    record = msgspec.structs.replace(record, result=result)
    assert places.is_unsettled(record)
    copy = msgspec.to_builtins(places.copy_of(record, result.stored[0]))
    wanted = {"source": "site", "target": "a", "key": "ka", "origin": "b", "origin_key": "kb", "snapshots": ["5" * 64]}
    wanted |= {"priority": 3, "bandwidth": "1M", "init": False}
    assert {name: copy[name] for name in wanted} == wanted


WAITING = StoredAt(target="a", key="ka", state="waiting", job="0")


def copying(state: State, errors: int = 0, **fields: Any) -> JobRecord:
    attempts = [failed(number, "a", Unavailable("away")) for number in range(errors)]
    error = attempts[-1].error if attempts else None
    command = {"target": "a", "key": "ka"}
    return JobRecord(
        id="0",
        kind="copy",
        submitter="alice",
        state=state,
        command=command,
        follows="j",
        attempts=attempts,
        error=error,
        **fields,
    )


@pytest.mark.parametrize(
    ("copy", "state", "reason"),
    [
        (copying(State.QUEUED), "waiting", ""),
        (copying(State.RETRYING, errors=1), "waiting", "away"),
        (copying(State.RETRYING, errors=2), "behind", "away"),
        (copying(State.FAILED, errors=3), "failed", "away"),
        (copying(State.CANCELLED), "failed", "job 0 is cancelled"),
    ],
)
def test_what_a_copy_tells_of_its_target(copy: JobRecord, state: str, reason: str) -> None:
    seen = places.seen(WAITING, copy, LIMIT)
    assert (seen.state, seen.reason) == (state, reason)


def test_a_copy_that_succeeded_tells_its_snapshot() -> None:
    made = SnapshotCopy(snapshot="5" * 64, copy="6" * 64, is_new=True)
    seen = places.seen(WAITING, copying(State.SUCCEEDED, result=Result(copies=[made])), LIMIT)
    assert (seen.state, seen.snapshot) == ("stored", "6" * 64)
    assert not places.is_unsettled(msgspec.structs.replace(backup(), result=Result(stored=[seen])))


def test_a_copy_is_brought_from_whoever_has_it() -> None:
    here = StoredAt(target="b", key="kb", state="stored", snapshot="5" * 64)
    there = StoredAt(target="c", key="kc", state="stored", snapshot="6" * 64)
    kept = msgspec.structs.replace(backup(), result=Result(stored=[WAITING, here, there]))
    found = [places.out_of_any(copying(State.RUNNING, errors), kept).command for errors in range(3)]
    assert [(one["origin"], one["origin_key"], one["snapshots"]) for one in found] == [
        ("b", "kb", ["5" * 64]),
        ("c", "kc", ["6" * 64]),
        ("b", "kb", ["5" * 64]),
    ]
    assert places.out_of_any(copying(State.RUNNING), backup()) == copying(State.RUNNING)


def test_what_counts_for_the_quorum() -> None:
    here, there = msgspec.structs.replace(WAITING, state="stored"), msgspec.structs.replace(WAITING, state="behind")
    assert (places.have_it([here, WAITING, there]), places.have_it([there])) == (1, 0)
    assert places.may_reach([here, WAITING, there], 2)
    assert not places.may_reach([here, WAITING, there], 3)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": [TargetKey(target="a")]}, "different"),
        ({"targets": [TargetKey(target="b"), TargetKey(target="b")]}, "different"),
        ({"targets": [TargetKey(target="b")], "quorum": 3}, "quorum is 3"),
        ({"quorum": 2}, "quorum is 2"),
    ],
)
def test_a_command_that_makes_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BackupCommand(source="site", target="a", **fields)
