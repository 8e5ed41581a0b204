from __future__ import annotations

import json

import pytest

from snappy import log


def test_a_line_says_where_it_comes_from_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", json=True)
    log.get("snappy.bus").info("connected", user="alice", password="open sesame", Grant_token="abc")
    line = json.loads(capsys.readouterr().err)
    assert (line["origin"], line["event"], line["user"]) == ("snappy.bus", "connected", "alice")
    assert line["password"] == line["Grant_token"] == log.REDACTED


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("warning", json=True)
    log.get("snappy.bus").info("connected")
    assert capsys.readouterr().err == ""


def test_a_person_is_told_sentences() -> None:
    told: list[str] = []
    log.setup_for_people(told.append)
    log.get("snappy.secrets").warning("a secret file is open", path="pw", token="abc", hint="chmod 600 pw")
    log.get("snappy.bus").info("connected")
    assert told == [f"warning: a secret file is open (path: pw, token: {log.REDACTED})\nhint: chmod 600 pw"]


def test_a_person_who_reports_a_bug_has_its_traceback() -> None:
    told: list[str] = []
    log.setup_for_people(told.append)
    log.get("snappy").error("unexpected error", exc_info=ZeroDivisionError("oops"))
    assert told[0].startswith("error: unexpected error\n")
    assert told[0].endswith("ZeroDivisionError: oops")
