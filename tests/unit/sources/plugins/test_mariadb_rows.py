"""Rows of a dump are joined where they say so themselves, and nothing else is touched."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest

from snappy.sources.plugins.mariadb_rows import LARGEST, SMALLEST, Joined

HEAD = b"INSERT INTO `a``b` VALUES "
BEFORE = b"-- a comment\nLOCK TABLES `a``b` WRITE;\n"
AFTER = b"UNLOCK TABLES;\n"


def joined(dump: bytes) -> bytes:
    return io.BufferedReader(Joined(io.BytesIO(dump)), 1 << 16).read()


def single(rows: list[bytes], head: bytes = HEAD) -> bytes:
    return b"".join(head + row + b";\n" for row in rows)


def noise(count: int, size: int = 500) -> list[bytes]:
    chance = random.Random(count)
    return [b"(%d,'%s')" % (number, chance.randbytes(size).hex().encode()) for number in range(count)]


def statements(text: bytes, head: bytes = HEAD) -> list[bytes]:
    return [line for line in text.splitlines(keepends=True) if line.startswith(head)]


def test_few_rows_are_one_statement() -> None:
    rows = [b"(1,'x')", b"(2,'it\\'s; (3),(4)')", b"(3,NULL)"]
    assert joined(BEFORE + single(rows) + AFTER) == BEFORE + HEAD + b",".join(rows) + b";\n" + AFTER


def test_no_row_is_lost_and_statements_have_a_size() -> None:
    rows = noise(3000)
    made = statements(joined(BEFORE + single(rows) + AFTER))
    assert b",".join(one[len(HEAD) : -2] for one in made) == b",".join(rows)
    assert len(made) > 10
    assert all(SMALLEST <= len(one) <= 2 * LARGEST for one in made[:-1])


@pytest.mark.parametrize("change", [lambda rows: rows[1:], lambda rows: [b"(-1,'new')", *rows]])
def test_a_row_more_or_less_moves_few_bounds(change: Callable[[list[bytes]], list[bytes]]) -> None:
    rows = noise(3000)
    before, after = statements(joined(single(rows))), statements(joined(single(change(rows))))
    assert len(set(after) - set(before)) <= 2


def test_rows_of_two_tables_are_not_joined() -> None:
    other = b"INSERT INTO `a``b` (`x`, `VALUES (`) VALUES "
    text = single([b"(1)"]) + single([b"(1,2)", b"(3,4)"], other) + single([b"(2)"])
    assert joined(text) == HEAD + b"(1);\n" + other + b"(1,2),(3,4);\n" + HEAD + b"(2);\n"


def test_what_is_no_row_stays_as_it_is() -> None:
    text = b"INSERT INTO a VALUES (1);\nINSERT INTO `a` SELECT (1);\nINSERT INTO `a` VALUES (1)\nno end"
    assert joined(text) == text


def test_a_row_larger_than_a_statement_stays_as_it_is() -> None:
    rows = [b"(1,'x')", b"(2,'" + b"y" * (3 * LARGEST) + b"')", b"(3,'z')", b"(4,'z')"]
    assert joined(single(rows)) == single(rows[:2]) + HEAD + b",".join(rows[2:]) + b";\n"


def test_whole_tables_of_large_rows_are_cut() -> None:
    rows = [b"(%d,'%s')" % (number, b"y" * 700_000) for number in range(6)]
    assert [len(one) // 700_000 for one in statements(joined(single(rows)))] == [2, 2, 2]
