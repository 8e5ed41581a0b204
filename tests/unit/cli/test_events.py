"""The grammar of ``snappy events``, and an event in a line."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from snappy.cli import events, options
from snappy.jobs.protection import of_backup
from snappy.jobs.protection_words import Good

EVENT: dict[str, Any] = {
    "type": "io.snappy.backup.succeeded",
    "subject": "j1",
    "time": "2027-01-01T03:00:00.5+01:00",
    "submitter": "alice",
}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.common(parser, top=True)
    events.register(parser.add_subparsers(required=True))
    return parser.parse_args(["events", *words])


def test_any_event_is_meant_where_none_is_named() -> None:
    for verb in ("watch", "subscribe"):
        given = parsed(verb)
        assert (given.kind, given.event, given.job) == ("*", "*", "*")


def test_all_options() -> None:
    given = parsed("subscribe", "--kind", "backup", "--event", "failed", "--job", "0198-ab", "--oldest")
    assert (given.kind, given.event, given.job, given.oldest) == ("backup", "failed", "0198-ab", True)
    given = parsed("read", "-f", "-n", "3", "--json")
    assert (given.follow, given.count, given.json) == (True, 3, True)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "listen",
        "watch --kind a.b",
        "watch --kind >",
        "subscribe --event Failed",
        "subscribe --job **",
        "read --count 0",
        "read --count -1",
        "read --kind backup",
        "show j1",
    ],
)
def test_what_cannot_be_meant_is_told(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed(*words.split())
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ({"state": "running"}, ""),
        ({"result": {"snapshot": "0123456789abcdef"}}, "  snapshot 01234567"),
        ({"result": {"snapshot": ""}, "error": None}, ""),
        ({"error": {"code": "no-space", "message": "the disk is full"}}, "  no-space: the disk is full"),
        ({"reason": "a forged reply"}, "  a forged reply"),
    ],
)
def test_a_line(data: dict[str, Any], outcome: str) -> None:
    assert events.line(EVENT | {"data": data}) == f"2027-01-01 02:00:00  backup.succeeded  j1  alice{outcome}"


def test_an_event_of_nobodys_job() -> None:
    told = {"type": "io.snappy.security.refused", "subject": "s", "time": EVENT["time"], "data": {"reason": "forged"}}
    assert events.line(told) == "2027-01-01 02:00:00  security.refused  s  forged"


def test_an_event_of_a_source_says_which_and_how_old() -> None:
    source = of_backup({"source": "site1", "target": "vault", "options": {"paths": ["/srv", "/etc"]}}, 0.0)
    good = Good(job="j", snapshot="s", at=1798768800.0)
    told = {**EVENT, "type": "io.snappy.source.stale", "subject": "s1", "submitter": ""}
    line = "2027-01-01 02:00:00  source.stale  s1  /etc, /srv of site1 at vault: "
    for known, outcome in (
        (source, "no backup"),
        (replace(source, backups=[good]), "newest backup 2027-01-01 02:00:00"),
        (replace(source, drill=good), "no backup, newest drill 2027-01-01 02:00:00"),
    ):
        assert events.line({**told, "data": to_builtins(known)}) == line + outcome
