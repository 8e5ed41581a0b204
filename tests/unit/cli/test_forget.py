"""``snappy forget``: from words to a command, and from a result to what is told."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from snappy.cli import follow, forget, retained, schedules
from snappy.cli.main import _parser
from snappy.cli.session import Session
from snappy.jobs.messages import JobRecord, Result
from snappy.jobs.result_words import SnapshotGroup, SnapshotRow
from snappy.jobs.states import Event, State
from snappy.jobs.upkeep import ForgetCommand

SESSION = Session(None, source="site1", target="vault", key="default", embedded=False)  # type: ignore[arg-type]
NAMES = {"source": "site1", "target": "vault", "key": "default"}


def fields(*words: str) -> dict[str, Any]:
    return forget.fields(SESSION, _parser().parse_args(["forget", "--target", "vault", *words]))


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("-l 3 -H 4 -d 5", {"last": 3, "hourly": 4, "daily": 5}),
        ("-w 6 -m 7 -y unlimited", {"weekly": 6, "monthly": 7, "yearly": "unlimited"}),
        ("--keep-within 1y --keep-within-weekly 2m", {"within": "1y", "within_weekly": "2m"}),
        ("--keep-tag a,b --keep-tag c", {"tags": ["a,b", "c"]}),
    ],
)
def test_a_policy(words: str, given: dict[str, Any]) -> None:
    command = fields(*words.split())
    assert command == NAMES | {f"keep_{name}": value for name, value in given.items()}
    msgspec.convert(command, ForgetCommand)


def test_filters_groups_and_the_rest() -> None:
    words = "--keep-last 1 --host north --host south --tag x --path /srv --group-by tags -n --priority 3 --request once"
    assert fields(*words.split()) == NAMES | {
        "keep_last": 1,
        "hosts": ["north", "south"],
        "tags": ["x"],
        "paths": ["/srv"],
        "group_by": "tags",
        "dry_run": True,
        "priority": 3,
        "request": "once",
    }
    assert fields("--keep-tag", "", "--group-by", "") == NAMES | {"keep_tags": [""], "group_by": ""}
    pruned = fields("-l", "1", "--prune", "--max-unused", "0", "--repack-uncompressed")
    assert pruned == NAMES | {"keep_last": 1, "prune": True, "max_unused": "0", "repack_uncompressed": True}
    assert fields("0123abcd", "89abcdef") == NAMES | {"snapshots": ["0123abcd", "89abcdef"]}


@pytest.mark.parametrize("text", ["", "-1", "3.5", "all", "٣"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        forget.count(text)


def test_it_is_scheduled() -> None:
    words = "schedule add weekly --every 7d -- forget --target vault --keep-weekly 5"
    kind, job = schedules.parse_job(_parser().parse_args(words.split()))
    assert (kind, schedules.JOBS[kind].fields(SESSION, job)["keep_weekly"]) == ("forget", 5)


def row(number: int, *reasons: str, tags: list[str] | None = None) -> SnapshotRow:
    time = datetime(2026, 1, number, 3, 0, tzinfo=UTC)
    name = f"{number:08x}" + "0" * 56
    return SnapshotRow(id=name, time=time, hostname="north", paths=["/srv"], tags=tags, reasons=list(reasons))


TOLD = [row(2, "last snapshot", "within 1y", tags=["a"]), row(1)]
NORTH = SnapshotGroup(host="north", paths=["/srv"], tags=None, snapshots=TOLD)
DONE = Result(snapshots=1, removed=2, groups=[NORTH])


def test_each_snapshot_is_told_of_with_its_reasons() -> None:
    assert retained.told(DONE, dry_run=False).splitlines() == [
        "host north, path /srv",
        "        ID        TIME (UTC)           TAGS  WHY",
        "keep    00000002  2026-01-02 03:00:00  a     last snapshot, within 1y",
        "remove  00000001  2026-01-01 03:00:00",
        "",
        "and 1 more",
        "",
        "kept 1 and removed 2 snapshots",
    ]
    assert retained.told(Result(snapshots=1, removed=2), dry_run=True).endswith("would keep 1 and remove 2 snapshots")


def test_as_json_it_has_the_shape_of_restics() -> None:
    (group,) = retained.as_restic(DONE)
    kept = {"time": row(2).time, "paths": ["/srv"], "hostname": "north", "tags": ["a"], "id": row(2).id}
    kept["short_id"] = "00000002"
    assert (group["host"], group["paths"], group["tags"], group["keep"]) == ("north", ["/srv"], None, [kept])
    assert [list(one) for one in group["remove"]] == [["time", "paths", "hostname", "id", "short_id"]]
    assert group["reasons"] == [{"snapshot": kept, "matches": ["last snapshot", "within 1y"]}]
    alone = SnapshotGroup(host="", paths=None, tags=None, snapshots=[row(1)])
    assert (retained.as_restic(Result(groups=[alone]))[0]["keep"], retained.as_restic(Result())) == (None, [])


def test_success_is_told_with_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    record = JobRecord(id="j", kind="forget", submitter="a", state=State.SUCCEEDED, result=DONE, event=Event.SUCCEEDED)
    assert follow.tell(record, as_json=False) == 0
    assert "kept 1 and removed 2 snapshots" in capsys.readouterr().out
    follow.tell(record, as_json=True)
    assert '"matches":["last snapshot","within 1y"]' in capsys.readouterr().out
