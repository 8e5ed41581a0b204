"""Random faults against random jobs, one after the other, until every kind has struck often enough.

    python -m bench.soak                               # 300 faults that count, at least 10 of each kind
    python -m bench.soak --minutes 20 --seed 7
    python -m bench.soak --minutes 5 --only "stop source" --broken fencing  # must end red

A site of real processes runs under the rights of ``deploy/nats.conf``: a core, the audit, a target in a folder, and
two replicas of one source service. Each round makes a tree of noise, backs it up and restores it, and strikes each of
the two jobs once. The next fault follows when the last was recovered. Ends with 0 only if no job and no byte was lost,
nothing was done or told twice, nothing was stuck, every job succeeded, the audit log is whole and restic finds every
byte of the repository sound.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import tools
from tests.support.faults import MIB, Arena, arena, make_noise
from tests.support.site import ROLES
from tests.support.storms import FAULTS, Fault, Scene, Stuck

SIZE = 96 * MIB
EARLIEST, LATEST = 4 * MIB, 28 * MIB
"""A job is struck when so many of its bytes have arrived, so that at least 64 MiB are still to come."""
ENOUGH, ENOUGH_EACH = 300, 10
BROKEN = {"fencing": {name: [sys.executable, "-m", "bench.unfenced"] for name in ("site1", "site1.b", "vault")}}


@dataclass
class Tally:
    """What is known so far. ``lost``, ``twice``, ``stuck``, ``failed`` and ``unsound`` say what went wrong."""

    jobs: int = 0
    bytes: int = 0
    struck: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    jobs_lost: int = 0
    bytes_lost: int = 0
    twice: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unsound: list[str] = field(default_factory=list)

    @property
    def red(self) -> bool:
        return bool(
            self.jobs_lost
            or self.bytes_lost
            or self.twice
            or self.stuck
            or self.failed
            or self.unsound
            or not self.jobs
        )

    def enough(self) -> bool:
        each = min(self.struck[fault.name] for fault in FAULTS)
        return self.struck.total() >= ENOUGH and each >= ENOUGH_EACH


class Soak:
    """One run. ``restic`` is the program that judges."""

    def __init__(self, site: Arena, dice: random.Random, restic: str, faults: Sequence[Fault] = FAULTS) -> None:
        self.site, self._dice, self._restic, self._faults = site, dice, restic, faults
        self._saved: dict[str, str] = {}
        """The snapshot that each backup says it made."""
        self.tally = Tally()

    async def run(self, until: float) -> None:
        """Rounds until ``until`` (monotonic seconds), until it is enough, or until something stuck."""
        number = 0
        while time.monotonic() < until and not self.tally.enough() and not self.tally.stuck:
            number += 1
            try:
                await self._round(f"round-{number}")
            except (Stuck, AssertionError) as stuck:
                self.tally.stuck.append(str(stuck)[:600])
        await self._judge()

    async def _round(self, name: str) -> None:
        tree, back = self.site.data / name, self.site.folder / "back" / name
        make_noise(tree, SIZE, self._dice.choice((1, 8, 48)) * MIB)
        try:
            saved = await self._job(self.site.backup(tree), self.site.folder / "repository" / "data")
            if saved.get("state") != "succeeded":
                return
            self._saved[saved["id"]] = saved["result"]["snapshot"]
            brought = await self._job(self.site.restore(name, saved["result"]["snapshot"]), back)
            if brought.get("state") == "succeeded":
                self._compare(name, tree)
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            shutil.rmtree(back, ignore_errors=True)

    async def _job(self, asked: Awaitable[str], folder: Path) -> dict[str, Any]:
        """One job with one fault. Its record at the end."""
        fault = self._choose()
        request = await asked
        self.tally.jobs += 1
        if fault.in_transit:
            await self.site.amid(request, folder, self._dice.randrange(EARLIEST, LATEST))
        else:
            await asyncio.sleep(self._dice.uniform(0.0, 1.0))
        seconds = await fault.strike(Scene(self.site, request, folder, self._dice))
        record = await self._ended(request, fault)
        self._note(fault, seconds, record)
        return record

    def _choose(self) -> Fault:
        """A kind of fault that has struck least often, or any other one time in two."""
        if self._dice.random() < 0.5:
            return self._dice.choice(self._faults)
        fewest = min(self.tally.struck[fault.name] for fault in self._faults)
        return self._dice.choice([fault for fault in self._faults if self.tally.struck[fault.name] == fewest])

    async def _ended(self, request: str, fault: Fault) -> dict[str, Any]:
        try:
            record = await self.site.final(request, 240.0)
        except AssertionError as error:
            self.tally.jobs_lost += not await self.site.record(request)
            raise Stuck(f"{fault.name}: {str(error)[:600]}") from error
        if record["state"] != "succeeded":
            self.tally.failed.append(f"{fault.name}: {record.get('error')}")
        try:
            await self.site.expect_told_once(record)
        except AssertionError as error:
            self.tally.twice.append(f"{fault.name}: {str(error)[:300]}")
        return record

    def _note(self, fault: Fault, seconds: float | None, record: Mapping[str, Any]) -> None:
        if seconds is None:
            self.tally.missed[fault.name] += 1
        else:
            self.tally.struck[fault.name] += 1
            self.tally.seconds[fault.name].append(seconds)
        after = "did not count" if seconds is None else f"{seconds:5.1f} s"
        attempts = len(record.get("attempts") or [])
        print(f"{self.tally.struck.total():4} {fault.name:<18} {record['kind']:<8} {after}, attempts {attempts}")

    def _compare(self, name: str, tree: Path) -> None:
        try:
            self.tally.bytes += self.site.expect_same(name, tree)
        except AssertionError as error:
            self.tally.bytes_lost += SIZE
            self.tally.unsound.append(str(error)[:300])

    async def _judge(self) -> None:
        """What must hold of the whole at the end."""
        for question in (self._known_to_the_audit, self._sound, self._without_twins):
            try:
                await question()
            except (AssertionError, TimeoutError) as error:
                self.tally.unsound.append(str(error)[-300:])

    async def _known_to_the_audit(self) -> None:
        await self.site.expect_audit_whole()

    async def _without_twins(self) -> None:
        """A job that ran once at a time left one snapshot. Asked last: who writes late has done it by then."""
        found = await asyncio.to_thread(self.site.snapshots_by_job, self._restic)
        for job in sorted({*found, *self._saved}):
            if found.get(job) != [self._saved.get(job)]:
                self.tally.twice.append(f"job {job} says {self._saved.get(job)}, restic finds {found.get(job)}")

    async def _sound(self) -> None:
        await asyncio.to_thread(self.site.expect_sound, self._restic)


def table(tally: Tally) -> str:
    """In Markdown: a line a kind of fault, then what was lost."""
    lines = ["| fault | struck | did not count | p50 | max |", "|---|---|---|---|---|"]
    for fault in FAULTS:
        taken = tally.seconds[fault.name]
        middle, longest = (f"{statistics.median(taken):.1f} s", f"{max(taken):.1f} s") if taken else ("", "")
        lines.append(
            f"| {fault.name} | {tally.struck[fault.name]} | {tally.missed[fault.name]} | {middle} | {longest} |"
        )
    lines += [
        "",
        f"{tally.jobs} jobs, {tally.struck.total()} faults that count, {tally.bytes // MIB} MiB restored and compared.",
        f"Lost: {tally.jobs_lost} jobs, {tally.bytes_lost} bytes. Done or told twice: {len(tally.twice)}. "
        f"Stuck: {len(tally.stuck)}. Failed: {len(tally.failed)}. Other complaints: {len(tally.unsound)}.",
    ]
    return "\n".join([*lines, *tally.twice, *tally.stuck, *tally.failed, *tally.unsound])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop after so long, however many have struck")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--broken", choices=list(BROKEN), help="run a build that must not pass")
    parser.add_argument("--only", choices=[fault.name for fault in FAULTS], help="one kind of fault")
    parser.add_argument("--folder", help="where the site's files go; by default the system's temporary folder")
    given = parser.parse_args()
    restic = tools.restic()
    if restic is None:
        parser.error(f"restic is needed: {tools.MAKE_SERVICES}")
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="soak-") as folder:
        tally = _soak(Path(folder), given, restic)
    print(table(tally), flush=True)
    print("red" if tally.red else "green", flush=True)
    return int(tally.red)


def _soak(folder: Path, given: argparse.Namespace, restic: str) -> Tally:
    processes = [*ROLES, "site1.b"]
    with arena(folder, processes=processes, programs=BROKEN.get(given.broken, {})) as site:
        faults = [fault for fault in FAULTS if given.only in (None, fault.name)]
        soak = Soak(site, random.Random(given.seed), restic, faults)
        asyncio.run(soak.run(time.monotonic() + given.minutes * 60))
        return soak.tally


if __name__ == "__main__":
    sys.exit(main())
