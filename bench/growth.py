"""Whether cost grows straight with the number of files and with their size: a line through what Snappy took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import chart
from bench.corpora import RECIPES
from bench.figures import figure, fit
from bench.meter import Run
from bench.pairing import Outcome
from bench.report import OURS

UNITS = {"million": "files", "noise": "bytes"}
MEASURES = {"seconds": lambda run: run.wall, "MB": lambda run: run.peak / 1e6}
LEAST_POINTS = 3


def points(outcomes: Sequence[Outcome], corpus: str, work: str, measure: str) -> list[tuple[float, float]]:
    """How many files or bytes, and the median of what they took."""
    found = []
    for outcome in outcomes:
        runs: Sequence[Run] = outcome.runs.get((work, OURS), [])
        if outcome.case.corpus == corpus and runs:
            amount = RECIPES[corpus].count * outcome.case.scale
            found.append((amount, figure([MEASURES[measure](run) for run in runs]).median))
    return sorted(found)


def tell_growth(outcomes: Sequence[Outcome], results: Path) -> None:
    """Print each line and how far the worst point lies from it; leave a chart of each."""
    for corpus, unit in UNITS.items():
        for work in ("first", "unchanged"):
            for measure in MEASURES:
                found = points(outcomes, corpus, work, measure)
                if len(found) < LEAST_POINTS:
                    continue
                line = fit([x for x, _ in found], [y for _, y in found])
                title = f"{work} backup, {measure} by {unit}"
                print(
                    f"{title}: {line.start:.2f} + {line.slope * found[-1][0]:.2f} at {found[-1][0]:,.0f}; "
                    f"the worst point lies {line.worst:.0%} from the line"
                )
                drawn = chart.growth(found, line, title, unit, measure)
                (results / f"growth-{corpus}-{work}-{measure}.svg").write_text(drawn)
