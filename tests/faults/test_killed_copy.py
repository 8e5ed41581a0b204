"""A copy that is killed anywhere leaves a whole repository, and the next attempt copies what is left."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from snappy.repository.copier import Copier
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import tools
from tests.support.engine import CHEAP, PASSWORD
from tests.support.littered import SMALL_PACKS, back_up, contents, held, litter, opened, store_of
from tests.support.mortal_prune import MortalStore, attempt, dies
from tests.support.restic import Restic

POINTS = 12


def copy(source: Store, target: Store, number: int = 1) -> int:
    """What the attempt of that number does; how many blobs it stored."""
    with (
        Repository.open(source, PASSWORD) as one,
        Repository.open(target, PASSWORD, options=SMALL_PACKS) as other,
        held(other, attempt(number))(False),
    ):
        Copier(one, other, resumes=number > 1).copy(one.snapshots())
        return other.stats.blobs_new


@pytest.mark.restic_newest
def test_death_at_any_operation(tmp_path: Path) -> None:
    source, empty = store_of(tmp_path / "source"), tmp_path / "empty"
    litter(source, snapshots=4)
    with opened(source) as repository:
        back_up(repository, 4, b"what is compressed " * 50)
    Repository.init(store_of(empty), PASSWORD, cost=CHEAP).close()
    counted = MortalStore(shutil.copytree(empty, tmp_path / "counted"))
    whole = copy(source, counted)
    expected = list(contents(source).values())
    sent_less = 0
    for fatal in sorted(random.Random(5).sample(range(6, counted.operations + 1), POINTS)):
        folder = shutil.copytree(empty, tmp_path / f"{fatal}")
        dies(lambda folder=folder, fatal=fatal: copy(source, MortalStore(folder, fatal)))
        restic = Restic(tools.newest_restic() or "", folder, PASSWORD, tmp_path / "cache")
        restic.run("check", "--read-data", "--no-lock", "--no-cache")
        sent_less += copy(source, store_of(folder), 2) < whole
        assert list(contents(store_of(folder)).values()) == expected
        restic.check()
    assert sent_less > POINTS // 2
