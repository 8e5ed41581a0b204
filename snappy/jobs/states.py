"""The life of a job: one table, state x event -> state, and nothing else knows.

A state is what the record says; an event is what happened, and what observers read. ``checkpoint`` changes no state
and is not published.
"""

from __future__ import annotations

from enum import StrEnum

from snappy.errors import InternalError


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    """Accepted; waits for a worker."""
    RUNNING = "running"
    """A worker holds it."""
    RETRYING = "retrying"
    """An attempt ended without success; waits for its next one."""
    COPYING = "copying"
    """A backup that one target has; jobs of their own bring it to others, until enough of them have it."""
    SUCCEEDED = "succeeded"
    """Done, perhaps with warnings."""
    FAILED = "failed"
    """Over; the record says why."""
    CANCELLED = "cancelled"
    """Stopped on request."""
    REJECTED = "rejected"
    """Never run: it did not validate, or the submitter may not ask it."""


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED})


class Event(StrEnum):
    """What can happen to a job."""

    ACCEPTED = "accepted"
    ANNOUNCED = "announced"
    """Accepted; it will delete, and waits for the hours that its target gives to object."""
    REJECTED = "rejected"
    STARTED = "started"
    CHECKPOINT = "checkpoint"
    RETRYING = "retrying"
    STORED = "stored"
    """One more of several targets has the backup."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TABLE: dict[tuple[State | None, Event], State] = {
    (None, Event.ACCEPTED): State.QUEUED,
    (None, Event.ANNOUNCED): State.QUEUED,
    (None, Event.REJECTED): State.REJECTED,
    (State.QUEUED, Event.STARTED): State.RUNNING,
    (State.QUEUED, Event.CANCELLED): State.CANCELLED,
    (State.QUEUED, Event.FAILED): State.FAILED,
    (State.RUNNING, Event.CHECKPOINT): State.RUNNING,
    (State.RUNNING, Event.REJECTED): State.REJECTED,
    (State.RUNNING, Event.RETRYING): State.RETRYING,
    (State.RUNNING, Event.STORED): State.COPYING,
    (State.RUNNING, Event.SUCCEEDED): State.SUCCEEDED,
    (State.RUNNING, Event.FAILED): State.FAILED,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,
    (State.COPYING, Event.STORED): State.COPYING,
    (State.COPYING, Event.SUCCEEDED): State.SUCCEEDED,
    (State.COPYING, Event.FAILED): State.FAILED,
    (State.COPYING, Event.CANCELLED): State.CANCELLED,
    (State.RETRYING, Event.STARTED): State.RUNNING,
    (State.RETRYING, Event.FAILED): State.FAILED,
    (State.RETRYING, Event.CANCELLED): State.CANCELLED,
}


def may(state: State | None, event: Event) -> bool:
    """Whether ``event`` can happen to a job in ``state`` (``None``: there is no record yet)."""
    return (state, event) in TABLE


def after(state: State | None, event: Event) -> State:
    """The state that follows. Raises InternalError where the table has no entry."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise InternalError(f"a job that is {state or 'new'} cannot become {event}") from None
