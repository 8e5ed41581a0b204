"""The grammar of ``snappy schedule``: its own part, and behind ``--`` that of the job's command."""

from __future__ import annotations

import argparse

import pytest

from snappy.cli import options, schedules
from snappy.errors import UsageError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.common(parser, top=True)
    schedules.register(parser.add_subparsers(required=True))
    return parser.parse_args(["schedule", *words])


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90m", 5400), ("6h", 21600), ("1d12h", 129600), ("1h30m5s", 5405)]
)
def test_times(text: str, seconds: int) -> None:
    assert schedules.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "6", "h", "6 h", "-1h", "1.5h", "6w", "٣h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        schedules.seconds(text)


def test_a_backup_behind_the_dashes() -> None:
    words = "backup /srv -x --to vault --source site1 --tag nightly --exclude *.tmp"
    given = parsed("--json", "add", "nightly", "--cron", "0 2 * * *", "--jitter", "10m", "--", *words.split())
    assert (given.name, given.cron, given.every, given.at, given.jitter) == ("nightly", "0 2 * * *", None, None, 600)
    kind, job = schedules.parse_job(given)
    assert (kind, job.place, job.source, job.paths, job.tag) == ("backup", "vault", "site1", ["/srv"], ["nightly"])
    assert (job.one_file_system, job.exclude, job.json, job.config) == (True, ["*.tmp"], True, None)


def test_a_restore_behind_the_dashes() -> None:
    given = parsed("add", "drill", "--every", "30d", "--", "restore", "latest", "--from", "vault", "--to", "/drill")
    kind, job = schedules.parse_job(given)
    assert (kind, job.snapshot, job.place, job.to, given.every) == ("restore", "latest", "vault", "/drill", 30 * 86400)


def test_a_check_behind_the_dashes() -> None:
    given = parsed("add", "proof", "--every", "1d", "--", "check", "--from", "vault", "--read-data-subset", "1/7")
    kind, job = schedules.parse_job(given)
    assert (kind, job.place, job.read_data, job.read_data_subset) == ("check", "vault", False, "1/7")


@pytest.mark.parametrize(
    "words",
    [
        "add nightly -- backup /srv --to vault",
        "add nightly --every 6h --cron * -- backup /srv --to vault",
        "add nightly --every soon -- backup /srv --to vault",
        "add nightly --every 6h",
        "add nightly --every 6h --missed twice -- backup /srv --to vault",
        "add",
        "show",
        "",
    ],
)
def test_what_is_missing_or_too_much_is_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words.split())
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["prune --to vault", "backup /srv", "backup /srv --to vault --frequently"])
def test_a_bad_job_is_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        schedules.parse_job(parsed("add", "nightly", "--every", "6h", "--", *words.split()))
    assert ended.value.code == 2
    assert "schedule add nightly --" in capsys.readouterr().err


def test_an_init_is_done_once() -> None:
    with pytest.raises(UsageError, match="again and again"):
        schedules.parse_job(parsed("add", "nightly", "--every", "6h", "--", "init", "--to", "vault"))
