"""What cannot be read raises one kind of error, whatever is wrong with it."""

from __future__ import annotations

import msgspec
import pytest

from snappy.errors import Garbled, InvalidCommand
from snappy.jobs.kinds import parse_command, read
from snappy.jobs.messages import HoldAnswer, Report, read_answer

NONSENSE = [b"", b"{", b"[]", b"\xff", b'{"job": "\xff"}', b'{"\xff": 1}']


@pytest.mark.parametrize("body", NONSENSE)
def test_a_message_that_makes_no_sense(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(body, Report)


@pytest.mark.parametrize("body", NONSENSE)
def test_an_answer_that_makes_no_sense_is_worth_another_try(body: bytes) -> None:
    with pytest.raises(Garbled) as met:
        read_answer(body, HoldAnswer)
    assert met.value.retryable


@pytest.mark.parametrize("body", NONSENSE)
def test_a_command_that_makes_no_sense_is_rejected(body: bytes) -> None:
    with pytest.raises(InvalidCommand):
        parse_command("backup", body)


def test_what_makes_sense_comes_back() -> None:
    answer = HoldAnswer(clock=1.5, locks=["a"])
    assert read_answer(msgspec.json.encode(answer), HoldAnswer) == answer
