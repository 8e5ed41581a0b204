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
