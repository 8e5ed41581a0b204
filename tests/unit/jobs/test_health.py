"""What follows from checks: damage stands until a check as deep finds none, and shares are read in turn."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.jobs.health import ALL, STRUCTURE, after_check, next_share
from snappy.jobs.repository_words import RepositoryState

NEW = RepositoryState(target="vault")


def checked(
    before: RepositoryState, job: str, portion: str, *, damaged: bool = False, at: float = 1.0
) -> RepositoryState:
    return after_check(before, job=job, portion=portion, is_damaged=damaged, repository="id", at=at)


@pytest.mark.parametrize(
    ("damaged", "then", "state"),
    [
        (STRUCTURE, STRUCTURE, "sound"),
        (STRUCTURE, "2/7", "sound"),
        (STRUCTURE, "10%", "sound"),
        ("2/7", STRUCTURE, "damaged"),
        ("2/7", "3/7", "damaged"),
        ("2/7", "2/8", "damaged"),
        ("2/7", "2/7", "sound"),
        ("02/7", "2/07", "sound"),
        ("2/7", ALL, "sound"),
        ("10%", "10%", "damaged"),
        ("10%", "90%", "damaged"),
        ("10%", ALL, "sound"),
        (ALL, "1/7", "damaged"),
        (ALL, STRUCTURE, "damaged"),
        (ALL, ALL, "sound"),
    ],
)
def test_damage_stands_until_a_check_as_deep_finds_none(damaged: str, then: str, state: str) -> None:
    found = checked(NEW, "one", damaged, damaged=True)
    assert (found.state, found.job, found.since) == ("damaged", "one", 1.0)
    after = checked(found, "two", then, at=2.0)
    assert after.state == state
    assert (after.job, after.since) == (("two", 2.0) if state == "sound" else ("one", 1.0))


def test_each_portion_with_damage_has_to_be_whole_again() -> None:
    both = checked(checked(NEW, "one", "1/2", damaged=True), "two", "2/2", damaged=True)
    half = checked(both, "three", "1/2")
    assert (half.state, half.damage, half.job) == ("damaged", {"2/2": "two"}, "two")
    assert checked(half, "four", "2/2").state == "sound"


def test_the_same_report_again_changes_nothing() -> None:
    for damaged in (True, False):
        before = checked(NEW, "zero", ALL, damaged=True)
        once = checked(before, "one", "1/3", damaged=damaged)
        assert checked(once, "one", "1/3", damaged=damaged) == once


def test_shares_are_read_in_turn_also_after_one_was_read_by_hand() -> None:
    state, read = NEW, []
    for day in range(1, 8):
        share = next_share(state, "next/3")
        read.append(share)
        state = checked(state, f"job-{day}", share, at=float(day))
        if day == 4:
            state = checked(state, "by hand", "2/3", at=4.5)
    assert read == ["1/3", "2/3", "3/3", "1/3", "3/3", "1/3", "2/3"]
    everything = checked(state, "all", ALL, at=9.0)
    assert everything.shares == {"3": [9.0] * 3}
    assert next_share(everything, "next/3") == "1/3"


def test_a_share_with_damage_was_read_too() -> None:
    assert next_share(checked(NEW, "one", "1/3", damaged=True), "next/3") == "2/3"


@given(
    st.lists(st.tuples(st.text(max_size=9) | st.from_regex(r"[0-9]{1,3}/[0-9]{1,3}", fullmatch=True), st.booleans()))
)
def test_whatever_workers_say_it_stays_small(said: list[tuple[str, bool]]) -> None:
    state = NEW
    for number, (portion, damaged) in enumerate(said):
        state = checked(state, str(number), portion, damaged=damaged)
    assert len(msgspec.json.encode(state)) < 64 << 10
    assert all(1 <= len(times) <= 256 for times in state.shares.values())


def test_of_many_portions_with_damage_all_is_taken_for_damaged() -> None:
    state = NEW
    for number in range(1, 257):
        state = checked(state, "one", f"{number}/256", damaged=True)
        state = checked(state, "two", f"1/{number}", damaged=True)
    assert len(state.damage) <= 256
    assert state.state == "damaged"
