"""`snappy plugins`: what is listed, shown and found missing."""

from __future__ import annotations

import json

import pytest

from snappy.cli.main import main
from snappy.cli.plugins import described
from snappy.sources import base
from snappy.sources.plugins.null import NullSource


def test_the_installed_are_listed_with_what_they_back_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(base.names())
    assert rows["sqlite"] == {
        "name": "sqlite",
        "package": "snappy-backup",
        "about": "SQLite databases in use, each consistent.",
    }


@pytest.mark.parametrize("name", base.names())
def test_every_option_and_setting_has_its_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", name]) == 0
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  ") and line.strip() != "none":
            assert len(line.split(maxsplit=3)) == 4, line


def test_options_are_shown_with_their_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "files"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "paths list of string required absolute local paths" in shown
    assert "exclude_larger_than integer null bytes" in shown
    assert 'owners always|auto|never "auto" set users' in shown


def test_a_field_of_any_kind_is_described() -> None:
    fields = {"free": {}, "inner": {"$ref": "#/$defs/Inner"}, "many": {"type": "array"}}
    shown = described({"properties": fields, "$defs": {"Inner": {"properties": {"a": {}, "b": {}}}}})
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        ["free", "anything"],
        ["inner", "{a,"],
        ["many", "list"],
    ]
    assert described({}) == "  none"


class Lacking(NullSource):
    @classmethod
    def missing(cls) -> list[str]:
        return ["there is no tape drive: buy one"]


def test_what_is_missing_is_told_and_fails_only_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = base.load
    monkeypatch.setattr(base, "load", lambda name: Lacking if name == "null" else load(name))
    assert main(["plugins", "check"]) == 0
    assert "there is no tape drive" in capsys.readouterr().out
    assert main(["plugins", "check", "files"]) == 0
    capsys.readouterr()
    assert main(["plugins", "check", "null", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {"null": ["there is no tape drive: buy one"]}


def test_a_name_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("show", "check"):
        assert main(["plugins", verb, "tape"]) == 4
        assert "installed are: block, command, " in capsys.readouterr().err
