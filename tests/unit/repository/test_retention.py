"""The edges of a policy. That it keeps what restic's keeps is shown in ``tests/interop/test_restic_forget.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from snappy.errors import LastSnapshot, UsageError
from snappy.repository.retention import UNLIMITED, Filters, Grouping, Policy, grouped, has_tags, tag_list
from snappy.repository.snapshots import Snapshot
from snappy.repository.spans import Span

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def snapshot(number: int, *, days: float = 0.0, tags: list[str] | None = None, host: str = "north") -> Snapshot:
    time = NOW - timedelta(days=days)
    return Snapshot(time=time, tree="", paths=["/srv"], hostname=host, tags=tags, id=f"{number:064x}")


def kept(snapshots: list[Snapshot], policy: Policy, grouping: str = "host,paths") -> dict[int, list[str]]:
    groups = grouped(snapshots, policy, Grouping.parse(grouping), now=NOW)
    assert sum(len(group.keep) + len(group.remove) for group in groups) == len(snapshots)
    return {int(one.snapshot.id, 16): one.reasons for group in groups for one in group.keep}


def test_the_oldest_stays_where_a_count_is_left() -> None:
    snapshots = [snapshot(number, days=number / 10) for number in range(1, 6)]
    assert kept(snapshots, Policy(counts={"daily": 2})) == {1: ["daily snapshot"], 5: ["oldest daily snapshot"]}
    assert kept(snapshots, Policy(counts={"daily": 1})) == {1: ["daily snapshot"]}


def test_of_equal_times_each_counts_once() -> None:
    snapshots = [snapshot(number, days=1) for number in range(4)]
    assert kept(snapshots, Policy(counts={"last": 2})) == {0: ["last snapshot"], 1: ["last snapshot"]}


def test_what_lies_ahead_is_kept_and_measured_from_by_none() -> None:
    snapshots = [snapshot(1, days=-9), snapshot(2, days=1), snapshot(3, days=3)]
    within = Policy(within=Span(days=1))
    assert kept(snapshots, within) == {1: ["within 1d"], 2: ["within 1d"]}
    assert kept(snapshots[:1], within) == {1: ["within 1d"]}


def test_every_reason_is_told() -> None:
    policy = Policy(
        counts={"last": 1, "yearly": UNLIMITED},
        within=Span(days=1),
        periods_within={"weekly": Span(months=1)},
        tags=[("a", "b"), ("c",)],
    )
    reasons = ["has tags [a, b]", "within 1d", "last snapshot", "yearly snapshot", "weekly within 1m"]
    assert kept([snapshot(1, days=1, tags=["b", "a"])], policy) == {1: reasons}


def test_a_group_of_which_nothing_would_stay_is_refused() -> None:
    snapshots = [snapshot(1, tags=["keep"]), snapshot(2, host="south")]
    with pytest.raises(LastSnapshot, match=r"host south, path \[/srv\]"):
        kept(snapshots, Policy(tags=[("keep",)]))
    assert kept(snapshots, Policy(tags=[("keep",)]), grouping="") == {1: ["has tags [keep]"]}
    assert kept(snapshots, Policy()) == {}


@pytest.mark.parametrize(
    "policy", [Policy(counts={"last": 1}), Policy(within=Span(hours=1)), Policy(periods_within={"daily": Span(1)})]
)
def test_a_policy_is_empty_where_it_keeps_nothing(policy: Policy) -> None:
    assert not policy.is_empty
    assert not Policy(tags=[("",)]).is_empty
    assert Policy(counts={"last": 0}, periods_within={"daily": Span()}).is_empty


def test_tags() -> None:
    untagged, tagged = snapshot(1), snapshot(2, tags=["a", "b"])
    assert tag_list(" a,b ,") == ("a", "b", "")
    assert [has_tags(tagged, tag_list(text)) for text in ("a", "b,a", "a,c", "")] == [True, True, False, False]
    assert [has_tags(untagged, tag_list(text)) for text in ("a", "", ",a")] == [False, True, True]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), [1, 2]),
        (Filters(hosts=["south", "east"]), [2]),
        (Filters(tags=[("a",), ("b",)]), [1]),
        (Filters(paths=["/srv"]), [1, 2]),
        (Filters(paths=["/srv", "/etc"]), []),
        (Filters(hosts=["south"], tags=[("a",)]), []),
    ],
)
def test_filters(filters: Filters, found: list[int]) -> None:
    both = [snapshot(1, tags=["a"]), snapshot(2, host="south")]
    assert [int(one.id, 16) for one in both if filters.let(one)] == found


def test_groups() -> None:
    assert Grouping.parse("") == (False, False, False)
    assert Grouping.parse("tags,host") == (True, False, True)
    assert Grouping.parse("paths,path,") == (False, True, False)
    with pytest.raises(UsageError, match="not grouped by 'size'"):
        Grouping.parse("host,size")
