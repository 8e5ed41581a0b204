"""What a soak makes of what it saw: when it is red, and what its table says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.tally import ENOUGH_JOBS, Tally
from tests.support.faults import MIB, make_noise, stir
from tests.support.storms import Blow, Fault, Flow, Scene


async def never(_scene: Scene) -> None:
    raise AssertionError


KILL = Fault("kill it", never)
READ = Fault("flip it", never, ("restore",))


@pytest.fixture
def tally() -> Tally:
    return Tally([KILL, READ], jobs=ENOUGH_JOBS)


def test_green_needs_jobs(tally: Tally) -> None:
    assert not tally.red
    assert Tally([KILL]).red


@pytest.mark.parametrize("complaint", ["twice", "stuck", "failed", "unsound"])
def test_one_complaint_is_enough(tally: Tally, complaint: str) -> None:
    getattr(tally, complaint).append("what happened")
    assert tally.red
    assert "what happened" in tally.table()
    assert tally.to_json()["red"]


def test_losses_are_red() -> None:
    assert Tally([KILL], jobs=1, jobs_lost=1).red
    assert Tally([KILL], jobs=1, bytes_lost=1).red


def test_excuses_are_for_few(tally: Tally) -> None:
    tally.excused += ["the bit"] * 4
    assert not tally.red
    tally.excused.append("one more")
    assert tally.red


def test_a_line_a_kind_of_fault(tally: Tally) -> None:
    tally.note(KILL, "backup", Blow(1.0, "a new attempt", "a"))
    tally.note(KILL, "restore", Blow(4.0, "a new attempt", "b"))
    tally.note(KILL, "restore", None)
    tally.note(READ, "restore", Blow(0.5, "asked again"))
    lines = tally.table().splitlines()
    assert "| kill it | 2 | 1 | 1 | 1 | 2.5 s | 4.0 s | a new attempt (a 1, b 1) |" in lines
    assert "| flip it | 1 | – | 1 | 0 | 0.5 s | 0.5 s | asked again |" in lines
    assert (tally.total, tally.of(KILL)) == (3, 2)
    assert tally.to_json()["faults"]["kill it"]["seconds"] == [1.0, 4.0]


def test_bytes_of_one_job(tmp_path: Path) -> None:
    make_noise(tmp_path / "stored before", MIB, MIB)
    flow = Flow(tmp_path, 4 * MIB)
    make_noise(tmp_path / "new", 2 * MIB, MIB)
    assert (flow.arrived(), flow.left()) == (2 * MIB, 2 * MIB)


def test_a_restore_that_begins_again_counts_anew(tmp_path: Path) -> None:
    flow = Flow(tmp_path, 4 * MIB, anew=True)
    make_noise(tmp_path / "of the first attempt", 2 * MIB, MIB)
    flow.begin_again(flow.newest())
    assert flow.arrived() == 0
    make_noise(tmp_path / "of the second", MIB, MIB)
    assert flow.arrived() == MIB


def test_stirring_reaches_every_part(tmp_path: Path) -> None:
    before = (make_noise(tmp_path / "noise", MIB, MIB) / "noise 0").read_bytes()
    stir(tmp_path / "noise", MIB // 4)
    after = (tmp_path / "noise" / "noise 0").read_bytes()
    assert len(after) == len(before)
    for start in range(0, MIB, MIB // 4):
        assert after[start : start + 8] != before[start : start + 8]
        assert after[start + 8 : start + MIB // 4] == before[start + 8 : start + MIB // 4]
