"""What programs that read here and there in files ask for, and what they must get."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

READS = 1000
LARGE = 100_000
LENGTHS = (0, 1, 4096, 65_536, 300_000)


class Read(NamedTuple):
    """``below``: the path below the tree's top, as text of any bytes."""

    below: str
    offset: int
    length: int
    wanted: bytes


def random_reads(tree: Path, seed: int, count: int = READS) -> Iterator[Read]:
    """Of files below ``tree``, every second time of a large one; some reach over the end, some begin behind it."""
    chance = random.Random(seed)
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    large = [path for path in files if path.stat().st_size > LARGE]
    for number in range(count):
        path = chance.choice(large if number % 2 else files)
        offset, length = chance.randrange(path.stat().st_size + 2), chance.choice(LENGTHS)
        with path.open("rb") as file:
            file.seek(offset)
            yield Read(below(path, tree), offset, length, file.read(length))


def below(path: Path, tree: Path) -> str:
    return os.fsencode(path.relative_to(tree)).decode("utf-8", "surrogateescape")
