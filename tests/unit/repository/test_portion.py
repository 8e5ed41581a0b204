"""How much of the packs is read: parts as restic counts them, percents of all."""

from __future__ import annotations

import pytest

from snappy.errors import BadOptions
from snappy.repository.portion import EVERYTHING, Portion

PACKS = [bytes([number]) + bytes(31) for number in range(256)]


def test_everything() -> None:
    assert EVERYTHING.choose(PACKS) == PACKS


def test_the_first_byte_says_which_part() -> None:
    chosen = Portion.parse("2/7").choose(PACKS)
    assert [pack[0] for pack in chosen] == list(range(1, 256, 7))


@pytest.mark.parametrize("parts", [1, 2, 7, 256])
def test_the_parts_are_all(parts: int) -> None:
    chosen = [pack for part in range(1, parts + 1) for pack in Portion.parse(f"{part}/{parts}").choose(PACKS)]
    assert sorted(chosen) == PACKS


@pytest.mark.parametrize(("text", "count"), [("10%", 25), ("0.1%", 1), ("100%", 256), ("33.5%", 85)])
def test_percents(text: str, count: int) -> None:
    chosen = Portion.parse(text).choose(PACKS)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(PACKS)


def test_percents_of_nothing() -> None:
    assert list(Portion.parse("10%").choose([])) == []


@pytest.mark.parametrize("text", ["", "1", "0/7", "8/7", "1/257", "1/0", "-1/7", "0%", "101%", "ten%", "1/7 ", "1/7\n"])
def test_what_is_no_portion(text: str) -> None:
    with pytest.raises(BadOptions, match="is no portion"):
        Portion.parse(text)
