"""What index files say is kept on the local disk, and believed only as far as the repository still says it."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from snappy.repository import index_cache
from snappy.repository.format import BlobLocation, BlobType
from snappy.repository.index import encode_index
from snappy.repository.index_cache import KEPT_UNUSED, IndexCache
from snappy.repository.index_table import all_locations
from snappy.repository.repo import Repository
from snappy.repository.store import FileType
from tests.support.engine import CHEAP, PASSWORD, Interposed, memory_store
from tests.support.index_tables import gathered, places

BLOBS = places(60)
HEX = "ab" * 32


class Site:
    """A repository of index files, a cache, and a list of the index files that were read."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "indexes"
        self.read: list[str] = []
        self.files = Interposed(self._note)
        self.store = memory_store(self.files)
        self.writer = Repository.init(self.store, PASSWORD, cost=CHEAP)

    def _note(self, method: str, path: str) -> None:
        if method == "cat_file" and "/index/" in path:
            self.read.append(path.rpartition("/")[2])

    def add(self, blobs: list[BlobLocation]) -> str:
        """One more index file; its name."""
        return self.writer.documents.save(FileType.INDEX, encode_index(blobs))

    def loaded(self) -> set[BlobLocation]:
        """What a job finds, after every blob was looked up; ``read`` are the index files that it read."""
        self.read.clear()
        with Repository.open(self.store, PASSWORD, cache=self.cache) as repository:
            repository.load_index()
            found = list(repository.index)
            assert len(set(found)) == len(found)
            assert all(repository.has_blob(place.kind, place.id) for place in found)
            return set(found)

    @property
    def tables(self) -> list[Path]:
        return sorted((self.cache / self.writer.id).iterdir())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_no_index_file_is_read_twice(site: Site) -> None:
    first = site.add(BLOBS[:30])
    assert site.loaded() == set(BLOBS[:30])
    assert site.read == [first]
    second = site.add(BLOBS[30:])
    for expected in ([second], [], []):
        assert site.loaded() == set(BLOBS)
        assert site.read == expected


def test_without_a_folder_nothing_is_kept(site: Site) -> None:
    site.add(BLOBS)
    for _ in range(2):
        site.read.clear()
        with Repository.open(site.store, PASSWORD) as repository:
            repository.load_index()
            assert set(repository.index) == set(BLOBS)
        assert len(site.read) == 1
    assert not site.cache.exists()


def test_what_a_removed_index_file_listed_is_forgotten(site: Site) -> None:
    kept, gone = site.add(BLOBS[:30]), site.add(BLOBS[30:])
    site.loaded()
    site.store.remove(FileType.INDEX, gone)
    assert site.loaded() == set(BLOBS[:30])
    assert site.read == [kept]
    assert len(site.tables) == 1
    assert site.loaded() == set(BLOBS[:30])
    assert site.read == []


def test_a_repository_that_was_pruned_is_read_anew(site: Site) -> None:
    old = [site.add(BLOBS[start : start + 10]) for start in range(0, 60, 10)]
    site.loaded()
    new = site.add(BLOBS[5:25])
    for name in old:
        site.store.remove(FileType.INDEX, name)
    assert site.loaded() == set(BLOBS[5:25])
    assert site.read == [new]


def test_a_job_goes_on_with_what_is_new(site: Site) -> None:
    site.add(BLOBS[:30])
    site.loaded()
    site.read.clear()
    with Repository.open(site.store, PASSWORD, cache=site.cache) as repository:
        repository.load_index()
        new = repository.save_blob(BlobType.DATA, b"new")
        repository.flush()
        site.add(BLOBS[30:])
        assert site.read == []
        repository.load_index()
        assert len(site.read) == 2
        assert set(repository.index) >= set(BLOBS)
        assert repository.load_blob(BlobType.DATA, new.id) == b"new"
    assert len(site.loaded()) == 61
    assert len(site.read) == 2


def test_what_is_not_in_the_repository_yet_does_not_get_into_the_cache(site: Site) -> None:
    site.add(BLOBS)
    with Repository.open(site.store, PASSWORD, cache=site.cache) as repository:
        repository.save_blob(BlobType.DATA, b"never listed")
        repository.load_index()
    assert site.loaded() == set(BLOBS)


def test_superseded_index_files_are_passed_over_also_when_cached(site: Site) -> None:
    old = site.add(BLOBS[:30])
    site.loaded()
    kept = json.loads(encode_index(BLOBS[30:])) | {"supersedes": [old]}
    site.writer.documents.save(FileType.INDEX, json.dumps(kept).encode())
    for _ in range(2):
        assert site.loaded() == set(BLOBS[30:])
    site.store.remove(FileType.INDEX, old)
    assert site.loaded() == set(BLOBS[30:])
    assert site.loaded() == set(BLOBS[30:])
    assert site.read == []


def flipped(position: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = int(position * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "a stamp alone": lambda data: data[-32:],
    "cut": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "zeros": lambda data: bytes(len(data)),
    **{f"flipped at {part}": flipped(part) for part in (0, 0.2, 0.5, 0.8, 0.9, 0.99, 1)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_table_is_thrown_away(site: Site, damage: Callable[[bytes], bytes]) -> None:
    name = site.add(BLOBS)
    site.loaded()
    (path,) = site.tables
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with capture_logs() as told:
        assert site.loaded() == set(BLOBS)
    assert site.read == [name]
    assert [(line["log_level"], line["file"]) for line in told] == [("warning", str(path))]
    (path,) = site.tables
    assert path.read_bytes() == whole
    assert site.loaded() == set(BLOBS)
    assert site.read == []


def test_a_table_of_another_repository_is_thrown_away(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    for one, blobs in ((site, BLOBS[:30]), (other, BLOBS[30:])):
        one.add(blobs)
        one.loaded()
    (foreign,) = other.tables
    (site.cache / site.writer.id / foreign.name).write_bytes(foreign.read_bytes())
    assert site.loaded() == set(BLOBS[:30])
    assert len(site.tables) == 1


def test_a_copy_of_a_repository_with_its_key_has_its_own_tables(tmp_path: Path) -> None:
    def stamp(purpose: bytes, data: bytes) -> bytes:
        return data

    one, other = (IndexCache(tmp_path, name * 32, stamp) for name in ("01", "02"))
    one.open([])
    other.open([])
    one.extend([], [HEX], gathered(BLOBS))
    (path,) = (tmp_path / ("01" * 32)).iterdir()
    path.rename(tmp_path / ("02" * 32) / path.name)
    assert other.open([HEX]) == []


def test_only_their_owner_may_read_the_tables(site: Site) -> None:
    site.add(BLOBS)
    before = os.umask(0)
    try:
        site.loaded()
    finally:
        os.umask(before)
    (path,) = site.tables
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(site: Site) -> None:
    site.add(BLOBS)
    site.cache.write_text("in the way")
    with capture_logs() as told:
        assert site.loaded() == set(BLOBS)
    assert {line["log_level"] for line in told} == {"warning"}


def test_a_disk_that_is_full_costs_nothing_but_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    site.add(BLOBS[:30])
    site.loaded()
    kept = site.tables
    site.add(BLOBS[30:])
    monkeypatch.setattr(index_cache.os, "replace", full)
    with capture_logs() as told:
        assert site.loaded() == set(BLOBS)
    assert [line["event"] for line in told] == ["an index could not be cached"]
    assert site.tables == kept


def test_what_a_crash_left_goes_after_an_hour(site: Site) -> None:
    site.add(BLOBS)
    site.loaded()
    folder = site.cache / site.writer.id
    young, old = folder / ".unfinished-young", folder / ".unfinished-old"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 3700))
    site.loaded()
    assert (young.exists(), old.exists()) == (True, False)


def test_tables_of_a_repository_that_nobody_opens_go(site: Site, tmp_path: Path) -> None:
    unused, used, strange = (site.cache / name for name in (HEX, "cd" * 32, "notes"))
    for folder in (unused, used, strange):
        folder.mkdir(parents=True)
        (folder / "table").write_bytes(b"x")
    for folder in (unused, strange):
        os.utime(folder, (0, time.time() - KEPT_UNUSED - 60))
    site.add(BLOBS)
    site.loaded()
    assert (unused.exists(), used.exists(), strange.exists()) == (False, True, True)
    os.utime(site.cache / site.writer.id, (0, 0))
    assert site.loaded() == set(BLOBS)
    assert time.time() - (site.cache / site.writer.id).stat().st_mtime < 60


def sizes(site: Site) -> list[int]:
    """The rows of the tables, the largest first."""
    with Repository.open(site.store, PASSWORD, cache=site.cache) as repository:
        repository.load_index()
        return [len(table) for table in repository.index._tables]


def test_a_small_addition_does_not_write_a_large_table_anew(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "_SMALL", 3)
    monkeypatch.setattr(index_cache, "_FACTOR", 4)
    site.add(BLOBS[:40])
    assert sizes(site) == [40]
    site.add(BLOBS[40:42])
    assert sizes(site) == [40, 2]
    (large,) = (path for path in site.tables if path.stat().st_size > 40 * 48 + 1100)
    site.add(BLOBS[42:45])
    assert sizes(site) == [40, 5]
    assert large.exists()
    site.add(BLOBS[45:52])
    assert sizes(site) == [52]
    assert not large.exists()
    assert site.loaded() == set(BLOBS[:52])


def test_many_small_additions_are_few_tables(site: Site) -> None:
    for blob in BLOBS:
        site.add([blob])
        site.loaded()
    assert len(site.tables) == 1
    assert site.loaded() == set(BLOBS)


def test_tables_that_stand_for_the_same_file_are_used_once(site: Site) -> None:
    site.add(BLOBS[:10])
    site.loaded()
    (small,) = site.tables
    data = small.read_bytes()
    site.add(BLOBS[10:])
    site.loaded()
    small.write_bytes(data)  # as another process may, which knew less
    assert len(site.tables) == 2
    assert site.loaded() == set(BLOBS)
    assert len(site.tables) == 1


def test_many_at_once(site: Site) -> None:
    for start in range(0, 60, 6):
        site.add(BLOBS[start : start + 6])

    def job(_: int) -> set[BlobLocation]:
        with Repository.open(site.store, PASSWORD, cache=site.cache) as repository:
            repository.load_index()
            return set(repository.index)

    with ThreadPoolExecutor(6) as pool:
        assert all(found == set(BLOBS) for found in pool.map(job, range(24)))
    assert site.loaded() == set(BLOBS)


def test_a_table_outlives_its_file(site: Site) -> None:
    site.add(BLOBS)
    site.loaded()
    with Repository.open(site.store, PASSWORD, cache=site.cache) as repository:
        repository.load_index()
        (path,) = site.tables
        path.unlink()
        assert set(repository.index) == set(BLOBS)


def test_a_table_lies_in_the_file_as_it_is_used(tmp_path: Path) -> None:
    cache = IndexCache(tmp_path, HEX, lambda purpose, data: data)
    cache.open([])
    (made,) = cache.extend([], [HEX], gathered(BLOBS))
    (kept,) = cache.open([HEX])
    assert list(all_locations(kept.table)) == list(all_locations(made))
    assert kept.files == {HEX}
