"""A backup is brought to its other targets whatever dies meanwhile: what is to be done follows from the records."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy import config
from snappy.errors import BusUnavailable, Unavailable, WrongSequence
from snappy.jobs.attempts import Attempts
from snappy.jobs.identity import new_job_id
from snappy.jobs.kinds import BackupCommand
from snappy.jobs.messages import ALIVE_SECONDS, Attempt, Beat, ErrorInfo, JobRecord, Result
from snappy.jobs.mirror import Kept
from snappy.jobs.place_words import TargetKey
from snappy.jobs.places import is_unsettled
from snappy.jobs.result_words import SnapshotCopy
from snappy.jobs.spreading import Spreading
from snappy.jobs.states import FINAL, Event, State, after
from snappy.jobs.store import JobStore, StoredJob

NOW = 1_800_000_000.0
JOB = new_job_id(NOW)
SETTINGS = config.Core(max_attempts=2)
ENDS = [State.SUCCEEDED, State.FAILED]


class Dies(BusUnavailable):
    """The core, as a test has it."""


class Memory:
    """Records and holds, and the pen that writes them: it stops after ``strokes``."""

    def __init__(self, record: JobRecord) -> None:
        self.kept = {record.id: Kept(record, 1)}
        self.strokes = 1000
        self.opened: list[str] = []
        self.told: list[tuple[str, Event]] = []
        self.beats: list[Beat] = []
        self.records = self.holds = self.roster = self

    def get(self, job: str) -> StoredJob | None:
        return self.kept.get(job)

    async def fetch(self, job: str) -> StoredJob | None:
        return self.kept.get(job)

    async def remove(self, job: str) -> None:
        """Of a hold; there are none."""

    def unsettled(self) -> list[StoredJob]:
        return [stored for stored in self.kept.values() if is_unsettled(stored.value)]

    def is_alive(self, role: str, name: str, now: float) -> bool:
        return any(beat.service == name and now - beat.seen < ALIVE_SECONDS for beat in self.beats)

    def _write(self, record: JobRecord, revision: int) -> StoredJob:
        self.strokes -= 1
        if self.strokes < 0:
            raise Dies()
        if revision != (self.kept[record.id].revision if record.id in self.kept else 0):
            raise WrongSequence()
        self.kept[record.id] = Kept(record, revision + 1)
        return self.kept[record.id]

    async def open(self, record: JobRecord, event: Event) -> StoredJob:
        stored = self._write(record, 0)
        self.opened.append(record.id)
        return stored

    async def transition(self, stored: StoredJob, event: Event, **changes: Any) -> StoredJob:
        record = msgspec.structs.replace(stored.value, state=after(stored.value.state, event), **changes)
        written = self._write(record, stored.revision)
        self.told.append((record.id, event))
        return written

    async def note(self, stored: StoredJob, **changes: Any) -> StoredJob:
        return self._write(msgspec.structs.replace(stored.value, **changes), stored.revision)

    async def call(self, record: JobRecord) -> None:
        """Nobody comes."""

    async def stop_if_active(self, job: str, *, by: str) -> None:
        stored = self.kept[job]
        if stored.value.state not in FINAL:
            await self.transition(stored, Event.CANCELLED, cancel=by)


class Rig:
    """A backup that its worker has just stored at the first of three targets."""

    def __init__(self, quorum: int | None = None) -> None:
        command = BackupCommand(
            source="site", target="a", targets=[TargetKey(target="b"), TargetKey(target="c")], quorum=quorum
        )
        attempt = Attempt(number=1, service="site", replica="r", started=NOW, target="a")
        self.memory = Memory(
            JobRecord(
                id=JOB,
                kind="backup",
                submitter="alice",
                source="site",
                state=State.RUNNING,
                command=msgspec.to_builtins(command),
                attempts=[attempt],
            )
        )
        anything = cast(Any, self.memory)
        attempts = Attempts(cast(JobStore, anything), anything, SETTINGS, lambda: NOW)
        self.spreading = Spreading(anything, anything, attempts, anything, anything, SETTINGS, lambda: NOW)

    @property
    def backup(self) -> JobRecord:
        return self.memory.kept[JOB].value

    @property
    def states(self) -> list[str]:
        return [one.state for one in self.backup.result.stored] if self.backup.result else []

    async def begin(self) -> None:
        await self.spreading.begin(self.memory.kept[JOB], Result(snapshot="5" * 64))

    def copy(self, number: int) -> StoredJob:
        assert self.backup.result
        return self.memory.kept[self.backup.result.stored[number].job]

    def end(self, number: int, state: State) -> None:
        made = SnapshotCopy(snapshot="5" * 64, copy="6" * 64, is_new=True)
        changes: dict[str, Any] = {"state": state, "error": None, "result": Result(copies=[made])}
        if state is not State.SUCCEEDED:
            changes |= {"result": None, "error": ErrorInfo.of(Unavailable("away"))}
        self._change(number, **changes)

    def fail_once(self, number: int) -> None:
        record = self.copy(number).value
        error = ErrorInfo.of(Unavailable("away"))
        attempt = Attempt(number=1, service="site", replica="r", started=NOW, target="bc"[number - 1], error=error)
        self._change(number, state=State.RETRYING, error=error, attempts=[*record.attempts, attempt])

    def _change(self, number: int, **changes: Any) -> None:
        stored = self.copy(number)
        record = msgspec.structs.replace(stored.value, **changes)
        self.memory.kept[record.id] = Kept(record, stored.revision + 1)


async def test_each_other_target_gets_a_job_and_the_last_one_ends_the_backup() -> None:
    rig = Rig()
    await rig.begin()
    assert (rig.backup.state, rig.states) == (State.COPYING, ["stored", "waiting", "waiting"])
    assert [(rig.copy(number).value.follows, rig.copy(number).value.submitter) for number in (1, 2)] == [
        (JOB, "alice")
    ] * 2
    for number in (1, 2):
        rig.end(number, State.SUCCEEDED)
        await rig.spreading.settle_all()
    assert (rig.backup.state, rig.states) == (State.SUCCEEDED, ["stored"] * 3)
    assert [event for job, event in rig.memory.told if job == JOB] == [Event.STORED, Event.STORED, Event.SUCCEEDED]


async def test_what_is_behind_ends_the_wait_and_not_the_copy() -> None:
    rig = Rig()
    await rig.begin()
    rig.fail_once(1)
    await rig.spreading.settle_all()
    assert (rig.backup.state, rig.states[1]) == (State.COPYING, "waiting")
    rig.fail_once(1)
    await rig.spreading.settle_all()
    assert (rig.backup.state, rig.states) == (State.FAILED, ["stored", "behind", "waiting"])
    assert rig.backup.error
    assert rig.backup.error.message == "a has the backup, and 3 of 3 were asked for; b: away; c: waiting"
    for number in (1, 2):
        rig.end(number, State.SUCCEEDED)
    await rig.spreading.settle_all()
    assert (rig.backup.state, rig.states) == (State.FAILED, ["stored"] * 3)
    assert rig.memory.told[-1] == (JOB, Event.FAILED)


async def test_a_copy_that_is_behind_rests_until_its_target_is_alive() -> None:
    rig = Rig(quorum=1)
    await rig.begin()
    assert rig.backup.state is State.SUCCEEDED
    rig.fail_once(1)
    assert not rig.spreading.waits_for_target(rig.copy(1).value)
    rig.fail_once(1)
    assert rig.spreading.waits_for_target(rig.copy(1).value)
    rig.memory.beats = [Beat(service="b", replica="r", role="target", version="1", seen=NOW - 1)]
    assert not rig.spreading.waits_for_target(rig.copy(1).value)
    assert not rig.spreading.waits_for_target(rig.backup)


@pytest.mark.parametrize("opened", [True, False])
async def test_who_cancels_the_backup_cancels_its_copies(opened: bool) -> None:
    rig = Rig()
    rig.memory.strokes = 1000 if opened else 1
    try:
        await rig.begin()
    except Dies:
        rig.memory.strokes = 1000
    await rig.memory.transition(rig.memory.kept[JOB], Event.CANCELLED, cancel="alice")
    await rig.spreading.settle_all()
    assert rig.states == ["stored", "failed", "failed"]
    assert len(rig.memory.opened) == (2 if opened else 0)
    assert all(rig.copy(number).value.state is State.CANCELLED for number in (1, 2) if opened)


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(1, 2), st.sampled_from([*ENDS, None]), st.integers(0, 4)), max_size=8),
    st.integers(0, 4),
)
async def test_a_core_may_die_anywhere(quorum: int, happens: list[tuple[int, State | None, int]], strokes: int) -> None:
    rig = Rig(quorum)
    rig.memory.strokes = strokes
    for number, end, strokes_then in [*happens, (1, ENDS[0], 1000), (2, ENDS[0], 1000)]:
        try:
            if rig.backup.state is State.RUNNING:
                await rig.begin()
            await rig.spreading.settle_all()
        except Dies:
            pass
        if rig.backup.result and (job := rig.memory.get(rig.backup.result.stored[number].job)):
            if end is None and job.value.state not in FINAL:
                rig.fail_once(number)
            elif end and job.value.state not in FINAL:
                rig.end(number, end)
        rig.memory.strokes = strokes_then
    for _ in range(3):
        if rig.backup.state is State.RUNNING:
            await rig.begin()
        await rig.spreading.settle_all()
        for number in (1, 2):
            if rig.copy(number).value.state not in FINAL:
                rig.end(number, State.SUCCEEDED)
    await rig.spreading.settle_all()
    assert sorted(rig.memory.opened) == sorted(rig.copy(number).value.id for number in (1, 2))
    ends = {State.SUCCEEDED: "stored", State.FAILED: "failed"}
    assert rig.states == ["stored", *(ends[rig.copy(number).value.state] for number in (1, 2))]
    assert rig.backup.state is State.SUCCEEDED or rig.states.count("stored") < quorum or rig.backup.error
    last = [event for job, event in rig.memory.told if job == JOB]
    assert [event for event in last if event is not Event.STORED] == last[-1:]
    assert (last[-1] is Event.SUCCEEDED) == (rig.backup.state is State.SUCCEEDED)
