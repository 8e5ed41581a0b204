"""Random faults against random jobs, one after the other, until every kind has struck often enough.

    python -m bench.soak                               # 300 faults that count, at least 10 of each kind
    python -m bench.soak --minutes 20 --seed 7 --report soak.md
    python -m bench.soak --minutes 5 --only "stop source" --broken fencing  # must end red

Sites of real processes run under the rights of ``deploy/nats.conf``, one layout after the other (:mod:`tests.support.
layouts`), each several times: a core, the audit, a target, and two replicas of one source service. Each round backs a
tree of noise up, none of whose chunks is known, and restores it; each of the two jobs is struck again and again as long
as at least 64 MiB of it are still to come. The next fault follows when the last was recovered. Ends with 0 only if no
job and no byte was lost, nothing was done or told twice, nothing was stuck, every job succeeded that could, the audit
logs are whole and restic finds every byte of the repositories sound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.tally import Tally
from tests.support import tools
from tests.support.clients import Client
from tests.support.faults import HOLD_SECONDS, MIB, Arena, make_noise, stir
from tests.support.grounds import Ground, Layout
from tests.support.layouts import LAYOUTS
from tests.support.storms import IN_FLIGHT, LOOK_SECONDS, Blow, Fault, Flow, Later, Scene, Stuck

SIZES = ((2, 48), (12, 8), (64, 1))
"""Files of the noise: how many of so many MiB, in the order in which they are stored and restored."""
SIZE = sum(count * mib for count, mib in SIZES) * MIB
SMALL = 64 << 10
EARLIEST, LATEST = 4 * MIB, 24 * MIB
"""The next fault comes when so many more bytes have arrived."""
SLACK = 8 * MIB
"""What may arrive between the look and the fault."""
ENOUGH, ENOUGH_EACH = 300, 10
JOB_SECONDS = 240.0
MOST_OF_ONE_JOB = 6
LOCK_SECONDS = 2 * HOLD_SECONDS + 2.0
"""After so long the grant of whoever died has run out."""
MOST_OF_ONE_KIND = 0.6
"""Of the faults of one kind may strike backups alone, or restores."""
BROKEN = {"fencing": {name: [sys.executable, "-m", "bench.unfenced"] for name in ("site1", "site1.b", "vault")}}


class Visit:
    """One layout, from its start until each of its faults has struck ``quota`` times in the whole soak."""

    def __init__(
        self, ground: Ground, tally: Tally, faults: Sequence[Fault], dice: random.Random, quota: int, most: int
    ) -> None:
        self.site, self._ground, self._tally, self._faults = ground.site, ground, tally, faults
        self._dice, self._quota, self._most = dice, quota, most
        self._tree = self.site.data / "noise"
        self._began = time.monotonic()
        self._pending: Counter[str] = Counter()
        """Faults of which only the end of the job will tell whether they count."""
        self._saved: dict[str, str] = {}
        """The snapshot that each backup says it made."""

    async def run(self, until: float) -> None:
        """Rounds until ``until`` (monotonic seconds), until it is enough, or until something stuck."""
        for number, (count, mib) in enumerate(SIZES):
            make_noise(self._tree / str(number), count * mib * MIB, mib * MIB)
        make_noise(self.site.data / "small", SMALL, SMALL)
        number = 0
        while self._wanted() and time.monotonic() < until and not self._tally.stuck:
            number += 1
            try:
                await self._round(f"round-{number}")
            except (Stuck, AssertionError, OSError, TimeoutError) as stuck:
                self._tally.stuck.append(str(stuck)[:2000])
                print(f"stuck: {str(stuck)[:8000]}", flush=True)

    def _wanted(self) -> list[Fault]:
        return [fault for fault in self._faults if self._tally.of(fault) < self._quota]

    async def _round(self, name: str) -> None:
        back = self.site.folder / "back" / name
        for folder in self._tree.iterdir():
            stir(folder)
        saved = await self._job("backup", Flow(self._ground.stored, SIZE, self._ground.suffix), str(self._tree))
        if saved.get("state") != "succeeded":
            return
        back.mkdir(parents=True)
        brought = await self._job("restore", Flow(back, SIZE, anew=True), saved["result"]["snapshot"], str(back))
        if brought.get("state") != "succeeded":  # what excused that is mended
            brought = await self._ended(await self.site.restore(name, saved["result"]["snapshot"]), [])
        if brought.get("state") == "succeeded":
            self._compare(name)
        shutil.rmtree(back)

    # ---- one job -----------------------------------------------------------------------------------------------------

    async def _job(self, kind: str, flow: Flow, *what: str) -> dict[str, Any]:
        """One job with the faults that it meets. Its record at the end."""
        fault = self._choose(kind)
        client, request = await self._submit(kind, bool(fault and fault.by_client), *what)
        scene = Scene(self.site, self._ground, request, flow, self._dice, client)
        struck: list[Fault] = []
        later: list[tuple[Fault, Later]] = []
        while fault and await self._moment(scene):
            blow = await self._strike(fault, kind, scene)
            if callable(blow):
                later.append((fault, blow))
                self._pending[fault.name] += 1
            else:
                self._note(fault, kind, blow)
            struck.append(fault)
            if fault.last or len(struck) == self._most:
                break
            fault = self._choose(kind, submitted=True)
        record = await self._ended(request, struck)
        self._pending.clear()
        for deferred, recover in later:
            self._note(deferred, kind, await recover(record))
        for also in scene.also:
            await self._ended(also, struck)
        if client:
            assert await client.ended() == 0, f"the command line said something else\n{self.site.log('alice')[-2000:]}"
        return record

    async def _submit(self, kind: str, by_client: bool, *what: str) -> tuple[Client | None, str]:
        """Of a backup the path, of a restore the snapshot and the place."""
        if by_client:
            request = secrets.token_hex(8)
            options = ["--init", "--to", "vault"] if kind == "backup" else ["--from", "vault", "--to", what[1]]
            return Client(self.site, kind, what[0], *options, "--source", "site1", "--request", request), request
        if kind == "backup":
            return None, await self.site.backup(Path(what[0]))
        return None, await self.site.restore(Path(what[1]).name, what[0])

    def _choose(self, kind: str, *, submitted: bool = False) -> Fault | None:
        """One that has struck least often amid such jobs, of those that have not struck enough; what only a command
        line's job can meet, at its start."""
        wanted = [
            fault for fault in self._faults if self._is_wanted(fault, kind) and not (submitted and fault.by_client)
        ]
        if not wanted:
            return None
        fewest = min(self._tally.struck[fault.name, kind] for fault in wanted)
        return self._dice.choice([fault for fault in wanted if self._tally.struck[fault.name, kind] == fewest])

    def _is_wanted(self, fault: Fault, kind: str) -> bool:
        most = self._quota if len(fault.phases) == 1 else MOST_OF_ONE_KIND * self._quota
        return (
            kind in fault.phases and self._tally.of(fault) < self._quota and self._tally.struck[fault.name, kind] < most
        )

    async def _moment(self, scene: Scene) -> bool:
        """Wait until a random part more has arrived; whether enough of the job is left then."""
        arrived = scene.flow.arrived()
        latest = scene.flow.size - IN_FLIGHT - SLACK
        if arrived + EARLIEST >= latest:
            return False
        wanted = min(latest, arrived + self._dice.randrange(EARLIEST, LATEST))
        deadline, asked = time.monotonic() + JOB_SECONDS, time.monotonic()
        while scene.flow.arrived() < wanted:
            if time.monotonic() - asked > 1.0:
                asked = time.monotonic()
                if await scene.over():
                    return False
            if asked > deadline:
                raise Stuck(f"the moment for a fault never came: {await self.site.record(scene.request)}")
            await asyncio.sleep(LOOK_SECONDS)
        return scene.flow.left() >= IN_FLIGHT

    async def _strike(self, fault: Fault, kind: str, scene: Scene) -> Blow | Later | None:
        began = time.monotonic()
        try:
            return await fault.strike(scene)
        except (Stuck, AssertionError) as error:
            raise Stuck(f"{fault.name} amid a {kind}: {error}") from error
        finally:
            self._tally.spent[fault.name] += time.monotonic() - began

    def _note(self, fault: Fault, kind: str, blow: Blow | None) -> None:
        self._tally.note(fault, kind, blow)
        after = f"{blow.seconds:5.1f} s, {blow.followed} {blow.whom}" if blow else "did not count"
        passed = time.monotonic() - self._began
        print(f"{self._tally.total:4} {passed:6.0f} s {fault.name:<28} {kind:<8} {after}", flush=True)

    # ---- what must hold ----------------------------------------------------------------------------------------------

    async def _ended(self, request: str, struck: Sequence[Fault]) -> dict[str, Any]:
        names = ", ".join(map(str, struck)) or "nothing"
        self._tally.jobs += 1
        try:
            record = await self.site.final(request, JOB_SECONDS)
        except AssertionError as error:
            self._tally.jobs_lost += not await self.site.record(request)
            raise Stuck(f"after {names}: {error}") from error
        if record["state"] != "succeeded":
            self._failed(record, struck, names)
        elif record["kind"] == "backup":
            self._saved[record["id"]] = record["result"]["snapshot"]
        self._note_needless_attempts(record, struck)
        try:
            await self.site.expect_told_once(record)
        except AssertionError as error:
            self._tally.twice.append(f"{names}: {str(error)[:300]}")
        return record

    def _note_needless_attempts(self, record: Mapping[str, Any], struck: Sequence[Fault]) -> None:
        """Only who strikes a source should end an attempt. A needless one does no harm but for the time it takes."""
        lost = [attempt for attempt in record["attempts"] if (attempt.get("error") or {}).get("code") == "attempt-lost"]
        if len(lost) > sum(fault.ends_attempt for fault in struck):
            self._tally.needless.append(f"{len(lost)} of job {record['id']}, struck by: {', '.join(map(str, struck))}")
            print(f"     needless attempts: {self._tally.needless[-1]}", flush=True)

    def _failed(self, record: Mapping[str, Any], struck: Sequence[Fault], names: str) -> None:
        error = record.get("error") or {}
        excuse = next((fault.name for fault in struck if error.get("code") in fault.excuses), "")
        said = f"{record['kind']} {record['state']} with {error.get('code')}: {error.get('message')}"
        if excuse:
            self._tally.excused.append(f"{said}; excused by: {excuse}")
        else:
            self._tally.failed.append(f"{said}; struck by: {names}")
        print(f"     {said}", flush=True)

    def _compare(self, name: str) -> None:
        try:
            self._tally.bytes += self.site.expect_same(name, self._tree)
        except AssertionError as error:
            self._tally.bytes_lost += SIZE
            self._tally.unsound.append(str(error)[:300])

    async def judge(self, restic: str) -> None:
        """What must hold of the whole at the end. Asked for twins last: who writes late has done it by then."""
        for question in (self._lock_is_removed, self._audit_is_whole, self._repository_is_sound, self._no_twins):
            try:
                await question(restic)
            except (AssertionError, OSError, TimeoutError, Stuck) as error:
                self._tally.unsound.append(str(error)[-300:])

    async def _lock_is_removed(self, _restic: str) -> None:
        """Which the last job left behind: the next one sees to that."""
        await self._ended(await self.site.backup(self.site.data / "small"), [])

    async def _audit_is_whole(self, _restic: str) -> None:
        await self.site.expect_audit_whole()

    async def _repository_is_sound(self, restic: str) -> None:
        """The last lock of a lost attempt may have been too young for the last job to remove."""
        try:
            await asyncio.to_thread(self.site.expect_sound, restic)
        except AssertionError as error:
            if "already locked" not in str(error):
                raise
            await asyncio.sleep(LOCK_SECONDS)
            await self._lock_is_removed(restic)
            await asyncio.to_thread(self.site.expect_sound, restic)

    async def _no_twins(self, restic: str) -> None:
        """A job that ran once at a time left one snapshot."""
        found = await asyncio.to_thread(self.site.snapshots_by_job, restic)
        for job in sorted({*found, *self._saved}):
            if found.get(job) != [self._saved.get(job)]:
                self._tally.twice.append(f"job {job} says {self._saved.get(job)}, restic finds {found.get(job)}")


class Soak:
    """Visits to the layouts in turn, until every fault has struck often enough."""

    def __init__(self, given: argparse.Namespace, restic: str) -> None:
        self._given, self._restic = given, restic
        self._dice = random.Random(given.seed)
        self._began = time.monotonic()
        wanted = [layout for layout in LAYOUTS if self._faults_of(layout)]
        self._layouts = [layout for layout in wanted if layout.possible()]
        self.tally = Tally([fault for layout in self._layouts for fault in self._faults_of(layout)])
        self.tally.layouts = {layout.name: layout.wants for layout in wanted if not layout.possible()}

    def _faults_of(self, layout: Layout) -> list[Fault]:
        only = self._given.only
        return [fault for fault in layout.faults if not only or fault.name in only or layout.name in only]

    def run(self, folder: Path) -> None:
        until = time.monotonic() + self._given.minutes * 60
        quota = 0
        while not self._enough():
            quota += self._given.each
            for layout in self._layouts:
                if time.monotonic() > until or self.tally.stuck:
                    return
                self._visit(layout, folder / f"{layout.name}-{quota}", quota, until)
                self.report()

    def _keep_logs(self, site: Arena) -> None:
        """What the processes said, beside the report, for who asks why it is red."""
        if self._given.report and (self.tally.red or self.tally.needless):
            kept = self._given.report.with_suffix(".logs") / site.folder.relative_to(site.folder.parents[1])
            kept.mkdir(parents=True, exist_ok=True)
            for log in site.folder.glob("*.log"):
                shutil.copy(log, kept)

    def report(self) -> str:
        """What is known so far; it is written to where the command line says."""
        minutes = (time.monotonic() - self._began) / 60
        told = f"Seed {self._given.seed}, {minutes:.1f} minutes.\n\n{self.tally.table()}"
        if self._given.report:
            self._given.report.write_text(f"{told}\n")
            document = {"seed": self._given.seed, "minutes": minutes, **self.tally.to_json()}
            self._given.report.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
        return told

    def _enough(self) -> bool:
        each = min((self.tally.of(fault) for fault in self.tally.faults), default=ENOUGH)
        return self.tally.total >= ENOUGH and each >= ENOUGH_EACH

    def _visit(self, layout: Layout, folder: Path, quota: int, until: float) -> None:
        began = time.monotonic()
        folder.mkdir()
        with layout.make(folder, BROKEN.get(self._given.broken, {})) as ground:
            most = 1 if self._given.broken else MOST_OF_ONE_JOB  # the next might hide what the first brought about
            visit = Visit(ground, self.tally, self._faults_of(layout), self._dice, quota, most)
            print(f"layout {layout.name}, ready after {time.monotonic() - began:.1f} s", flush=True)
            asyncio.run(visit.run(until))
            asked = time.monotonic()
            asyncio.run(visit.judge(self._restic))
            print(f"layout {layout.name}, judged in {time.monotonic() - asked:.1f} s", flush=True)
            self._keep_logs(ground.site)
        shutil.rmtree(folder)


def main() -> int:
    kinds = [fault.name for layout in LAYOUTS for fault in layout.faults]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="stop after so long, however many have struck")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--broken", choices=list(BROKEN), help="run a build that must not pass")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*kinds, *(layout.name for layout in LAYOUTS)],
        help="this kind of fault, or those of this layout; may be given several times",
    )
    parser.add_argument("--each", type=int, default=5, help="how often each kind strikes in one visit to its layout")
    parser.add_argument("--folder", help="where the sites' files go; by default the system's temporary folder")
    parser.add_argument("--report", type=Path, help="write the table there too, beside it as JSON, and logs if red")
    given = parser.parse_args()
    restic = tools.newest_restic() or tools.restic()  # the newer the stricter
    if restic is None:
        parser.error(f"restic is needed: {tools.MAKE_SERVICES}")
    return _run(given, restic)


def _run(given: argparse.Namespace, restic: str) -> int:
    print(f"seed {given.seed}", flush=True)
    soak = Soak(given, restic)
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="soak-") as folder:
        try:
            soak.run(Path(folder))
        except KeyboardInterrupt:
            soak.tally.stuck.append("interrupted")
    print(soak.report(), "red" if soak.tally.red else "green", sep="\n", flush=True)
    return int(soak.tally.red)


if __name__ == "__main__":
    sys.exit(main())
