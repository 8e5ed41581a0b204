"""What is said of several runs of one kind: the middle, the spread, and how two kinds compare."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """The median of some runs, and the least and the most of them."""

    median: float
    least: float
    most: float

    @property
    def spread(self) -> float:
        """Between the extremes, as a part of the median."""
        return (self.most - self.least) / self.median if self.median else 0.0


def figure(values: Sequence[float]) -> Figure:
    """Raises ValueError where there is none."""
    if not values:
        raise ValueError("no run, no figure")
    return Figure(statistics.median(values), min(values), max(values))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """How runs compare with those that were made beside them: the ratio within each pair, then the figure of that.

    What slows the machine for a while slows both of a pair. Raises ValueError unless each run has its partner.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs beside {len(theirs)}")
    return figure([one / other for one, other in zip(ours, theirs, strict=True) if other])


@dataclass(frozen=True)
class Line:
    """``value = start + slope * amount``, and how far the worst point lies from it, as a part of its own value."""

    start: float
    slope: float
    worst: float

    def at(self, amount: float) -> float:
        return self.start + self.slope * amount


def fit(amounts: Sequence[float], values: Sequence[float]) -> Line:
    """The line of least squares of relative distance: a small point counts as much as a large one."""
    weights = [1 / value**2 for value in values]
    whole = sum(weights)
    middle_x = sum(weight * x for weight, x in zip(weights, amounts, strict=True)) / whole
    middle_y = sum(weight * y for weight, y in zip(weights, values, strict=True)) / whole
    points = list(zip(weights, amounts, values, strict=True))
    width = sum(weight * (x - middle_x) ** 2 for weight, x, _ in points)
    slope = sum(weight * (x - middle_x) * (y - middle_y) for weight, x, y in points) / width
    start = middle_y - slope * middle_x
    return Line(start, slope, max(abs(start + slope * x - y) / y for _, x, y in points))
