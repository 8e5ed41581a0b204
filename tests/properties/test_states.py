"""The table of states: every job can end, no end is left, and the table is all that is needed to know it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from snappy.errors import InternalError
from snappy.jobs.states import FINAL, TABLE, Event, State, after, may

NOTHING_YET = None


def reachable(start: State | None) -> set[State]:
    found: set[State] = set()
    todo = [start]
    while todo:
        here = todo.pop()
        new = {after(here, event) for event in Event if may(here, event)} - found
        found |= new
        todo += list(new)
    return found


def test_every_state_is_reached() -> None:
    assert reachable(NOTHING_YET) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_from_everywhere_a_job_can_succeed_fail_or_be_cancelled(state: State) -> None:
    assert reachable(state) >= {State.SUCCEEDED, State.FAILED, State.CANCELLED}


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_happens_after_the_end(state: State) -> None:
    assert not any(may(state, event) for event in Event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product([NOTHING_YET, *State], Event)))
def test_the_table_says_all(state: State | None, event: Event) -> None:
    if (state, event) in TABLE:
        assert after(state, event) is TABLE[state, event]
    else:
        with pytest.raises(InternalError):
            after(state, event)


def test_a_job_runs_only_when_it_starts() -> None:
    starts = {event for (state, event), then in TABLE.items() if then is State.RUNNING and state is not State.RUNNING}
    assert starts == {Event.STARTED}


class Life(RuleBasedStateMachine):
    """Events in any order: those the table does not have are refused and change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State | None = NOTHING_YET
        self.happened: list[Event] = []

    @rule(event=st.sampled_from(Event))
    def happen(self, event: Event) -> None:
        if may(self.state, event):
            self.state = after(self.state, event)
            self.happened.append(event)
        else:
            with pytest.raises(InternalError):
                after(self.state, event)

    @precondition(lambda self: self.state is not NOTHING_YET and self.state not in FINAL)
    @rule()
    def can_always_be_ended(self) -> None:
        assert reachable(self.state) & FINAL

    @invariant()
    def one_end_at_most(self) -> None:
        final = {Event.SUCCEEDED, Event.FAILED, Event.CANCELLED, Event.REJECTED}
        ends = [event for event in self.happened if event in final]
        assert len(ends) == (self.state in FINAL)
        assert not ends or self.happened[-1] is ends[0]

    @invariant()
    def each_retry_follows_a_start(self) -> None:
        moves = [event for event in self.happened if event in (Event.STARTED, Event.RETRYING)]
        assert moves == [Event.STARTED, Event.RETRYING][: len(moves)] + [
            [Event.STARTED, Event.RETRYING][number % 2] for number in range(2, len(moves))
        ]


TestLife = Life.TestCase
