"""What the command line makes of sizes, times, results and progress."""

from __future__ import annotations

import json

import pytest

from snappy.cli import display, follow, output, snapshots
from snappy.errors import NotFound
from snappy.jobs.messages import Attempt, ErrorInfo, Finding, JobRecord, Progress, Result, Warn
from snappy.jobs.states import State
from snappy.repository.findings import FINDINGS_KEPT

RESULT = Result(
    snapshot="0123456789abcdef",
    repository="fedcba9876543210",
    files=10,
    files_new=1,
    files_changed=2,
    files_unmodified=7,
    directories=3,
    bytes_processed=2 << 20,
    bytes_read=1 << 20,
    bytes_stored=512,
    seconds=2.0,
)


def record(state: State, kind: str = "backup", **more: object) -> JobRecord:
    return JobRecord(id="job-1", kind=kind, submitter="alice", state=state, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (1 << 60, "1024.0 PiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (187, "3:07"), (7387, "2:03:07"), (59.99, "60.0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_moments_are_utc() -> None:
    assert output.moment(0.0) == "1970-01-01 00:00:00"


def test_tables_are_aligned_and_end_no_line_with_blanks() -> None:
    text = output.table(("A", "LONG", "LAST"), [("wide cell", "1", ""), ("x", "2", "end")])
    assert text == "A          LONG  LAST\nwide cell  1\nx          2     end"


def test_a_backup_in_words() -> None:
    assert follow.summary("backup", RESULT) == (
        "snapshot 01234567: 10 files, 3 directories, 2.0 MiB in 2.0 s (1.0 MiB/s)\n"
        "1 new, 2 changed, 7 unmodified; read 1.0 MiB, stored 512 B"
    )


def test_a_restore_and_an_init_in_words() -> None:
    assert follow.summary("restore", RESULT).startswith("restored snapshot 01234567: 10 files")
    assert follow.summary("init", RESULT) == "made the repository fedcba98"


LOST = Finding(kind="pack-missing", damage=True, object="pack", id="ab", message="it is gone", remedy="bring it back")
LEFT = Finding(kind="pack-unlisted", damage=False, object="pack", id="cd", message="no index lists it", remedy="none")


def test_a_check_in_words() -> None:
    done = Result(
        repository="fedcba98", snapshots=2, directories=7, packs=3, packs_read=1, bytes_read=1536, seconds=2.0
    )
    assert follow.summary("check", done) == (
        "no damage in fedcba98: 2 snapshots, 7 different directories, 3 packs; read 1 packs, 1.5 KiB in 2.0 s"
    )


def test_hints_of_a_check_are_told_and_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hinted = Result(findings=[LEFT], finding_count=1)
    assert follow.tell(record(State.SUCCEEDED, "check", result=hinted), as_json=False) == 0
    assert capsys.readouterr().err == "hint: pack-unlisted: pack cd: no index lists it\n  none\n"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (FINDINGS_KEPT, "and 999 more, which the service's log names"),
        (FINDINGS_KEPT + 1, "and 1000 more, of which the service's log names those up to the 1000th"),
    ],
)
def test_findings_that_nobody_keeps_are_not_said_to_be_logged(
    capsys: pytest.CaptureFixture[str], count: int, words: str
) -> None:
    follow.tell(record(State.SUCCEEDED, "check", result=Result(findings=[LEFT], finding_count=count)), as_json=False)
    assert capsys.readouterr().err.splitlines()[-1] == words


@pytest.mark.parametrize("as_json", [True, False])
def test_damage_is_told_finding_by_finding(capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    found = Result(findings=[LOST], finding_count=7)
    why = ErrorInfo(code="damaged", message="the repository is damaged", hint="look")
    failed = record(State.FAILED, "check", result=found, error=why)
    assert follow.tell(failed, as_json=as_json) == 8
    printed = capsys.readouterr()
    assert printed.err.splitlines()[:3] == [
        "damage: pack-missing: pack ab: it is gone",
        "  bring it back",
        "and 6 more, which the service's log names",
    ]
    assert bool(printed.out) == as_json


def test_snapshots_in_a_table() -> None:
    here = {"short_id": "01234567", "time": "2026-01-02T03:04:05.678901+02:00", "hostname": "north", "paths": ["/a"]}
    there = {**here, "time": "2026-01-02T03:04:05Z", "tags": ["mine", "snappy-job:1"], "paths": ["/a", "/b"]}
    told = snapshots._shown([here, {**there, "summary": {"total_bytes_processed": 1536}}])
    assert told.splitlines() == [
        "ID        TIME (UTC)           HOST   TAGS  PATHS   SIZE",
        "01234567  2026-01-02 01:04:05  north        /a",
        "01234567  2026-01-02 03:04:05  north  mine  /a, /b  1.5 KiB",
    ]
    assert snapshots._shown([]) == "no snapshots"


def test_success_is_0_and_with_warnings_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow.tell(record(State.SUCCEEDED, result=RESULT), as_json=False) == 0
    warned = Result(snapshot="ab", warnings=[Warn(path="/a", message="is odd")], warning_count=101)
    assert follow.tell(record(State.SUCCEEDED, result=warned), as_json=True) == 3
    printed = capsys.readouterr()
    assert "warning: /a: is odd\nwarning: and 100 more\n" in printed.err
    assert json.loads(printed.out.splitlines()[-1])["result"]["warning_count"] == 101


def test_a_retry_says_why_and_what_may_help() -> None:
    lost = Attempt(
        number=1, service="site", replica="r1", started=0.0, error=ErrorInfo(code="bus", message="no", hint="look")
    )
    assert follow.retry(record(State.RETRYING, attempts=[lost], not_before=107.5), 100.0) == (
        "trying again in 7.5 s: no\nhint: look"
    )
    assert follow.retry(record(State.RETRYING), 100.0) == "trying again in 0.0 s: the worker fell silent"


def test_failure_is_the_errors_code(capsys: pytest.CaptureFixture[str]) -> None:
    failed = record(State.FAILED, error=ErrorInfo(code="not-found", message="it is not there", hint="look"))
    assert follow.tell(failed, as_json=False) == NotFound.exit_code
    assert capsys.readouterr().err == "snappy: it is not there\nhint: look\n"


def test_cancelled_is_9_and_130_if_we_did_it(capsys: pytest.CaptureFixture[str]) -> None:
    cancelled = record(State.CANCELLED, cancel="bob")
    assert follow.tell(cancelled, as_json=False) == 9
    assert "cancelled by bob" in capsys.readouterr().err
    assert follow.tell(cancelled, as_json=False, interrupted=True) == 130


def test_progress_in_a_line() -> None:
    seen = Progress(job="j", attempt=1, files=5, bytes=1 << 20, files_total=10, bytes_total=2 << 20, rate=1 << 19)
    assert display.line(seen) == "5/10 files, 1.0 MiB of 2.0 MiB, 512.0 KiB/s"
    unknown = Progress(job="j", attempt=1, files=5, bytes=10, rate=2.0, remaining=90.0)
    assert display.line(unknown) == "5 files, 10 B, 2 B/s, 1:30 left"


def test_plain_progress_is_rare(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = display.Lines(lambda: now[0])
    for _ in range(100):
        now[0] += 0.25
        lines.show(Progress(job="j", attempt=1, files=1))
    lines.close()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_terminal_gets_a_bar_and_quiet_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(display.choose(quiet=True), display.Nothing)
    assert isinstance(display.choose(quiet=False), display.Lines)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    bar = display.choose(quiet=False)
    assert isinstance(bar, display.Bar)
    bar.show(Progress(job="j", attempt=1, files=1, bytes=10, bytes_total=20))
    bar.close()


def test_what_the_storage_keeps_of_what_was_deleted_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for kept_until, said in ((1795435200.0, True), (0.0, False)):
        follow.tell(record(State.SUCCEEDED, "forget", result=Result(kept_until=kept_until)), as_json=False)
        assert ("the storage keeps it, up to 2026-11-23" in capsys.readouterr().err) is said
