"""Bytes of the kinds that files are made of, the same for the same seed, made at a few hundred MB a second.

zstd at level 3 makes *text* about a third of its size and *code* about a half; *noise* stays what it is. No long
stretch of any of them comes twice, so that nothing is known to a repository but what a corpus repeats on purpose.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache

SEED = 20260401
LETTERS = b"etaoinshrdlcumwfgypbvkjxqz_"
WORDS = 6_000
TOKENS = 3_000
AVERAGE = 16
"""Bytes of a member of a vocabulary, about."""
PICKS = 1 << 16
"""A vocabulary has as many places as a 16-bit number can choose from."""
BLOCK = 1 << 20

Maker = Callable[[random.Random, int], bytes]
"""Makes so many bytes."""


def noise(rng: random.Random, size: int) -> bytes:
    """Compressed already, or sealed."""
    return rng.randbytes(size)


def zeros(_rng: random.Random, size: int) -> bytes:
    return bytes(size)


def text(rng: random.Random, size: int) -> bytes:
    """Words and phrases, of which a few are frequent, and lines."""
    return _chosen(rng, size, _phrases())


def code(rng: random.Random, size: int) -> bytes:
    """Short runs of bytes as in a program, of which a few are frequent, and runs that are new each time."""
    frequent, new = _chosen(rng, size, _tokens()), rng.randbytes(size // 5 + 64)
    pieces = zip(range(0, size, 240), range(0, len(new), 48), strict=False)
    return b"".join(frequent[at : at + 192] + new[other : other + 48] for at, other in pieces)[:size]


def blocks(make: Maker, rng: random.Random, size: int) -> Iterator[bytes]:
    """``size`` bytes in pieces that fit in memory."""
    for start in range(0, size, BLOCK):
        yield make(rng, min(BLOCK, size - start))


def _chosen(rng: random.Random, size: int, vocabulary: Sequence[bytes]) -> bytes:
    """Random members of a vocabulary, one after another."""
    made = b""
    while len(made) < size:
        numbers = array("H", rng.randbytes(2 * ((size - len(made)) // AVERAGE + 16)))
        made += b"".join([vocabulary[number] for number in numbers])
    return made[:size]


@cache
def _phrases() -> Sequence[bytes]:
    rng = random.Random(f"{SEED} phrases")
    words = [bytes(rng.choices(LETTERS, k=rng.randint(2, 11))) for _ in range(WORDS)]
    ends = [b" "] * 8 + [b"\n", b"\n    ", b", ", b"(", b") ", b".\n", b" = "]
    lengths = [1, 1, 1, 2, 3]
    return _by_frequency([_phrase(rng, words, ends, rng.choice(lengths)) for _ in range(WORDS)])


def _phrase(rng: random.Random, words: Sequence[bytes], ends: Sequence[bytes], length: int) -> bytes:
    return b"".join(rng.choice(words) + rng.choice(ends) for _ in range(length))


@cache
def _tokens() -> Sequence[bytes]:
    rng = random.Random(f"{SEED} tokens")
    return _by_frequency([rng.randbytes(rng.randint(4, 24)) for _ in range(TOKENS)])


def _by_frequency(members: Sequence[bytes]) -> Sequence[bytes]:
    """Each member as often as its rank wants: the first twice as often as the second (Zipf). :data:`PICKS` in all."""
    whole = sum(1 / (rank + 1) for rank in range(len(members)))
    spread = [member for rank, member in enumerate(members) for _ in range(1 + int(PICKS / (rank + 1) / whole))]
    return list(itertools.islice(itertools.cycle(spread), PICKS))
