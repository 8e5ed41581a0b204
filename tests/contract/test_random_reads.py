"""A little out of a large file costs little, and is what the source has: from a place, and through a target."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from snappy.browse.filesystem import SnapshotFileSystem
from snappy.config import Allow, Config, Core, SourceService, TargetService
from snappy.repository.store import Store
from snappy.targets.policy import PolicyFileSystem
from tests.support import engine
from tests.support.backups import back_up
from tests.support.odd_tree import make_odd_tree
from tests.support.random_reads import random_reads
from tests.support.stack import in_process

MIB = 1 << 20
SIZE = 4096 * MIB
SPOTS = 24
ASKED = 65_536
MOST = 16 * MIB
READS_OVER_THE_BUS = 300
SECONDS = 60.0

Fetched = Callable[[], int]
"""Bytes that the storage gave since it was asked last."""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of odd files, and in it an image of 4 GiB that is noise in some places and nothing in the others."""
    top = Path(os.path.realpath(tmp_path_factory.mktemp("source"))) / "tree"
    make_odd_tree(top)
    with (top / "image").open("wb") as image:
        image.truncate(SIZE)
        for spot in spots():
            image.seek(spot)
            image.write(random.Random(spot).randbytes(MIB))
    return top


def spots() -> list[int]:
    chance = random.Random(9)
    return [chance.randrange(SIZE - MIB) for _ in range(SPOTS)]


@pytest.fixture(scope="module")
def vault(top: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("vault")
    with engine.new_repository(Store(fsspec.filesystem("file", auto_mkdir=True), str(place))) as repository:
        back_up(repository, top)
    return place


@pytest.fixture
def settings(tmp_path: Path, vault: Path) -> Config:
    return Config(
        state_dir=str(tmp_path / "state"),
        core=Core(),
        source={"site": SourceService(allow={"alice": Allow(kinds=["browse"], targets=["vault"])})},
        target={"vault": TargetService(url=str(vault), rights="rl")},
    )


def expect_little_fetched(fs: SnapshotFileSystem, top: Path, spot: int, fetched: Fetched) -> None:
    """All that it takes to get at the bytes counts: keys, snapshots, index, trees."""
    fetched()
    got = fs.cat_file(f"latest{top}/image", spot + 1000, spot + 1000 + ASKED)
    assert got == random.Random(spot).randbytes(MIB)[1000:][:ASKED]
    assert ASKED <= fetched() < MOST


def counter(monkeypatch: pytest.MonkeyPatch, storage: Any, *, ranges: bool) -> Fetched:
    """Counts what a class of filesystems gives, whole or, with ``ranges``, in frames."""
    given: list[int] = []
    cat_file = storage.cat_file

    def counted(self: Any, *arguments: Any, **options: Any) -> bytes:
        data: bytes = cat_file(self, *arguments, **options)
        given.append(len(data))
        return data

    monkeypatch.setattr(storage, "cat_file", counted)
    if ranges:
        open_range = storage.open_range

        def opened(self: Any, path: str, start: int, size: int) -> Any:
            given.append(size)
            return open_range(self, path, start, size)

        monkeypatch.setattr(storage, "open_range", opened)

    def fetched() -> int:
        total = sum(given)
        given.clear()
        return total

    return fetched


def test_64_kib_out_of_4_gib_from_a_place(top: Path, vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = counter(monkeypatch, LocalFileSystem, ranges=False)
    for spot in spots()[:4]:
        fs = SnapshotFileSystem(str(vault), password=engine.PASSWORD)
        expect_little_fetched(fs, top, spot, fetched)
        fs.close()


async def test_64_kib_out_of_4_gib_over_the_bus(top: Path, settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = counter(monkeypatch, PolicyFileSystem, ranges=True)
    async with in_process(settings, ["alice"], passwords=lambda _: engine.PASSWORD) as inside:
        for spot in spots()[:4]:
            fs = SnapshotFileSystem(target="vault", source="site", nats=inside.server.broker.nats("alice"))
            await asked(expect_little_fetched, fs, top, spot, fetched)
            await asked(fs.close)


async def test_any_range_over_the_bus_is_the_sources(top: Path, settings: Config) -> None:
    async with in_process(settings, ["alice"], passwords=lambda _: engine.PASSWORD) as inside:
        fs = SnapshotFileSystem(target="vault", source="site", nats=inside.server.broker.nats("alice"))

        def compare() -> None:
            for below, offset, length, wanted in random_reads(top, 13, READS_OVER_THE_BUS):
                got = fs.cat_file(f"latest{top}/{below}", offset, offset + length)
                assert got == wanted, (below, offset, length)

        await asked(compare)
        await asked(fs.close)


async def asked(work: Callable[..., None], *arguments: Any) -> None:
    async with asyncio.timeout(SECONDS):
        await asyncio.to_thread(work, *arguments)
