"""Which files of a snapshot a drill restores: some at random, each the likelier the larger it is.

Each file draws a number from the exponential distribution of the rate that is its size; the smallest numbers are in the
sample. So a file is drawn before others as often as its share of their bytes, and one pass with a bounded memory will
do. Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import NamedTuple, Self

from snappy.errors import BadOptions
from snappy.repository.paths import parent
from snappy.repository.progress import Cancelled, Problems
from snappy.repository.sizes import SIZE, UNITS
from snappy.repository.snapshot_walk import Selection, SnapshotWalk
from snappy.repository.snapshots import Snapshot
from snappy.repository.tree_reader import Library

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%\Z")

Sizes = Mapping[bytes, int]
"""Of files in bytes, by their paths."""


class Sample(NamedTuple):
    """So many ``percent`` of all bytes at least, or ``size`` bytes at most; in whole files, and one at least."""

    percent: float = 0.0
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """``5%`` or ``500M``. Raises :class:`BadOptions`."""
        if (match := _PERCENT.match(text)) and 0 < float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        if (match := SIZE.match(text)) and int(match[1]):
            return cls(size=int(match[1]) * UNITS[match[2].upper()])
        raise BadOptions(f"{text!r} is no sample of the data", hint="for example 5% or 1G; the units are K, M, G and T")

    def draw(self, files: Iterable[tuple[bytes, int]], total: int, chance: random.Random) -> Sizes:
        """Some of the ``files``, given with their sizes, which are ``total`` bytes together. Raises
        :class:`BadOptions` where there are files, and each has more bytes than are wanted."""
        share = math.ceil(total * self.percent / 100)
        drawn: list[tuple[float, bytes, int]] = []
        size, too_large = 0, 0
        for path, length in files:
            number = math.log(1.0 - chance.random()) / max(1, length)
            if self.size and length > self.size:
                too_large += 1
                continue
            heappush(drawn, (number, path, length))
            size += length
            while (size > self.size) if self.size else (len(drawn) > 1 and size - drawn[0][2] >= share):
                size -= heappop(drawn)[2]
        if too_large and not drawn:
            raise BadOptions("the sample is smaller than each of the files", hint="ask for more, or for a share: 5%")
        return {path: length for _, path, length in drawn}


class Chosen(Selection):
    """Some files, and the directories on the way to them."""

    def __init__(self, files: Sizes) -> None:
        super().__init__()
        self.files = files
        self._folders = set[bytes]()
        for path in files:
            folder = parent(path)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = parent(folder)

    def __bool__(self) -> bool:
        return True

    def takes(self, path: bytes, *, directory: bool) -> bool:
        return path in (self._folders if directory else self.files)

    def looks_into(self, folder: bytes) -> bool:
        return False


def choose(
    library: Library, snapshot: Snapshot, sample: Sample, seed: int, problems: Problems, cancelled: Cancelled
) -> Chosen:
    """The sample of the snapshot; the same for the same seed. What cannot be read becomes one of ``problems``. Raises
    :class:`snappy.errors.Damaged` where it is the root, and :class:`BadOptions`."""

    def files() -> Iterator[tuple[bytes, int]]:
        walk = SnapshotWalk(library, Selection(), problems, cancelled)
        return ((step.path, step.node.size) for step in walk.steps(snapshot) if step.node.type == "file")

    if snapshot.summary:
        total = snapshot.summary.total_bytes_processed
    else:
        total = sum(size for _, size in files()) if sample.percent else 0
    return Chosen(sample.draw(files(), total, random.Random(seed)))
