"""How much of the packs is read: parts as restic counts them, percents of all."""

from __future__ import annotations

import pytest

from snappy.errors import BadOptions
from snappy.repository.portion import EVERYTHING, Portion

PACKS = [bytes([number]) + bytes(31) for number in range(256)]
SIZES = dict.fromkeys(PACKS, 1 << 20)


def test_everything() -> None:
    assert EVERYTHING.choose(SIZES) == PACKS


def test_the_first_byte_says_which_part() -> None:
    chosen = Portion.parse("2/7").choose(SIZES)
    assert [pack[0] for pack in chosen] == list(range(1, 256, 7))


@pytest.mark.parametrize("parts", [1, 2, 7, 256])
def test_the_parts_are_all(parts: int) -> None:
    chosen = [pack for part in range(1, parts + 1) for pack in Portion.parse(f"{part}/{parts}").choose(SIZES)]
    assert sorted(chosen) == PACKS


PERCENTS = [("10%", 25), ("0.1%", 1), ("100%", 256), ("33.5%", 85)]
AS_BYTES = [("1", 1), ("1048576", 1), ("10240k", 10), ("64M", 64), ("1G", 256), ("2T", 256)]


@pytest.mark.parametrize(("text", "count"), PERCENTS + AS_BYTES)
def test_so_much_at_random(text: str, count: int) -> None:
    chosen = Portion.parse(text).choose(SIZES)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(PACKS)


def test_percents_of_nothing() -> None:
    assert list(Portion.parse("10%").choose({})) == []


WRONG = ["", "0/7", "8/7", "1/257", "1/0", "-1/7", "0%", "0", "0M", "5X", "M", "1.5M", "101%", "ten%", "1/7 ", "1/7\n"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_portion(text: str) -> None:
    with pytest.raises(BadOptions, match="is no portion"):
        Portion.parse(text)
