"""The screen of ``snappy status``."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from snappy.cli import output
from snappy.cli.status import text
from snappy.jobs.protection import of_backup
from snappy.jobs.protection_words import Absence, Doing, Good, Mishap, SourceStatus, Status, Upcoming

NOW = 1_800_000_000.0
HOUR = 3600
COMMAND = {"source": "site1", "target": "vault", "plugin": "files", "options": {"paths": ["/srv"]}}
KNOWN = replace(
    of_backup(COMMAND, NOW), host="db1", backups=[Good(job="j", snapshot="s", at=NOW - 9 * HOUR, seconds=60.0)]
)
DRILL = Good(job="d", snapshot="s", at=NOW - 96 * HOUR, seconds=130.0)
OTHER = SourceStatus(known=KNOWN, state="unpromised", drill_state="unproven", is_kept=True)
FRESH = SourceStatus(known=KNOWN, state="fresh", drill_state="proven", is_kept=True, max_age=26 * HOUR)


def shown(source: SourceStatus, **fields: Any) -> list[str]:
    return text(Status(at=NOW, sources=[source, OTHER], **fields), [source]).splitlines()


def cells(source: SourceStatus) -> list[str]:
    return [cell.strip() for cell in shown(source)[1].split("  ") if cell.strip()]


def test_what_is_fresh_and_proven() -> None:
    source = replace(
        FRESH,
        known=replace(KNOWN, drill=DRILL),
        max_drill_age=720 * HOUR,
        upcoming=Upcoming(schedule="nightly", kind="backup", at=NOW + 14 * HOUR),
    )
    row = ["site1", "db1", "vault", "9 h ago", "26 h", "fresh", "4 d ago of 30 d in 2:10", "-", "in 14 h (nightly)"]
    assert cells(source) == [*row, "/srv"]
    assert shown(source)[-1] == "2 sources, promises for 1, all kept"


def test_what_is_not() -> None:
    mishap = Mishap(job="j", kind="backup", at=NOW - 7 * HOUR, code="no-space", message="full")
    never = replace(
        FRESH, known=replace(KNOWN, backups=[], mishap=mishap, host=""), state="never", is_kept=False, max_drill_age=60
    )
    assert cells(never)[1:8] == ["-", "vault", "never", "26 h", "NEVER", "never of 60 s", "backup 7 h ago: no-space"]
    assert shown(never)[-1] == "2 sources, promises for 1, of which 1 broken"


@pytest.mark.parametrize(("hours", "told"), [(10, "-"), (8, "backup 8 h ago: x")])
def test_a_failure_is_shown_until_it_went_well(hours: int, told: str) -> None:
    mishap = Mishap(job="j", kind="backup", at=NOW - hours * HOUR, code="x", message="m")
    assert cells(replace(FRESH, known=replace(KNOWN, mishap=mishap)))[7] == told
    drill = replace(KNOWN, mishap=replace(mishap, kind="drill"), drill=replace(DRILL, at=NOW - 9 * HOUR))
    assert cells(replace(FRESH, known=drill))[7] == told.replace("backup", "drill")


def test_warnings_jobs_and_long_paths() -> None:
    known = replace(
        KNOWN, paths=[f"/{letter * 15}" for letter in "abcd"], backups=[replace(KNOWN.backups[0], warnings=1)]
    )
    doing = [Doing(job="j", kind="drill", state="running", since=NOW)]
    row = cells(replace(FRESH, known=known, doing=doing, max_age=0, state="unpromised"))
    assert (row[3], row[4], row[5], row[8]) == ("9 h ago!", "-", "unpromised", "drill running")
    assert row[9] == f"/{'a' * 15}, /{'b' * 15}, +2"
    long = "/" + "x" * 99
    assert cells(replace(FRESH, known=replace(KNOWN, paths=[long])))[9] == long


def test_what_is_wrong_around() -> None:
    absent = [Absence(role="source", service="site1", seen=NOW - 60), Absence(role="target", service="vault", seen=0.0)]
    assert shown(FRESH, damaged=["vault"], absent=absent)[2:5] == [
        "damaged: the repository of vault; `snappy check --target vault`",
        "absent: source site1, last heard 60 s ago",
        "absent: target vault, never heard",
    ]
    assert text(Status(at=NOW, sources=[]), []) == "0 sources, no promises"
    assert text(Status(at=NOW, sources=[OTHER]), []) == "1 source, no promises"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3.0, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_ages(seconds: float, told: str) -> None:
    assert output.age(seconds) == told
