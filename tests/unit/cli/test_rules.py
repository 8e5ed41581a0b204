"""Options of when and how often: times in every form that people write, and nothing that was not given."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from snappy.cli import rules
from snappy.cli.main import _parser
from snappy.errors import InvalidCommand, UsageError
from snappy.jobs.command import Command
from snappy.jobs.kinds import COMMANDS, parse_command

NAMED = ["--source", "site1"]
KINDS = {
    "init": ["init", "--to", "vault", *NAMED],
    "backup": ["backup", "/etc", "--to", "vault", *NAMED],
    "check": ["check", "--target", "vault", *NAMED],
    "restore": ["restore", "latest", "--from", "vault", "--to", "/srv", *NAMED],
}


def command(kind: str, *words: str) -> dict[str, Any]:
    return rules.fields(_parser().parse_args([*KINDS[kind], *words]))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_given_nothing_said(kind: str) -> None:
    assert command(kind) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_all_given_is_a_valid_command(kind: str) -> None:
    words = "--priority -3 --not-before 2h --deadline 1d12h --attempts 2 --time-limit 90m --duplicates skip"
    given = command(kind, *words.split(), "--bandwidth", "08:00,1M 18:00,off")
    made: Command = msgspec.convert({"source": "site1", "target": "vault", **given}, COMMANDS[kind])
    assert (made.priority, made.attempts, made.time_limit, made.duplicates) == (-3, 2, 5400.0, "skip")
    assert made.deadline is not None
    assert made.not_before is not None
    assert (made.deadline - made.not_before).total_seconds() == pytest.approx(34 * 3600, abs=5)


@pytest.mark.parametrize("text", ["2027-01-01T02:00:00Z", "2027-01-01T03:00:00+01:00"])
def test_a_time_with_its_zone_is_that_time(text: str) -> None:
    assert datetime.fromisoformat(rules.moment(text)) == datetime.fromisoformat("2027-01-01T02:00:00+00:00")


def test_a_time_without_a_zone_is_this_machines() -> None:
    assert rules.moment("2027-06-01T02:00:00") == datetime(2027, 6, 1, 2).astimezone().isoformat()


@pytest.mark.parametrize("text", ["", "soon", "5", "1w", "-5m", "2027-13-01", "999999999d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        rules.moment(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1d12h", 129600), ("1h1m1s", 3661)])
def test_lengths(text: str, seconds: int) -> None:
    assert rules.length(text) == seconds


@pytest.mark.parametrize(
    ("words", "bandwidth"),
    [
        (["--limit-upload", "512"], "512k:off"),
        (["--limit-download", "1024"], "off:1024k"),
        (["--limit-upload", "100", "--limit-download", "200"], "100k:200k"),
    ],
)
def test_limits_may_be_said_as_restic_has_them(words: list[str], bandwidth: str) -> None:
    assert command("backup", *words) == {"bandwidth": bandwidth}


def test_a_limit_is_said_once() -> None:
    with pytest.raises(UsageError, match="--bandwidth says what"):
        command("backup", "--limit-upload", "512", "--bandwidth", "1M")


def test_a_rate_that_is_none_is_refused_with_the_word() -> None:
    body = json.dumps({"source": "site1", "target": "vault", "bandwidth": "fast"}).encode()
    with pytest.raises(InvalidCommand, match="'fast' is no rate"):
        parse_command("check", body)
