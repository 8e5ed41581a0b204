"""Whatever the order and however often events are delivered: each stands once in the log, and gaps are told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snappy.jobs.following import GAP_SECONDS, Delivered, Follower, Stand

NOW = 1000.0


class Log:
    """What a follower writes, with a clock."""

    def __init__(self, stand: Stand | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self.now = NOW
        self.follower = Follower(stand or Stand(), self.is_kept, lambda: self.now)

    def is_kept(self, event: Delivered) -> bool:
        return any(entry.get("event") == event.event for entry in self.entries)

    def take(self, *sequences: int, at: float = 0.0, life: str = "a", first: bool = False) -> set[int]:
        delivered = [
            Delivered(number, at + number, "s", {"id": f"{life}{number}"}, first and number == min(sequences))
            for number in sequences
        ]
        entries, done = self.follower.take(delivered)
        self.entries += entries
        return done

    @property
    def events(self) -> list[str]:
        return [entry["event"]["id"] for entry in self.entries if "event" in entry]

    @property
    def alarms(self) -> list[str]:
        return [entry["alarm"] for entry in self.entries if "alarm" in entry]


def test_in_order() -> None:
    log = Log()
    assert log.take(1, 2, 3, first=True) == {1, 2, 3}
    assert log.events == ["a1", "a2", "a3"]


def test_what_comes_again_is_done_with_and_not_written() -> None:
    log = Log()
    log.take(1, 2)
    assert log.take(1, 2, 3) == {1, 2, 3}
    assert log.events == ["a1", "a2", "a3"]


def test_what_is_newer_waits_for_what_comes_again() -> None:
    log = Log(Stand(1, 3, 3.0))
    assert log.take(6, 7) == set()
    assert log.take(4, 5) == {4, 5, 6, 7}
    assert log.events == ["a4", "a5", "a6", "a7"]
    assert log.alarms == []


def test_a_gap_that_stays_is_an_alarm() -> None:
    log = Log(Stand(1, 3, 3.0))
    assert log.take(6) == set()
    log.now += GAP_SECONDS - 1
    assert log.take(6) == set()
    log.now += 2
    assert log.take(6) == {6}
    assert (log.alarms, log.events) == (["events are missing"], ["a6"])
    assert (log.entries[0]["first"], log.entries[0]["last"]) == (4, 5)


def test_the_next_gap_has_its_own_time() -> None:
    log = Log(Stand(1, 3, 3.0))
    log.take(6)
    log.now += GAP_SECONDS + 1
    assert log.take(6, 9) == {6}
    log.now += GAP_SECONDS + 1
    assert log.take(9) == {9}
    assert log.alarms == ["events are missing"] * 2


def test_a_fresh_consumer_shows_at_once_what_is_gone() -> None:
    log = Log()
    assert log.take(5, 6, first=True) == {5, 6}
    assert log.alarms == ["events are missing"]


def test_a_stream_made_anew_is_an_alarm_and_begins_an_epoch() -> None:
    log = Log()
    log.take(1, 2, 3)
    assert log.take(1, 2, at=100.0, life="b", first=True) == {1, 2}
    assert log.alarms == ["the events stream was made anew"]
    assert log.events == ["a1", "a2", "a3", "b1", "b2"]
    assert [entry["epoch"] for entry in log.entries] == [1, 1, 1, 2, 2, 2]


def test_an_event_after_its_turn_is_kept_and_told() -> None:
    log = Log(Stand(1, 3, 3.0))
    log.take(6)
    log.now += GAP_SECONDS + 1
    log.take(6)
    assert log.take(5) == {5}
    assert log.alarms == ["events are missing", "an event came late"]
    assert log.follower.stand == Stand(1, 6, 6.0)
    assert log.entries[-1]["late"]


@given(st.data())
def test_any_delivery_of_a_stream_gives_the_stream(data: st.DataObject) -> None:
    """Batches in any order, with repeats, as long as everything comes in the end."""
    count = data.draw(st.integers(1, 12))
    deliveries = data.draw(st.lists(st.lists(st.integers(1, count), min_size=1, unique=True), max_size=8))
    log = Log()
    done: set[int] = set()
    for batch in [*deliveries, list(range(1, count + 1))]:
        done |= log.take(*batch)
    assert log.events == [f"a{number}" for number in range(1, count + 1)]
    assert log.alarms == []
    assert done == set(range(1, count + 1))
