"""Whatever is planted, a check finds each thing, names it rightly, and imagines none."""

from __future__ import annotations

import functools

import pytest

from snappy.errors import SnappyError
from snappy.repository.checker import Checker, what_bars
from snappy.repository.portion import EVERYTHING
from snappy.repository.repo import Repository
from snappy.repository.store import Store
from tests.support import plants
from tests.support.engine import PASSWORD
from tests.support.plants import Expected, Oracle, Original

FEW = 250
MANY = 2000


@functools.cache
def original() -> Original:
    return plants.make()


def found_in(store: Store) -> Expected:
    with Repository.open(store, PASSWORD) as repository:
        findings = Checker(repository).check(EVERYTHING).findings
    told = [{(one.kind.value.name, one.id) for one in findings if one.is_damage is damage} for damage in (True, False)]
    assert len(findings) == sum(map(len, told)), "the same was found twice"
    return Expected(*told)


def bars(store: Store) -> set[tuple[str, str]]:
    with pytest.raises(SnappyError):
        Repository.open(store, PASSWORD)
    return {(one.kind.value.name, one.id) for one in what_bars(store, PASSWORD)}


@pytest.mark.parametrize("change", ["flip", "cut", "empty", "append"])
def test_a_configuration_that_is_damaged_is_named(change: str) -> None:
    config = original().files["config"]
    flipped = bytes([config[0] ^ 1]) + config[1:]
    damaged = {"flip": flipped, "cut": config[:-1], "empty": b"", "append": config + b"x"}[change]
    assert bars(plants.store_of(original().files | {"config": damaged})) == {("config-damaged", "config")}


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    found = found_in(plants.store_of(original().files))
    assert found == Oracle(original(), original().files).expected()
    assert found.damage == set()
    assert len(original().packs) > 10


def compare(seeds: range) -> None:
    undamaged = 0
    for seed in seeds:
        planted = plants.planted(original(), seed)
        oracle = Oracle(original(), planted.files)
        store = plants.store_of(planted.files)
        expected = oracle.expected()
        if not oracle.opens:
            keys = {found for found in expected.damage if found[0] == "key-damaged"}
            assert bars(store) == keys, planted.name
            continue
        assert found_in(store) == expected, planted.name
        undamaged += not expected.damage
    assert 0 < undamaged < len(seeds) / 3


def test_each_plant_is_found_and_named() -> None:
    compare(range(FEW))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_each_of_many_plants_is_found_and_named() -> None:
    compare(range(FEW, FEW + MANY))
