"""What a bench found: a table to read, and JSON for programs."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bench.figures import Figure, figure, paired_ratio
from bench.matrix import CPU_AIM, MEMORY_AIMS, STORED_AIM, TITLES, UNCHANGED_MILLION_SECONDS
from bench.meter import Run
from bench.pairing import QUIET_CORES, Outcome
from bench.sides import Side

OURS, THEIRS = "snappy", "restic"
MET, MISSED, NONE = "met", "MISSED", "–"


@dataclass(frozen=True)
class Row:
    """One work of one case: figures by side, and Snappy's as a part of restic's where both were run."""

    outcome: Outcome
    work: str
    wall: Mapping[str, Figure]
    cpu: Mapping[str, Figure]
    peak: Mapping[str, Figure]
    wall_ratio: Figure | None
    cpu_ratio: Figure | None
    left_out: Mapping[str, str]

    @property
    def title(self) -> str:
        return f"{self.outcome.case.name}: {TITLES[self.work]}"

    @property
    def aim(self) -> float | None:
        return self.outcome.case.aim(self.work)

    def verdicts(self) -> dict[str, bool]:
        """Whether each aim that there is was met: ``wall``, ``cpu``, ``memory``, ``stored``."""
        found = dict[str, bool]()
        if self.wall_ratio and self.aim is not None:
            found["wall"] = self.wall_ratio.median <= self.aim
        if self.cpu_ratio:
            found["cpu"] = self.cpu_ratio.median <= CPU_AIM
        limit = MEMORY_AIMS.get(self.outcome.case.corpus)
        if limit and OURS in self.peak:
            found["memory"] = self.peak[OURS].median < limit
        if self.work == "first" and (stored := stored_ratio(self.outcome)):
            found["stored"] = abs(stored - 1) <= STORED_AIM
        return found


def rows(outcome: Outcome) -> Iterator[Row]:
    for work in outcome.case.works:
        by_side = {side: runs for (each, side), runs in outcome.runs.items() if each == work}
        ours, theirs = outcome.together(work, OURS, THEIRS)
        yield Row(
            outcome,
            work,
            {side: figure([run.wall for run in runs]) for side, runs in by_side.items()},
            {side: figure([run.cpu for run in runs]) for side, runs in by_side.items()},
            {side: figure([run.peak for run in runs]) for side, runs in by_side.items()},
            paired_ratio([run.wall for run in ours], [run.wall for run in theirs]) if ours and theirs else None,
            paired_ratio([run.cpu for run in ours], [run.cpu for run in theirs]) if ours and theirs else None,
            {side: why for (each, side), why in outcome.left_out.items() if each == work},
        )


def stored_ratio(outcome: Outcome) -> float | None:
    """The size of Snappy's repositories as a part of restic's, after the first backup."""
    ours, theirs = outcome.stored.get(OURS), outcome.stored.get(THEIRS)
    return paired_ratio(ours, theirs).median if ours and theirs and len(ours) == len(theirs) else None


# ---- Markdown --------------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome], sides: Sequence[str]) -> str:
    """Seconds as median (least..most); a ratio is the median of the ratios within the pairs."""
    peers = [side for side in sides if side != OURS]
    titles = ["work", *(f"wall {side}" for side in sides), "÷ restic", "aim", "wall"]
    titles += ["CPU ÷ restic", "CPU", *(f"peak {side}" for side in sides), "memory"]
    lines = [_line(titles), _line("---" for _ in titles)]
    notes = []
    for outcome in outcomes:
        lines += [_line(_cells(row, [OURS, *peers])) for row in rows(outcome)]
        notes += [*_absences(outcome), *_sizes(outcome), *_longest(outcome), *_disturbances(outcome)]
    if any(outcome.case.scale != 1 for outcome in outcomes):
        notes.append("* The aims are for corpora of full size.")
    return "\n".join([*lines, "", *notes])


def parts_table(outcomes: Sequence[Outcome]) -> str:
    """What each of Snappy's processes took: CPU seconds, and MB when all of them together held most. Medians."""
    found = [
        (row, row.outcome.runs[row.work, OURS]) for outcome in outcomes for row in rows(outcome) if OURS in row.wall
    ]
    names = list(dict.fromkeys(name for _, runs in found for run in runs for name in run.parts))
    lines = [_line(["work", "wall", *names]), _line(["---"] * (len(names) + 2))]
    for row, runs in found:
        cells = [f"{_part(runs, name, 'cpu'):.2f} s, {_part(runs, name, 'pss') / 1e6:.0f} MB" for name in names]
        lines.append(_line([row.title, f"{row.wall[OURS].median:.2f} s", *cells]))
    return "\n".join(lines)


def _part(runs: Sequence[Run], name: str, measure: str) -> float:
    return figure([run.parts[name][measure] for run in runs]).median


def _absences(outcome: Outcome) -> Iterator[str]:
    """Who did not do what, and why: a line for each side and reason."""
    works = defaultdict[tuple[str, str], list[str]](list)
    for (work, side), why in outcome.left_out.items():
        works[side, why.splitlines()[0]].append(TITLES[work])
    for (side, why), found in works.items():
        yield f"* {outcome.case.name}, {side}: {why} ({', '.join(found)})"


def _cells(row: Row, sides: Sequence[str]) -> Iterator[str]:
    met = row.verdicts()
    yield row.title
    yield from (_seconds(row.wall.get(side)) for side in sides)
    yield _ratio(row.wall_ratio)
    yield NONE if row.aim is None else f"{row.aim:g}"
    yield _verdict(met, "wall")
    yield _ratio(row.cpu_ratio)
    yield _verdict(met, "cpu")
    yield from (f"{row.peak[side].median / 1e6:.0f} MB" if side in row.peak else NONE for side in sides)
    yield _verdict(met, "memory")


def _sizes(outcome: Outcome) -> Iterator[str]:
    """How large the repositories are."""
    sizes = [f"{side} {figure(found).median / 1e6:.1f} MB" for side, found in outcome.stored.items()]
    if sizes:
        ratio = stored_ratio(outcome)
        verdict = MISSED if ratio and abs(ratio - 1) > STORED_AIM else MET
        compared = f"; Snappy's ÷ restic's {ratio:.3f} ({verdict}: within {STORED_AIM:.0%})" if ratio else ""
        first = f"repository after the first backup of {outcome.amount / 1e6:.1f} MB"
        yield f"* {outcome.case.name}: {first}: {', '.join(sizes)}{compared}"


def _longest(outcome: Outcome) -> Iterator[str]:
    """What has an aim in seconds."""
    runs = outcome.runs.get(("unchanged", OURS))
    if outcome.case.corpus == "million" and runs:
        seconds = figure([run.wall for run in runs]).median
        verdict = MET if seconds < UNCHANGED_MILLION_SECONDS else MISSED
        aim = f"{verdict}: under {UNCHANGED_MILLION_SECONDS:.0f} s"
        yield f"* {outcome.case.name}: an unchanged backup takes {seconds:.1f} s ({aim})"


def _disturbances(outcome: Outcome) -> Iterator[str]:
    """Runs beside which others were busy."""
    runs = [run for found in outcome.runs.values() for run in found]
    disturbed = [run.others for run in runs if run.others > QUIET_CORES]
    if disturbed:
        most = f"up to {max(disturbed):.1f} cores were used by others"
        yield f"* {outcome.case.name}: {len(disturbed)} of {len(runs)} runs were disturbed: {most}"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(found: Figure | None) -> str:
    return f"{found.median:.2f} s ({found.least:.2f}..{found.most:.2f})" if found else NONE


def _ratio(found: Figure | None) -> str:
    return f"{found.median:.2f} ({found.least:.2f}..{found.most:.2f})" if found else NONE


def _verdict(met: Mapping[str, bool], name: str) -> str:
    return NONE if name not in met else MET if met[name] else MISSED


def heading(sides: Sequence[Side], missing: Mapping[str, str], pairs: int, now: datetime) -> str:
    """Who ran, on what, and who is missing."""
    lines = [f"{now:%Y-%m-%d %H:%M} UTC, {machine()}, {pairs} pairs", ""]
    lines += [f"* {side.name} {side.version()}: {side.how()}" for side in sides]
    lines += [f"* {name} is missing: {why}" for name, why in missing.items()]
    return "\n".join(lines)


def machine() -> str:
    """Its class, never its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {memory:.0f} GiB, {platform.machine()}, Python {platform.python_version()}, load {load:.1f}"


# ---- JSON ------------------------------------------------------------------------------------------------------------


def to_json(outcomes: Sequence[Outcome], sides: Sequence[Side], missing: Mapping[str, str]) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "sides": {side.name: {"version": side.version(), "how": side.how()} for side in sides},
        "missing": dict(missing),
        "rows": [_row(row) for outcome in outcomes for row in rows(outcome)],
        "stored": {outcome.case.name: outcome.stored for outcome in outcomes},
    }


def _row(row: Row) -> dict[str, Any]:
    case = row.outcome.case
    by_side = {side: found for (work, side), found in row.outcome.runs.items() if work == row.work}
    return {
        "corpus": case.corpus,
        "scale": case.scale,
        "target": case.target,
        "duplicates": case.duplicates,
        "work": row.work,
        "bytes": row.outcome.amount,
        "runs": {side: [run.to_json() for run in found] for side, found in by_side.items()},
        "wall_ratio": _figure(row.wall_ratio),
        "cpu_ratio": _figure(row.cpu_ratio),
        "aim": row.aim,
        "met": row.verdicts(),
        "left_out": dict(row.left_out),
    }


def _figure(found: Figure | None) -> dict[str, float] | None:
    return None if found is None else {"median": found.median, "least": found.least, "most": found.most}
