"""A policy keeps exactly what restic's keeps, for the same reasons: many groups in one repository and one call."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snappy.cli.retained import as_restic
from snappy.errors import LastSnapshot
from snappy.jobs.messages import Result
from snappy.jobs.upkeep import ForgetCommand
from snappy.repository.repo import Repository
from snappy.repository.retention import Filters, Grouping, grouped, tag_list
from snappy.repository.snapshots import Snapshot
from snappy.repository.store import FileType, Store
from snappy.sources import forgets
from tests.support import tools
from tests.support.engine import CHEAP, PASSWORD
from tests.support.restic import Restic

TREE = "ab" * 32
BERLIN = "Europe/Berlin"
ZONES = (UTC, ZoneInfo(BERLIN), timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30)))
ALONE = "snapshot group"
"""Restic's word when it refuses to leave nothing of one."""
Options = dict[str, Any]


class Judge(NamedTuple):
    """A repository with snapshots of no files, and restic beside it."""

    repository: Repository
    restic: Restic

    def fill(self, snapshots: Iterable[Snapshot]) -> None:
        """Let there be these snapshots, and no others."""
        for name, _size in self.repository.store.list(FileType.SNAPSHOT):
            self.repository.store.remove(FileType.SNAPSHOT, name)
        for snapshot in snapshots:
            self.repository.save_snapshot(snapshot)

    def agree(self, **options: Any) -> int:
        """Both keep and remove the same for the same reasons; of how many groups."""
        theirs, ours = self._theirs(options), self._ours(options)
        assert ours == theirs, options
        return len(ours)

    def _ours(self, options: Options) -> list[dict[str, Any]]:
        command = ForgetCommand(source="site1", target="vault", **options)
        filters = Filters(command.hosts, [tag_list(text) for text in command.tags], command.paths)
        found = filter(filters.let, self.repository.snapshots(strict=True))
        policy, grouping = forgets.policy_of(command), Grouping.parse(command.group_by)
        try:
            groups = grouped(found, policy, grouping, now=datetime.now(UTC), local=ZoneInfo(BERLIN))
        except LastSnapshot:
            return []
        result = Result(groups=[forgets.group_told(group.key, forgets.rows(group)) for group in groups])
        return comparable(json.loads(json.dumps(as_restic(result), default=str)))

    def _theirs(self, options: Options) -> list[dict[str, Any]]:
        done = self.restic.attempt("forget", "--dry-run", "--json", "--no-lock", "--no-cache", *flags(options))
        if done.returncode:
            assert ALONE in done.stderr.decode(), done.stderr
            return []
        return comparable(json.loads(done.stdout or b"[]"))


def flags(options: Options) -> list[str]:
    """The same for restic's command line."""
    singular = {"keep_tags": "keep-tag", "hosts": "host", "tags": "tag", "paths": "path"}
    found = []
    for name, value in options.items():
        flag = "--" + singular.get(name, name).replace("_", "-")
        if value is True:
            found.append(flag)
        else:
            found += [word for one in (value if isinstance(value, list) else [value]) for word in (flag, str(one))]
    return found


def comparable(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Restic's groups come in no order, and its snapshots with more fields; both hold them by their ids."""
    for group in groups:
        for snapshots in ("keep", "remove"):
            group[snapshots] = [snapshot["id"] for snapshot in group[snapshots] or ()]
        group["reasons"] = [(one["snapshot"]["id"], one["matches"]) for one in group["reasons"] or ()]
    return sorted(groups, key=lambda group: json.dumps([group["host"], group["paths"], group["tags"]]))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    program = tools.newest_restic()
    assert program is not None
    folder = tmp_path_factory.mktemp("forget")
    repository = Repository.init(Store(fsspec.filesystem("file"), str(folder / "kept")), PASSWORD, cost=CHEAP)
    restic = Restic(program, folder / "kept", PASSWORD, folder / "cache", TZ=BERLIN)
    return Judge(repository, restic)


# ---- a fixed set -----------------------------------------------------------------------------------------------------

STEPS = {"minutes": 0.1, "hours": 5, "days": 24, "fortnights": 14 * 24, "months": 31 * 24, "years": 200 * 24}
"""Hours that lie between two snapshots of a group, more or less."""
ENDS = ((2024, 2, 29), (2025, 12, 31), (2026, 3, 29), (2025, 10, 26))
"""Of a leap year's February, a year, winter time and summer time."""
TAGS = (None, ["a"], ["b"], ["a", "b"], ["b", "a", "c d"])


def fixed_set() -> list[Snapshot]:
    """Groups of each density and several lengths, and some that lie ahead of us."""
    random, found = Random(5), []
    for number, (step, hours) in enumerate(STEPS.items()):
        for end in ENDS:
            zone, moment = random.choice(ZONES), datetime(*end, 23, 30, tzinfo=UTC)
            paths = [f"/{end[0]}", "/b"] if number % 3 else [f"/{end[1]}"]
            for _ in range(random.choice((1, 2, 7, 12))):
                moment -= timedelta(hours=2 * hours * random.random(), seconds=1)
                found.append(snapshot(moment.astimezone(zone), f"{step}-{number % 2}", paths, random.choice(TAGS)))
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(days=300)
    found += [snapshot(ahead - timedelta(days=100 * place), "ahead", ["/"], None) for place in range(6)]
    return found + [snapshot(ahead + timedelta(days=place, hours=1), "only-ahead", ["/"], None) for place in range(3)]


def snapshot(time: datetime, host: str, paths: list[str], tags: list[str] | None) -> Snapshot:
    # what is stored has an offset and no zone
    return Snapshot(time=datetime.fromisoformat(time.isoformat()), tree=TREE, paths=paths, hostname=host, tags=tags)


POLICIES: list[Options] = [
    {"keep_last": 3},
    {"keep_last": "unlimited"},
    {"keep_hourly": 2, "keep_daily": 3, "keep_weekly": 2, "keep_monthly": 2, "keep_yearly": 2},
    {"keep_hourly": "unlimited", "keep_yearly": 1},
    {"keep_weekly": 5, "keep_last": 1},
    {"keep_yearly": "unlimited"},
    {"keep_within": "1m"},
    {"keep_within": "1y1m1d1h", "keep_daily": 1},
    {"keep_within": "30d", "keep_within_hourly": "1d", "keep_within_daily": "2m", "keep_within_weekly": "6m"},
    {"keep_within_monthly": "2y", "keep_within_yearly": "75y", "keep_last": 1},
    {"keep_within_daily": "999999y", "keep_within": "0d"},
    {"keep_tags": ["a"], "keep_last": 1},
    {"keep_tags": ["a,b", "c d"], "keep_monthly": 1},
    {"keep_tags": ["", "b"], "keep_last": 1, "group_by": "host"},
    {"keep_daily": 4, "group_by": ""},
    {"keep_monthly": 4, "group_by": "tags"},
    {"keep_hourly": 9, "group_by": "tags,host,paths"},
    {"keep_last": 2, "hosts": ["days-0", "hours-1", "months-0"]},
    {"keep_last": 2, "tags": ["a,b", "c d"], "group_by": "path"},
    {"keep_last": 1, "tags": [""]},
    {"keep_last": 1, "paths": ["/b", "/2026"]},
    {"unsafe_allow_remove_all": True, "hosts": ["ahead"]},
    {"keep_tags": ["nothing"]},
]


@pytest.mark.restic_newest
def test_a_fixed_set_of_groups_and_policies(judge: Judge) -> None:
    judge.fill(fixed_set())
    assert sum(judge.agree(**options) for options in POLICIES) >= 200


# ---- any ---------------------------------------------------------------------------------------------------------

MOMENTS = st.one_of(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 12, 31)),
    st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31)),
    st.datetimes(datetime(2024, 2, 28), datetime(2024, 3, 1)),
    st.builds(lambda minutes: datetime(2025, 12, 29) + timedelta(minutes=minutes), st.integers(0, 20000)),
)
TIMES = st.builds(lambda moment, zone: moment.replace(tzinfo=UTC).astimezone(zone), MOMENTS, st.sampled_from(ZONES))
HOSTS, PATHS = ("one", "two", "three"), (["/a"], ["/b", "/a"])
SNAPSHOTS = st.lists(
    st.builds(snapshot, TIMES, st.sampled_from(HOSTS), st.sampled_from(PATHS), st.sampled_from(TAGS)),
    min_size=1,
    max_size=40,
    unique_by=lambda one: one.time,  # of equal times restic takes any first
)
COUNTS = st.one_of(st.integers(1, 12), st.just("unlimited"))
SPANS = st.builds("{}y{}m{}d{}h".format, st.integers(0, 2), st.integers(0, 13), st.integers(0, 40), st.integers(0, 30))
PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
CHOICES = {
    **{f"keep_{name}": COUNTS for name in ("last", *PERIODS)},
    **{f"keep_{name}": SPANS for name in ("within", *(f"within_{period}" for period in PERIODS))},
    "keep_tags": st.lists(st.sampled_from(["", "a", "a,b", "b, c d"]), min_size=1, max_size=2),
    "group_by": st.sampled_from(["", "host", "paths", "tags", "host,tags", "host,paths,tags"]),
    "hosts": st.lists(st.sampled_from(HOSTS), min_size=1, max_size=2),
}
POLICY = st.builds(lambda last, rest: {"keep_last": last, **rest}, COUNTS, st.fixed_dictionaries({}, optional=CHOICES))


def agree_on_any(judge: Judge, examples: int) -> int:
    """Of how many groups."""
    cases = []

    @settings(max_examples=examples, deadline=None)
    @given(snapshots=SNAPSHOTS, policy=POLICY)
    def agree(snapshots: list[Snapshot], policy: Options) -> None:
        judge.fill(snapshots)
        cases.append(judge.agree(**policy))

    agree()
    return sum(cases)


@pytest.mark.restic_newest
def test_any_snapshots_and_any_policy(judge: Judge) -> None:
    agree_on_any(judge, 30)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.restic_newest
def test_any_snapshots_and_any_policy_2000_times(judge: Judge) -> None:
    assert agree_on_any(judge, 1200) >= 2000
