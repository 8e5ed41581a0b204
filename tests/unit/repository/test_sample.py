"""Which files a drill restores: as many as asked for, larger ones likelier, and the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snappy.errors import BadOptions
from snappy.repository.format import MIB
from snappy.repository.losses import Losses
from snappy.repository.progress import Problems, never
from snappy.repository.sample import Chosen, Sample, choose
from tests.support.backups import back_up
from tests.support.engine import new_repository

SIZES = st.dictionaries(st.binary(min_size=1, max_size=6), st.integers(0, 10 * MIB), max_size=60)


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("5%", Sample(percent=5.0)),
        ("0.5%", Sample(percent=0.5)),
        ("100%", Sample(percent=100.0)),
        ("500", Sample(size=500)),
        ("2m", Sample(size=2 * MIB)),
        ("1G", Sample(size=1 << 30)),
    ],
)
def test_parts_as_people_write_them(text: str, sample: Sample) -> None:
    assert Sample.parse(text) == sample


@pytest.mark.parametrize("text", ["", "0%", "101%", "0", "-1", "1/7", "5 %", "1X", "5%%"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(BadOptions, match="no sample"):
        Sample.parse(text)


@given(SIZES, st.floats(0.01, 100), st.integers())
def test_a_share_is_reached_and_no_file_is_too_many(files: dict[bytes, int], percent: float, seed: int) -> None:
    total = sum(files.values())
    drawn = Sample(percent=percent).draw(files.items(), total, random.Random(seed))
    assert drawn.items() <= files.items()
    assert bool(drawn) == bool(files)
    wanted, size = total * percent / 100, sum(drawn.values())
    assert size >= wanted - 1
    assert size <= wanted + max(files.values(), default=0)


@given(SIZES, st.integers(1, 40 * MIB), st.integers())
def test_a_size_is_not_exceeded(files: dict[bytes, int], size: int, seed: int) -> None:
    fitting = {path: each for path, each in files.items() if each <= size}
    if files and not fitting:
        with pytest.raises(BadOptions, match="smaller than each"):
            Sample(size=size).draw(files.items(), 0, random.Random(seed))
        return
    drawn = Sample(size=size).draw(files.items(), 0, random.Random(seed))
    assert drawn.items() <= fitting.items()
    assert sum(drawn.values()) <= size
    assert bool(drawn) == bool(fitting)
    if sum(files.values()) <= size:
        assert drawn == files


def test_files_are_drawn_by_their_size() -> None:
    """Of four files one is drawn each time: as often as its share of all bytes, give or take four deviations."""
    files = {b"a": 10, b"b": 20, b"c": 30, b"d": 40}
    times = 4000
    drawn = Counter[bytes]()
    for seed in range(times):
        drawn.update(set(Sample(percent=0.1).draw(files.items(), 100, random.Random(seed))))
    assert sum(drawn.values()) == times
    for path, size in files.items():
        share = size / 100
        assert abs(drawn[path] - times * share) < 4 * (times * share * (1 - share)) ** 0.5


def test_a_seed_draws_the_same_again(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / str(number % 4)).mkdir(exist_ok=True)
        (tmp_path / str(number % 4) / str(number)).write_bytes(bytes(100 + number))
    with new_repository() as repository:
        done = back_up(repository, tmp_path)
        total = sum(100 + number for number in range(40))
        for summary in (done.snapshot.summary, None):  # what an older restic wrote has none
            done.snapshot.summary = summary
            drawn = [
                choose(Losses(repository), done.snapshot, Sample(percent=20), seed, Problems(), never).files
                for seed in (7, 7, 8)
            ]
            assert drawn[0] == drawn[1] != drawn[2]
            assert all(total / 5 <= sum(files.values()) < total / 5 + 140 for files in drawn)


def test_the_way_to_a_file_is_chosen_with_it() -> None:
    chosen = Chosen({b"/a/b/c": 1, b"/a/d": 2})
    assert bool(chosen)
    assert [chosen.takes(path, directory=True) for path in (b"/a", b"/a/b", b"/a/d", b"/x")] == [1, 1, 0, 0]
    assert [chosen.takes(path, directory=False) for path in (b"/a/b/c", b"/a/d", b"/a/b", b"/e")] == [1, 1, 0, 0]
