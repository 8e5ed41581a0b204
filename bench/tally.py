"""What a soak has seen so far, and the table that it prints of it."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.faults import MIB
from tests.support.storms import PHASES, Blow, Fault

MOST_EXCUSED = 0.05
"""Of all jobs, where they are enough for a share to mean something."""
ENOUGH_JOBS = 100


@dataclass
class Tally:
    """``lost``, ``twice``, ``stuck``, ``failed`` and ``unsound`` say what went wrong; ``excused`` which jobs failed as
    they had to, and why; ``needless`` which were begun again though nobody had struck who did them."""

    faults: Sequence[Fault]
    jobs: int = 0
    bytes: int = 0
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind of fault and kind of job."""
    missed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds from each fault until the next could follow."""
    followed: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    whom: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    layouts: dict[str, str] = field(default_factory=dict)
    """Those that this machine cannot run, and what they want."""
    jobs_lost: int = 0
    bytes_lost: int = 0
    twice: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.struck.total()

    def of(self, fault: Fault) -> int:
        """How often a kind of fault has struck."""
        return sum(self.struck[fault.name, phase] for phase in PHASES)

    @property
    def red(self) -> bool:
        complaints = (self.twice, self.stuck, self.failed, self.unsound)
        too_many = self.jobs >= ENOUGH_JOBS and len(self.excused) >= MOST_EXCUSED * self.jobs
        return bool(self.jobs_lost or self.bytes_lost or any(complaints) or too_many or not self.jobs)

    def note(self, fault: Fault, phase: str, blow: Blow | None) -> None:
        if blow is None:
            self.missed[fault.name] += 1
            return
        self.struck[fault.name, phase] += 1
        self.seconds[fault.name].append(blow.seconds)
        self.followed[fault.name][blow.followed] += 1
        self.whom[fault.name][blow.whom] += bool(blow.whom)

    # ---- what is printed ---------------------------------------------------------------------------------------------

    def table(self) -> str:
        """In Markdown: a line a kind of fault, then what was lost, then each complaint."""
        lines = ["| fault | struck | amid a backup | amid a restore | did not count | p50 | max | what followed |"]
        lines += ["|---|---|---|---|---|---|---|---|", *map(self._row, self.faults), "", self._sums(), self._losses()]
        lines += [f"Left out: {name}, which wants {wants}." for name, wants in self.layouts.items()]
        complaints = {
            "Failed, excused": self.excused,
            "Failed": self.failed,
            "Done or told twice": self.twice,
            "Stuck": self.stuck,
            "Begun again needlessly": self.needless,
            "Complaint": self.unsound,
        }
        return "\n".join([*lines, *(f"* {name}: {each}" for name, found in complaints.items() for each in found)])

    def _row(self, fault: Fault) -> str:
        taken = self.seconds[fault.name]
        times = [f"{statistics.median(taken):.1f} s", f"{max(taken):.1f} s"] if taken else ["", ""]
        phases = [str(self.struck[fault.name, phase]) if phase in fault.phases else "–" for phase in PHASES]
        followed = ", ".join(self.followed[fault.name])
        if whom := ", ".join(f"{name} {count}" for name, count in sorted(self.whom[fault.name].items()) if count):
            followed = f"{followed} ({whom})"
        cells = [fault.name, str(self.of(fault)), *phases, str(self.missed[fault.name]), *times, followed]
        return f"| {' | '.join(cells)} |"

    def _sums(self) -> str:
        return f"{self.jobs} jobs, {self.total} faults that count, {self.bytes // MIB} MiB restored and compared."

    def _losses(self) -> str:
        return (
            f"Lost: {self.jobs_lost} jobs, {self.bytes_lost} bytes. Done or told twice: {len(self.twice)}. "
            f"Stuck: {len(self.stuck)}. Failed without an excuse: {len(self.failed)}. "
            f"Failed as they had to: {len(self.excused)}. Begun again needlessly: {len(self.needless)}. "
            f"Other complaints: {len(self.unsound)}."
        )

    def to_json(self) -> dict[str, Any]:
        """The same for programs. Seconds are from death to resumed work, one a fault that counted."""
        return {
            "jobs": self.jobs,
            "bytes_compared": self.bytes,
            "faults": {fault.name: self._fault(fault) for fault in self.faults},
            "jobs_lost": self.jobs_lost,
            "bytes_lost": self.bytes_lost,
            "twice": self.twice,
            "stuck": self.stuck,
            "failed": self.failed,
            "excused": self.excused,
            "needless": self.needless,
            "unsound": self.unsound,
            "left_out": self.layouts,
            "red": self.red,
        }

    def _fault(self, fault: Fault) -> Mapping[str, Any]:
        return {
            "struck": self.of(fault),
            **{phase: self.struck[fault.name, phase] for phase in PHASES},
            "not_counted": self.missed[fault.name],
            "spent": round(self.spent[fault.name], 1),
            "seconds": [round(each, 3) for each in self.seconds[fault.name]],
            "followed": dict(self.followed[fault.name]),
            "whom": dict(self.whom[fault.name]),
        }
