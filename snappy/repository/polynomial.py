"""The random polynomial that a restic repository keeps in its configuration.

Restic cuts files by Rabin fingerprints modulo this polynomial over GF(2), and opens no repository whose
polynomial is reducible. An integer stands for a polynomial: bit i is the coefficient of x^i.
"""

from __future__ import annotations

import os

from snappy.repository.format import Random

DEGREE = 53
"""The degree that restic uses. It is prime, and the test below relies on that."""

_X = 0b10


def random_irreducible(random: Random = os.urandom) -> int:
    """A random irreducible polynomial of degree ``DEGREE``; about one in 27 candidates is one."""
    while True:
        bits = int.from_bytes(random(7), "big") % (1 << DEGREE)
        candidate = 1 << DEGREE | bits | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Rabin's test for polynomials of degree ``DEGREE``.

    For a prime degree n it asks two things: no root in GF(2), and x to the power 2^n is x modulo the polynomial.
    """
    if polynomial.bit_length() != DEGREE + 1 or _has_root(polynomial):
        return False
    power = _X
    for _ in range(DEGREE):
        power = _remainder(_square(power), polynomial)
    return power == _X


def _has_root(polynomial: int) -> bool:
    return polynomial & 1 == 0 or polynomial.bit_count() % 2 == 0


def _square(polynomial: int) -> int:
    # Over GF(2) a square keeps each term and doubles its exponent: the same digits, read in base 4.
    return int(f"{polynomial:b}", 4)


def _remainder(polynomial: int, modulus: int) -> int:
    while (excess := polynomial.bit_length() - modulus.bit_length()) >= 0:
        polynomial ^= modulus << excess
    return polynomial
