"""How much of the packs a check reads: all, none, one part of several, or some at random; as restic's words mean it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Self

from snappy.errors import BadOptions
from snappy.repository.format import PackId
from snappy.repository.sizes import SIZE, UNITS

_PART = re.compile(r"(\d{1,3})/(\d{1,3})\Z")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%\Z")
_MOST_PARTS = 256
"""The first byte of its id says in which part a pack is."""

Sample = Callable[[Sequence[PackId], int], Sequence[PackId]]
"""So many of them, at random."""


class Portion(NamedTuple):
    """Part ``part`` of ``parts``, counted from 1; or, where ``percent`` or ``size`` in bytes is given, about so much of
    them at random."""

    part: int = 1
    parts: int = 1
    percent: float = 0.0
    size: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """``1/7``, ``10%`` or ``500M``. Raises :class:`BadOptions`."""
        if match := _PART.match(text):
            part, parts = int(match[1]), int(match[2])
            if 1 <= part <= parts <= _MOST_PARTS:
                return cls(part, parts)
        elif (match := _PERCENT.match(text)) and 0 < float(match[1]) <= 100:
            return cls(percent=float(match[1]))
        elif (match := SIZE.match(text)) and int(match[1]):
            return cls(size=int(match[1]) * UNITS[match[2].upper()])
        raise BadOptions(f"{text!r} is no portion of the data", hint="for example 1/7 (256 parts at most), 10% or 500M")

    def choose(self, packs: Mapping[PackId, int], sample: Sample = random.sample) -> Sequence[PackId]:
        """Those of ``packs``, given with their sizes in bytes, that belong to it; at random at least one."""
        share = self.size / max(1, sum(packs.values())) if self.size else self.percent / 100
        if share:
            return sample(list(packs), min(len(packs), max(1, int(len(packs) * share))))
        return [pack for pack in packs if pack[0] % self.parts == self.part - 1]


EVERYTHING = Portion()
