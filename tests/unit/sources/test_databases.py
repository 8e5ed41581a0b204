"""Which databases are meant, and how rules name them."""

from __future__ import annotations

import pytest

from snappy.errors import BadOptions, SourceMissing
from snappy.sources.databases import Choice, Names, Renames, file_name, is_unfinished


def test_all_are_meant_but_those_left_out_and_those_that_are_no_databases_yet() -> None:
    choice = Choice((), ("log",), whole=None)
    known = ["a/b", "log", Names("edge").unfinished()]
    assert choice.of("main", known) == ["a/b"]
    assert choice.whole
    assert choice.claims("postgres", "main") == ["postgres://main"]


def test_those_that_are_named_are_meant_and_the_server_only_where_it_is_asked_for() -> None:
    assert Choice(("a/b", "c"), (), whole=None).claims("mariadb", "m") == ["mariadb://m/a%2Fb", "mariadb://m/c"]
    choice = Choice(("c",), (), whole=True)
    assert choice.claims("mariadb", "m") == ["mariadb://m", "mariadb://m/c"]
    with pytest.raises(SourceMissing) as raised:
        choice.of("m", ["a", "b"])
    assert "a, b" in raised.value.hint
    with pytest.raises(BadOptions):
        Choice(("c",), ("c",), whole=None)


def test_names_are_new_or_stay_but_never_the_servers_own() -> None:
    some, all_ = Renames({"a": "b"}, {"own"}.__contains__), Renames({}, {"own"}.__contains__)
    assert [some.new_name("a"), some.new_name("c"), all_.new_name("c")] == ["b", None, "c"]
    with pytest.raises(BadOptions, match="own"):
        all_.new_name("own")
    with pytest.raises(BadOptions, match="own"):
        Renames({"a": "own"}, {"own"}.__contains__)
    with pytest.raises(BadOptions, match="one name"):
        Renames({"a": "b", "c": "b"}, {"own"}.__contains__)
    with pytest.raises(SourceMissing, match="a"):
        some.check_found(["c"])


def test_names_of_databases_tell_whose_they_are() -> None:
    ours, others = Names("edge-1"), Names("edge-2")
    for name in (ours.unfinished(), ours.replaced()):
        assert len(name) < 64
        assert Names("edge-1").session_of(name) == ours.session
        assert others.session_of(name) == ""
        assert is_unfinished(name)
    assert len(Names("x" * 63).replaced()) < 64
    assert ours.session_of("snappy_restore_mine") == ""
    assert not is_unfinished("snappy_restore_mine")


def test_names_of_files_hold_no_slash_and_can_be_read_back() -> None:
    assert file_name("a/b c%") == "a%2Fb c%25"
