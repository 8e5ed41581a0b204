"""Codes are stable and unique, errors survive the wire, and logs keep secrets."""

from __future__ import annotations

import asyncio

import pytest

from snappy import log
from snappy.error_codes import BY_CODE, _descendants, cause_of, from_code
from snappy.errors import NoSpace, NotFound, SnappyError


def test_no_two_classes_share_a_code() -> None:
    kinds = [kind for kind in _descendants(SnappyError) if kind.__module__ == SnappyError.__module__]
    assert len({kind.code for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_comes_back_as_what_it_was(code: str) -> None:
    kind = BY_CODE[code]
    error = from_code(code, "the message", "the hint")
    assert (type(error), str(error), error.hint) == (kind, "the message", "the hint")


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_a_class_says_what_happened_in_a_sentence(kind: type[SnappyError]) -> None:
    assert kind().message.endswith(".")
    assert kind.exit_code not in (0, 3), "0 and 3 mean that the job was done"


def test_an_unknown_code_of_a_newer_peer_is_an_error_still() -> None:
    assert type(from_code("from-the-future", "m")) is SnappyError
    assert type(from_code(NotFound.code, "m")) is NotFound


def test_the_cause_in_groups() -> None:
    group = BaseExceptionGroup("a", [asyncio.CancelledError(), BaseExceptionGroup("b", [ValueError(), NoSpace()])])
    assert isinstance(cause_of(group), NoSpace)
    assert isinstance(cause_of(ValueError()), ValueError)


def test_secrets_never_reach_a_line() -> None:
    event = {"event": "x", "password_file": "a", "Grant": "b", "aws_secret_key": "c", "job": "d"}
    assert log.redact(None, "info", event) == {
        "event": "x",
        "password_file": log.REDACTED,
        "Grant": log.REDACTED,
        "aws_secret_key": log.REDACTED,
        "job": "d",
    }
