from __future__ import annotations

import pytest

from snappy.repository.polynomial import DEGREE, is_irreducible, random_irreducible


def multiply(one: int, other: int) -> int:
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        other >>= 1
    return product


@pytest.mark.parametrize("polynomial", [0x25B468838DCB75, 0x3DA3358B4DC173])
def test_polynomials_that_restic_uses_are_irreducible(polynomial: int) -> None:
    assert is_irreducible(polynomial)


@pytest.mark.parametrize(
    "polynomial",
    [
        0,
        1,
        0b10,
        1 << DEGREE,
        (1 << DEGREE) | 1,  # x + 1 divides it
        multiply(0b111, (1 << DEGREE - 2) | 0b11),
        multiply((1 << 26) | 0b1000111, (1 << 27) | 0b100111),
        0x25B468838DCB75 << 1,
        0x25B468838DCB75 ^ 0b10,
    ],
)
def test_reducible_ones_and_those_of_another_degree(polynomial: int) -> None:
    assert not is_irreducible(polynomial)


def test_random_ones() -> None:
    found = {random_irreducible() for _ in range(20)}
    assert len(found) == 20
    assert all(is_irreducible(polynomial) for polynomial in found)


def test_the_search_passes_over_reducible_candidates() -> None:
    good = 0x25B468838DCB75 - (1 << DEGREE)
    offered = iter([0, good ^ 0b10, good])
    assert random_irreducible(lambda size: next(offered).to_bytes(size, "big")) == 0x25B468838DCB75
    assert list(offered) == []
