"""Whatever is planted, repairs bring a repository to where nothing is wrong, and all that could survive did."""

from __future__ import annotations

import functools

import pytest

from tests.support import plants, survivors
from tests.support.plants import Oracle, Original

FEW = 210
MANY = 2000


@functools.cache
def original() -> Original:
    return plants.make()


def repair(seeds: range) -> None:
    losses = 0
    for seed in seeds:
        planted = plants.planted(original(), seed)
        oracle = Oracle(original(), planted.files)
        if not oracle.opens:
            continue
        store = plants.store_of(planted.files)
        survivors.repair_all(store)
        left = [one for one in survivors.check(store).findings if one.is_damage and one.kind.name != "KEY_DAMAGED"]
        assert left == [], planted.name
        expected = survivors.surviving_snapshots(oracle)
        assert survivors.shapes_in(store, original().contents) == expected, planted.name
        losses += expected != survivors.surviving_snapshots(Oracle(original(), original().files))
    assert len(seeds) / 10 < losses < len(seeds)


def test_all_that_could_survive_does() -> None:
    repair(range(FEW))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_that_could_survive_many_plants_does() -> None:
    repair(range(FEW, FEW + MANY))
