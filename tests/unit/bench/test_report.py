from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from bench import chart
from bench.figures import fit
from bench.growth import points
from bench.matrix import BACKUPS, WALL_AIMS, WORKS, Case, cases
from bench.meter import Run
from bench.pairing import Outcome
from bench.report import heading, parts_table, rows, stored_ratio, table, to_json
from bench.sides import BorgSide, peers

MB = 1_000_000


def outcome(
    walls: Mapping[str, Sequence[float]],
    cpu: float = 1.0,
    peak: int = 100 * MB,
    case: Case | None = None,
    stored: Mapping[str, Sequence[int]] | None = None,
) -> Outcome:
    """First backups; Snappy's take ``cpu`` seconds of CPU where the others take one."""
    found = Outcome(case or Case("tree", works=("first",)), amount=MB)
    for side, seconds in walls.items():
        found.runs["first", side] = [Run(wall, cpu if side == "snappy" else 1.0, peak, {}) for wall in seconds]
    found.stored = {side: list(sizes) for side, sizes in (stored or {}).items()}
    return found


@pytest.mark.parametrize(("ours", "met"), [([4.0, 5.0, 9.0], True), ([5.1, 5.1, 5.1], False)])
def test_an_aim_is_met_or_missed_by_the_median_of_the_pairs(ours: Sequence[float], met: bool) -> None:
    (row,) = rows(outcome({"snappy": ours, "restic": [10.0, 10.0, 10.0]}))
    assert (row.aim, row.verdicts()["wall"]) == (0.5, met)
    assert ("met" if met else "MISSED") in table([row.outcome], ["snappy", "restic"])


def test_more_cpu_than_restic_is_a_miss() -> None:
    (row,) = rows(outcome({"snappy": [1.0], "restic": [10.0]}, cpu=1.01))
    assert row.verdicts() == {"wall": True, "cpu": False, "memory": True}


def test_memory_has_its_aim() -> None:
    (row,) = rows(outcome({"snappy": [1.0], "restic": [10.0]}, peak=400 * MB))
    assert row.verdicts()["memory"] is False


@pytest.mark.parametrize(("size", "met"), [(109, True), (111, False), (89, False)])
def test_repositories_must_be_of_one_size(size: int, met: bool) -> None:
    found = outcome({"snappy": [1.0], "restic": [10.0]}, stored={"snappy": [size], "restic": [100]})
    (row,) = rows(found)
    assert row.verdicts()["stored"] is met
    assert stored_ratio(found) == size / 100
    assert f"{size / 100:.3f} ({'met' if met else 'MISSED'}: within 10%)" in table([found], ["snappy", "restic"])


def test_without_restic_there_is_no_verdict() -> None:
    (row,) = rows(outcome({"snappy": [1.0], "borg": [10.0]}))
    assert row.verdicts() == {"memory": True}
    assert row.wall_ratio is None


def test_what_was_left_out_stands_below_the_table() -> None:
    found = outcome({"snappy": [1.0], "restic": [10.0]})
    found.left_out["first", "borg"] = "speaks no S3\nat all"
    assert "\n* tree local, borg: speaks no S3 (first backup)" in table([found], ["snappy", "restic", "borg"])


def test_what_each_process_took_is_told() -> None:
    found = Outcome(Case("tree", works=("first", "check")))
    seen = [{"source": {"cpu": cpu, "pss": 2 * MB}, "command": {"cpu": 1, "pss": MB}} for cpu in (3.0, 9.0, 4.0)]
    found.runs["first", "snappy"] = [Run(2.0, 1.0, 3 * MB, parts) for parts in seen]
    head, _, row = parts_table([found]).splitlines()
    assert head == "| work | wall | source | command |"
    assert row == "| tree local: first backup | 2.00 s | 4.00 s, 2 MB | 1.00 s, 1 MB |"


def test_repeated_content_has_no_aim() -> None:
    assert Case("tree", duplicates=2).aim("first") is None
    assert Case("tree").aim("first") == 0.5


def test_every_aim_belongs_to_something_that_is_measured() -> None:
    found = [case for name in ("tree", "tiny", "noise", "image") for case in cases(name, ["local", "s3"], [0], WORKS)]
    measured = {(case.corpus, case.target, work) for case in found for work in case.works}
    assert set(WALL_AIMS) <= measured


def test_known_content_is_backed_up_and_not_restored() -> None:
    plain, known = cases("tree", ["local"], [0, 2], WORKS)
    assert (plain.works, known.works) == (WORKS, BACKUPS)
    assert known.name == "tree local 2% known"


def test_json_and_table_and_chart_tell_of_all_rows() -> None:
    found = [outcome({"snappy": [1.0, 2.0], "restic": [2.0, 2.0]}), outcome({"snappy": [1.0]}, case=Case("noise"))]
    told = json.loads(json.dumps(to_json(found, [], {"borg": "not there"})))
    assert [row["corpus"] for row in told["rows"]] == ["tree"] + ["noise"] * len(WORKS)
    assert told["rows"][0]["wall_ratio"] == {"median": 0.75, "least": 0.5, "most": 1.0}
    assert told["missing"] == {"borg": "not there"}
    drawn = ElementTree.fromstring(chart.bars([row for each in found for row in rows(each)], "a <title>"))
    assert [text.text for text in drawn.iter() if text.text == "0.75"] == ["0.75"]


def test_peers_that_are_missing_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SNAPPY_RESTIC_NEWEST", "/nowhere/restic")
    found, missing = peers(["restic", "borg"], {})
    assert found == []
    assert "SNAPPY_RESTIC_NEWEST" in missing["restic"]
    assert "apt install borgbackup" in missing["borg"]
    said = heading([], missing, 5, datetime(2026, 1, 2, tzinfo=UTC))
    assert "* borg is missing: no borg is installed" in said


def test_a_program_that_is_given_wins() -> None:
    (found,), missing = peers(["borg"], {"borg": "/bin/sh"})
    assert isinstance(found, BorgSide)
    assert (found.program, missing) == ("/bin/sh", {})


def test_runs_beside_busy_neighbours_are_said() -> None:
    found = outcome({"snappy": [1.0], "restic": [1.0]})
    found.runs["first", "restic"] = [Run(1.0, 1.0, MB, {}, others=1.3)]
    said = table([found], ["snappy", "restic"])
    assert "* tree local: 1 of 2 runs were disturbed: up to 1.3 cores were used by others" in said


@pytest.mark.parametrize(("seconds", "verdict"), [(19.9, "met"), (20.0, "MISSED")])
def test_a_million_unchanged_files_have_an_aim_in_seconds(seconds: float, verdict: str) -> None:
    found = Outcome(Case("million", works=("unchanged",)))
    found.runs["unchanged", "snappy"] = [Run(seconds, 1.0, MB, {})]
    said = table([found], ["snappy"])
    assert f"an unchanged backup takes {seconds:.1f} s ({verdict}: under 20 s)" in said
    assert "full size" not in said


def test_aims_of_a_part_are_said_to_be_those_of_the_whole() -> None:
    found = outcome({"snappy": [1.0]}, case=Case("tree", scale=0.1, works=("first",)))
    assert "* The aims are for corpora of full size." in table([found], ["snappy"])


def test_growth_is_by_number_of_files() -> None:
    walls = {0.01: [1.0, 3.0, 2.0], 0.1: [20.0], 1.0: [200.0]}
    found = [
        outcome({"snappy": seconds}, case=Case("million", scale=scale, works=("first",)))
        for scale, seconds in walls.items()
    ]
    seconds = points(found, "million", "first", "seconds")
    assert seconds == [(1e4, 2.0), (1e5, 20.0), (1e6, 200.0)]
    line = fit([x for x, _ in seconds], [y for _, y in seconds])
    drawn = ElementTree.fromstring(chart.growth(seconds, line, "time", "files", "seconds"))
    assert sum(each.tag.endswith("circle") for each in drawn.iter()) == 3
