"""How it is asked and told that several targets have a backup."""

from __future__ import annotations

import argparse

import pytest

from snappy.cli import backup, options, spread
from snappy.errors import UsageError
from snappy.jobs.place_words import StoredAt

HERE = StoredAt(target="vault", key="k", state="stored", snapshot="0123456789abcdef")
BEHIND = StoredAt(target="second", key="k", state="behind", job="j-1", reason="nobody answers")
WAITING = StoredAt(target="third", key="k", state="waiting", job="j-2")
FAILED = StoredAt(target="fourth", key="k", state="failed", reason="full")


def parsed(*words: str) -> argparse.Namespace:
    parser = options.Parser()
    backup.register(parser.add_subparsers())
    return parser.parse_args(["backup", "/srv", *words])


def test_the_first_target_is_the_place_and_others_may_name_a_key() -> None:
    found = parsed("--to", "vault", "--target", "second:other", "--to", "third", "--quorum", "2")
    assert (found.place, found.quorum) == ("vault", 2)
    assert [options.named(text) for text in found.others] == [{"target": "second", "key": "other"}, {"target": "third"}]
    assert (parsed("--to", "vault").others, parsed("--to", "vault").quorum) == ([], None)


def test_one_is_needed() -> None:
    with pytest.raises(options.WrongCommandLine):
        parsed()


@pytest.mark.parametrize("place", ["./second", "s3://bucket/x", "/srv/backup"])
def test_a_place_is_no_further_target(place: str) -> None:
    with pytest.raises(UsageError):
        options.named(place)


def test_who_has_it_and_who_does_not() -> None:
    assert spread.where([HERE, BEHIND]) == "stored at vault (01234567)"
    assert spread.missing([HERE]) == ""
    assert spread.missing([HERE, BEHIND, WAITING, FAILED]).split("; ") == [
        "second gets it later, by job j-1: nobody answers",
        "third gets it later, by job j-2",
        "fourth does not get it: full",
    ]
