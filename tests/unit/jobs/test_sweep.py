"""When the core looks at its jobs again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from snappy import config
from snappy.jobs.messages import Hold, JobRecord
from snappy.jobs.states import State
from snappy.jobs.sweep import LEAST_REST, Sweep

NOW = 1000.0


def running(job: str, deadline: float) -> tuple[JobRecord, Hold]:
    hold = Hold(attempt=1, service="s", replica="r", deadline=deadline, target="t", key="k")
    return JobRecord(id=job, kind="backup", submitter="alice", state=State.RUNNING), hold


def waiting(job: str, not_before: float) -> tuple[JobRecord, None]:
    state = State.RETRYING
    return JobRecord(id=job, kind="backup", submitter="alice", state=state, not_before=not_before), None


def rest(*jobs: tuple[JobRecord, Hold | None]) -> float:
    """Seconds until a core that knows these jobs looks again, if it looks every second."""
    kept = {record.id: SimpleNamespace(value=hold) for record, hold in jobs if hold}
    records = SimpleNamespace(unfinished=lambda: iter([SimpleNamespace(value=record) for record, _ in jobs]))
    store: Any = SimpleNamespace(records=records, holds=kept)
    none: Any = None
    sweep = Sweep(none, store, none, none, none, none, none, none, config.Core(), clock=lambda: NOW)
    return sweep._rest(1.0)


def test_every_second_when_nothing_is_due() -> None:
    assert rest() == rest(running("a", NOW + 30)) == rest(waiting("a", NOW + 1.5)) == 1.0


def test_as_soon_as_a_hold_runs_out() -> None:
    assert rest(running("a", NOW + 30), running("b", NOW + 0.25)) == pytest.approx(0.25)


def test_as_soon_as_an_attempt_may_begin() -> None:
    assert rest(waiting("a", NOW + 0.75), running("b", NOW + 0.9)) == pytest.approx(0.75)


def test_what_was_due_before_does_not_hurry_it() -> None:
    assert rest(waiting("a", NOW - 1), running("b", NOW - 1), waiting("c", 0.0)) == 1.0


def test_not_too_often_however_much_is_due() -> None:
    assert rest(waiting("a", NOW + 0.001), waiting("b", NOW + 0.002)) == LEAST_REST
