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


@pytest.mark.parametrize("part", ["1/", "/7", "%", "1/7%", "5X", "half", "", "0/0", "1/0", "0%", "0.0%", "0", "0M"])
def test_a_part_of_the_data_that_is_none(part: str) -> None:
    with pytest.raises(InvalidCommand, match="read_data_subset"):
        parse_command("check", check(read_data_subset=part))


def test_a_check_reads_all_or_a_part() -> None:
    assert parse_command("check", check(read_data_subset="1/7")).read_data is False  # type: ignore[union-attr]
    with pytest.raises(InvalidCommand, match="excludes"):
        parse_command("check", check(read_data_subset="10%", read_data=True))
    late = {"not_before": "2027-01-02T00:00:00Z", "deadline": "2027-01-01T00:00:00Z"}
    with pytest.raises(InvalidCommand, match="deadline"):
        parse_command("check", check(**late))


def check(**fields: object) -> bytes:
    return msgspec.json.encode({"source": "site1", "target": "vault", **fields})


def test_what_makes_sense_comes_back() -> None:
    answer = HoldAnswer(clock=1.5, locks=["a"])
    assert read_answer(msgspec.json.encode(answer), HoldAnswer) == answer
